"""Collects what the fitted models say beyond the recommendation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from search_spaces import Configuration, traits_of
from tuner.advice.alternatives import alternative
from tuner.advice.conditions import Refit, node_hours, widened
from tuner.advice.curve_forecasts import curve_forecasts, run_result
from tuner.advice.what_if import what_if
from tuner.analytic.laws import NINETY_PERCENT
from tuner.analytic.noise_growth import GROWTH
from tuner.analytic.samples_model import SEED_SD, SamplesModel
from tuner.analytic.step_parts import step_shares
from tuner.analytic.step_time_model import SecondsModel
from tuner.domain.analysis import (
    Analysis,
    RateOutlook,
    RateRun,
    SamplesAtBatch,
    StepParts,
    TradeOff,
)
from tuner.domain.estimate import Estimate
from tuner.search.beliefs import Beliefs
from tuner.search.prediction_log import LEVELS
from tuner.search.state import SearchState, run_of

T = TypeVar("T")

#: Largest numbers of entries: configurations in a trade-off, numbers of nodes, and cells of learning rates.
_MOST_TRADE_OFFS, _MOST_NODES, _MOST_RATES, _MOST_BATCHES = 12, 12, 400, 24
#: Share of a grid of batch sizes and learning rates that forecasts must contain.
_ENOUGH = 0.9
#: A configuration that is less likely to reach the target is no trade-off.
_LIKELY = 0.5
#: A trade-off takes at most this share of the time or cost of its neighbor.
_LESS = 0.98


def analysis(state: SearchState, beliefs: Beliefs, choice: Configuration, refit: Refit | None) -> Analysis:
    """Collects what the fitted models say beyond the recommendation.

    Args:
        state: State of the search.
        beliefs: Forecasts of all candidates.
        choice: The recommended configuration.
        refit: Function that fits the models to another state; None to leave out what needs it.
    """
    critical, basis = _critical_batch(beliefs)
    grid = _on_grid(state, beliefs, choice, refit)
    alike = _alike(grid, choice)
    return Analysis(
        what_if=what_if(state, beliefs, choice, refit),
        trade_offs=_trade_offs(state, beliefs, choice),
        step_parts=_step_parts(state, beliefs, choice),
        samples_by_batch=_samples_by_batch(state, grid, alike),
        critical_batch=critical,
        critical_batch_basis=basis,
        learning_rates=_learning_rates(state, grid, alike),
        rate_runs=_rate_runs(state, choice),
        curve_forecasts=curve_forecasts(state, beliefs, choice),
    )


def _trade_offs(state: SearchState, beliefs: Beliefs, choice: Configuration) -> tuple[TradeOff, ...]:
    """Returns the Pareto front of time and cost over the candidates, soonest first.

    The cost is in dollars, or in node hours if nodes have no price. Candidates that the recommendation was
    preferred to although their expected cost is smaller, such as unmeasured ones, are left out.
    """
    if choice not in beliefs.configurations:
        return ()
    configurations, cluster, expected = beliefs.configurations, state.cluster, beliefs.expected
    own = configurations.index(choice)
    found = {own: alternative(state, beliefs, choice)}
    front = [own]
    medians = beliefs.forecast.quantile(0.5)
    likely = beliefs.forecast.probability_of_reaching() >= _LIKELY
    rates = np.array([cluster.dollars_per_second(c) for c in configurations])
    if not cluster.has_prices:
        rates = np.array([float(c.nodes + cluster.extra_nodes) for c in configurations])
    medians[own] = found[own].seconds.median
    by_cost = state.job.goal.minimize == "dollars"
    goal, other = (medians * rates, medians) if by_cost else (medians, medians * rates)
    for i in np.argsort(expected, kind="stable").tolist():
        if not (math.isfinite(expected[i]) and expected[i] >= expected[own] and likely[i]):
            continue
        if other[i] < other[front[-1]] * _LESS and goal[i] > goal[front[-1]]:
            front.append(i)
    points = []
    for i in sorted(_thinned(front, _MOST_TRADE_OFFS), key=lambda place: float(medians[place])):
        shown = found.get(i) or alternative(state, beliefs, configurations[i])
        points.append(
            TradeOff(
                configuration=shown.configuration,
                seconds=shown.seconds,
                dollars=shown.dollars,
                node_hours=node_hours(state, shown.configuration, shown.seconds),
                is_choice=i == own,
            )
        )
    return tuple(points)


def _step_parts(state: SearchState, beliefs: Beliefs, choice: Configuration) -> tuple[StepParts, ...]:
    """Divides a step of the recommended configuration into parts, for each number of nodes."""
    model, cluster = beliefs.predictor.seconds, state.cluster
    if not isinstance(model, SecondsModel) or model.num_observations == 0:
        return ()
    counts = [n for n in cluster.node_counts if choice.batch_size >= cluster.num_ranks(n)]
    counts = _thinned(sorted({*counts, choice.nodes}), _MOST_NODES)
    configurations = [choice.replaced(nodes=n) for n in counts]
    shares = step_shares(model, configurations)
    mean, covariance = model.log_seconds_per_sample(configurations)
    sds = np.hypot(np.sqrt(np.maximum(np.diag(covariance), 0.0)), model.between_moments_sd)
    timed = {m.configuration.nodes for m in state.slices if m.step_seconds is not None}
    waits_input = _input_share(state)
    found = []
    for i, configuration in enumerate(configurations):
        seconds = math.exp(float(mean[i])) * choice.batch_size
        spread = math.exp(NINETY_PERCENT * float(sds[i]))
        own = seconds * float(shares.compute[i])
        found.append(
            StepParts(
                configuration=configuration,
                seconds=Estimate(lower=seconds / spread, median=seconds, upper=seconds * spread),
                compute_seconds=own * (1.0 - waits_input),
                input_seconds=own * waits_input,
                waiting_seconds=seconds * float(shares.waiting[i]),
                communication_seconds=seconds * float(shares.communication[i]),
                is_timed=configuration.nodes in timed,
            )
        )
    return tuple(found)


def _input_share(state: SearchState) -> float:
    """Returns which share of a rank's own time, without waits for other ranks, is the wait for input."""
    shares = [
        rank.input.mean / own
        for m in state.slices
        for rank in m.ranks
        if (own := rank.step.mean - rank.sync.mean) > 0
    ]
    return min(max(float(np.median(shares)), 0.0), 1.0) if shares else 0.0


def _on_grid(state: SearchState, beliefs: Beliefs, choice: Configuration, refit: Refit | None) -> Beliefs:
    """Returns forecasts for every batch size and learning rate of the space, else like the recommendation.

    They are the given forecasts if these contain enough of them, or if the job replays a recording.
    """
    axes = state.space.axes
    if refit is None or state.job.recording() is not None or not {"batch_size", "learning_rate"} <= set(axes):
        return beliefs
    wanted = [
        choice.replaced(batch_size=batch, learning_rate=rate)
        for batch in axes["batch_size"].levels()
        for rate in axes["learning_rate"].levels()
    ]
    wanted = [c for c in wanted if not any(f.reason_against(c) for f in state.space.conditions)]
    known = set(beliefs.configurations)
    if sum(c in known for c in wanted) > _ENOUGH * len(wanted) or len(wanted) > _MOST_RATES:
        return beliefs
    runs = [run.configuration for run in state.runs.values() if run.configuration in known]
    return refit(state, list(dict.fromkeys([choice, *runs, *wanted])))


def _alike(beliefs: Beliefs, choice: Configuration) -> list[int]:
    """Returns the indices of the candidates that train like the recommendation, except batch and rate."""
    by_nodes = traits_of(choice.strategy).statistics_depend_on_nodes if "strategy" in choice else True
    free = ("batch_size", "learning_rate", *([] if by_nodes else ["nodes"]), "machine")
    same = choice.without(*(axis for axis in free if axis in choice))
    return [
        i
        for i, c in enumerate(beliefs.configurations)
        if c.without(*(axis for axis in free if axis in c)) == same
    ]


def _samples_by_batch(
    state: SearchState, beliefs: Beliefs, alike: Sequence[int]
) -> tuple[SamplesAtBatch, ...]:
    """Returns the samples to target for each batch size, with the rate that needs the fewest samples."""
    best: dict[int, int] = {}
    cost = _samples_cost(beliefs, alike)
    for i in alike:
        configuration = beliefs.configurations[i]
        if "batch_size" in configuration:
            batch = configuration.batch_size
            if math.isfinite(cost[i]) and (batch not in best or cost[i] < cost[best[batch]]):
                best[batch] = i
    found = []
    for batch in _thinned(sorted(best), _MOST_BATCHES):
        i = best[batch]
        ordered = np.sort(beliefs.forecast.samples[:, i])
        finite = ordered[np.isfinite(ordered)]
        lower, median, upper = (float(finite[int(level * len(finite))]) for level in LEVELS)
        samples = Estimate(lower=lower, median=median, upper=upper)
        run = run_of(state, beliefs.configurations[i])
        if run is not None and run.arrived:
            samples = widened(samples, SEED_SD)
        found.append(
            SamplesAtBatch(
                configuration=beliefs.configurations[i],
                samples=samples,
                measured_samples=None if run is None else run.samples_to_target,
                probability_of_reaching=_chance(state, beliefs, i),
            )
        )
    return tuple(found)


def _samples_cost(beliefs: Beliefs, alike: Sequence[int]) -> dict[int, float]:
    """Returns the median samples to target divided by the probability of reaching it, by candidate."""
    columns = list(alike)
    samples = np.exp(np.minimum(np.median(beliefs.forecast.log_samples[:, columns], axis=0), 600.0))
    reach = 1.0 - beliefs.forecast.never[:, columns].mean(axis=0)
    with np.errstate(divide="ignore"):
        return dict(zip(columns, (samples / reach).tolist(), strict=True))


def _chance(state: SearchState, beliefs: Beliefs, index: int) -> float:
    """Returns the probability that a candidate reaches the target, as `Alternative` states it."""
    run = run_of(state, beliefs.configurations[index])
    if run is not None and run.arrived:
        return 1.0
    chance = 1.0 - float(beliefs.forecast.never[:, index].mean())
    return min(max(chance, LEVELS[0]), LEVELS[-1])


def _critical_batch(beliefs: Beliefs) -> tuple[Estimate | None, str]:
    """Returns the gradient noise scale with its interval, and its basis; None if it is unknown."""
    models = (beliefs.predictor.samples, beliefs.predictor.other)
    law = next((model for model in models if isinstance(model, SamplesModel)), None)
    if law is None or "log noise scale" in law.posterior.at_prior():
        return None, ""
    values = law.parameters()
    mean, sd = values["log noise scale"]
    lower, median, upper = (math.exp(mean + z * NINETY_PERCENT * sd) for z in (-1.0, 0.0, 1.0))
    basis = "runs with different batch sizes"
    if GROWTH.name in values:
        basis = "gradient noise measured during training, and runs with different batch sizes"
    return Estimate(lower=lower, median=median, upper=upper), basis


def _learning_rates(state: SearchState, beliefs: Beliefs, alike: Sequence[int]) -> tuple[RateOutlook, ...]:
    """Returns the probability of reaching the target by batch size and learning rate."""
    cost, cells = _samples_cost(beliefs, alike), dict[tuple[int, float], int]()
    best: dict[int, tuple[int, float]] = {}
    for i in alike:
        c = beliefs.configurations[i]
        if "learning_rate" not in c or "batch_size" not in c:
            continue
        key = (c.batch_size, c.learning_rate)
        if key not in cells or cost[i] < cost[cells[key]]:
            cells[key] = i
        if c.batch_size not in best or cost[i] < cost[cells[best[c.batch_size]]]:
            best[c.batch_size] = key
    if len({rate for _, rate in cells}) < 2:
        return ()
    return tuple(
        RateOutlook(
            batch_size=batch,
            learning_rate=rate,
            probability_of_reaching=_chance(state, beliefs, cells[batch, rate]),
            is_best=best[batch] == (batch, rate),
        )
        for batch, rate in _thinned(sorted(cells), _MOST_RATES)
    )


def _rate_runs(state: SearchState, choice: Configuration) -> tuple[RateRun, ...]:
    """Returns the measured runs of the recommended strategy, by batch size and learning rate."""
    return tuple(
        RateRun(
            batch_size=run.configuration.batch_size,
            learning_rate=run.configuration.learning_rate,
            trial_number=run.probe.trial_number,
            result=run_result(run),
        )
        for run in state.runs.values()
        if {"batch_size", "learning_rate"} <= set(run.configuration)
        and run.configuration.get("strategy") == choice.get("strategy")
    )


def _thinned(values: Sequence[T], most: int) -> list[T]:
    """Returns at most `most` of the values, evenly spaced, with the first and the last one."""
    if len(values) <= most:
        return list(values)
    return [values[round(k * (len(values) - 1) / (most - 1))] for k in range(most)]
