"""Predicts what would be best if the links between nodes were faster or slower."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from tuner.advice.conditions import Base, Condition, first_change, up_to
from tuner.analytic.step_parts import BANDWIDTH, LATENCY, log_change_draws, step_shares
from tuner.analytic.step_time_model import SecondsModel
from tuner.domain.analysis import WhatIf
from tuner.domain.format import format_seconds, format_share
from tuner.search.prospects import prospects_of

#: Factors by which links are faster or slower, smallest first. The first one that changes the answer is
#: shown.
_FACTORS = (2.0, 4.0, 10.0)


def link_rows(base: Base) -> Iterator[WhatIf]:
    """Yields what is best with slower and with faster links; nothing if no candidate communicates.

    Bandwidth and latency change together.
    """
    state, model = base.state, base.beliefs.predictor.seconds
    ranks = max(state.cluster.num_ranks(c.nodes) for c in base.beliefs.configurations)
    if ranks < 2 or not isinstance(model, SecondsModel):
        return
    links = "communication between ranks is" if state.cluster.nodes_share_host else "links between nodes are"
    if state.cluster.virtual is None and {BANDWIDTH, LATENCY} <= set(model.posterior.at_prior()):
        timed = any(
            m.step_seconds and state.cluster.num_ranks(m.configuration.nodes) > 1 for m in state.slices
        )
        words = "not measured: no step on several ranks was timed"
        if timed:
            words = "not measured: the timed steps do not show how long communication takes"
        yield WhatIf(topic="links", change=f"{links} slower or faster", note=words)
        return
    for sign, words in ((-1.0, "slower"), (1.0, "faster")):

        def made(factor: float, sign: float = sign, words: str = words) -> Condition:
            changes = {BANDWIDTH: sign * math.log(factor), LATENCY: -sign * math.log(factor)}
            return _changed(base, model, changes, f"{links} {factor:g} times {words}")

        condition, best, factor = first_change(base, made, _FACTORS)
        row = condition.row(base, best, _note(base, condition, best))
        yield up_to(row, factor) if row.is_same else row


def _changed(base: Base, model: SecondsModel, changes: dict[str, float], words: str) -> Condition:
    """Forecasts all candidates with other values of parameters of the step-time model.

    Times of started runs are converted by the predicted ratio of their step times.
    """
    state, beliefs = base.state, base.beliefs
    configurations, before = beliefs.configurations, beliefs.prospects
    change = log_change_draws(model, configurations, changes, np.random.default_rng(state.job.seed))
    ratio = np.exp(change.mean(axis=0))
    status = replace(
        before.status,
        seconds=before.status.seconds * ratio,
        arrived=before.status.arrived * ratio,
        earliest=before.status.earliest * ratio,
    )
    forecast = replace(
        beliefs.forecast,
        log_seconds=beliefs.forecast.log_seconds + change,
        seconds_per_sample=beliefs.forecast.seconds_per_sample * ratio,
    )
    for unknown, value in changes.items():
        model = model.shifted((unknown,), value)
    ratios = dict(zip(configurations, ratio.tolist(), strict=True))
    runs = {
        key: run
        if run.seconds_to_target is None
        else replace(run, seconds_to_target=run.seconds_to_target * ratios.get(run.configuration, 1.0))
        for key, run in state.runs.items()
    }
    return Condition(
        topic="links",
        change=words,
        state=replace(state, runs=runs),
        beliefs=replace(
            beliefs,
            predictor=replace(beliefs.predictor, seconds=model),
            forecast=forecast,
            prospects=prospects_of(forecast, status, before.may_lead, before.reach),
        ),
        log_sd=change.std(axis=0),
    )


def _note(base: Base, condition: Condition, best: int) -> str:
    """Says which share of a step of the best configuration is communication under the condition."""
    model = condition.beliefs.predictor.seconds
    assert isinstance(model, SecondsModel), "only the step-time model has links"
    configuration = condition.beliefs.configurations[best]
    share = format_share(float(step_shares(model, [configuration]).communication[0]))
    if best == base.index and base.state.cluster.num_ranks(base.choice.nodes) == 1:
        return "same: it does not communicate"
    if best == base.index:
        return f"same: communication would be {share} of its step"
    own = condition.row(base, base.index)
    assert own.seconds is not None
    return (
        f"communication would be {share} of its step; the recommended configuration would take "
        f"{format_seconds(own.seconds.median)}"
    )
