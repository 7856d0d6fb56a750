"""Predicts what would be best for a nearer and for a farther target."""

from __future__ import annotations

import math
from collections.abc import Iterator

from tuner.advice.conditions import MOST_REFITTED, Base, Condition, Refit
from tuner.domain.analysis import WhatIf
from tuner.domain.format import format_seconds, format_value
from tuner.domain.workload import METRICS
from tuner.search.runs import run_key
from tuner.search.state import read_state

#: Change of the target, as a share of the distance from the target to the best possible value of the metric,
#: or, if that is unknown, of the distance from the first value to the target.
_OF_BOUND, _OF_WAY = 0.2, 0.1
#: A farther target is predicted if a measured curve has come this share of the way to it.
_NEAR_ENOUGH = 0.9


def target_rows(base: Base, refit: Refit) -> Iterator[WhatIf]:
    """Yields what is best for a nearer and a farther target; nothing without a score of a trained model.

    The models are fitted again to the measured curves, with the other target.
    """
    state, goal = base.state, base.state.job.goal
    values = (run.measurement.finite_values for run in state.runs.values())
    best = max((goal.sign * value for own in values for value in own), default=None)
    start = state.start_value
    if best is None or start is None or (goal.target - start) * goal.sign <= 0:
        return
    # The runs that the models are not fitted to would take time and memory, and change nothing.
    probes = [p for p in state.probes if run_key(state.job, p.configuration) not in state.left_out]
    step = _step(base, start)
    for sign, words in ((-1.0, "nearer"), (1.0, "farther")):
        target = float(f"{goal.target + sign * goal.sign * step:.4g}")
        change = f"the target is {format_value(target)} ({words})"
        progress = (best - goal.sign * start) / (goal.sign * (target - start))
        if sign > 0 and progress < _NEAR_ENOUGH:
            furthest = format_value(goal.sign * best)
            yield WhatIf(topic="target", change=change, note=f"not measured: no curve is beyond {furthest}")
            continue
        job = state.job.model_copy(update={"goal": goal.model_copy(update={"target": target})})
        there = read_state(job, state.cluster, probes, state.epoch_samples)
        if not there.runs:
            continue
        condition = Condition(
            topic="target",
            change=change,
            state=there,
            beliefs=refit(there, base.shortlist(MOST_REFITTED)),
        )
        place = condition.best(base)
        if place is None:
            continue
        note = "same"
        chosen = condition.beliefs.configurations.index(base.choice)
        if place != chosen:
            own = condition.row(base, chosen)
            assert own.seconds is not None
            note = f"the recommended configuration would take {format_seconds(own.seconds.median)}"
        if sign > 0 and progress < 1.0:
            note = f"{note}; predicted beyond the measured curves"
        yield condition.row(base, place, note)


def _step(base: Base, start: float) -> float:
    """Returns by how much the target changes, above 0."""
    goal = base.state.job.goal
    known, way = METRICS.get(goal.metric), abs(goal.target - start)
    if known is not None:
        bound = known.upper if goal.maximize else known.lower
        if math.isfinite(bound) and bound != goal.target:
            return min(_OF_BOUND * abs(bound - goal.target), 0.5 * way)
    return _OF_WAY * way
