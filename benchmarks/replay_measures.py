"""What replayed searches came to: costs until the answer is good, regret, coverage, as one JSON object."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.replay_problem import Problem
from benchmarks.replay_trace import Prediction, Trace

#: Spent so many times the best configuration's cost, regret is looked at.
REGRET_AT = (3, 10, 30)
_NEAR, _NEARER = 1.2, 1.05


def cost_until(problem: Problem, trace: Trace, factor: float) -> float:
    """Cost from which the recommendation is within a factor of the best and stays so, in the best's cost.

    Infinite where the last recommendation is not.
    """
    found = math.inf
    for moment in reversed(trace.moments):
        if problem.regret(moment.recommended) > factor:
            break
        found = moment.spent / problem.best
    return found


def regret_after(problem: Problem, trace: Trace, spent: float) -> float:
    """Regret of the last recommendation made before more than so many times the best's cost was spent."""
    made = [m for m in trace.moments if m.spent <= spent * problem.best]
    return problem.regret(made[-1].recommended) if made else math.inf


def is_covered(problem: Problem, prediction: Prediction) -> bool:
    """Whether the truth lies within the interval, as far as the recording knows it.

    What never arrived in the recording may arrive after its end: an interval that reaches beyond it holds.
    """
    truth = problem.seconds[prediction.configuration]
    if math.isinf(truth):
        return prediction.upper >= problem.recording.run(prediction.configuration).seconds
    return prediction.lower <= truth <= prediction.upper


def interval_ratio(problem: Problem, prediction: Prediction) -> float | None:
    """Upper over lower end, cut off at the recording's end; None where all of it lies beyond."""
    end = problem.recording.run(prediction.configuration).seconds
    if prediction.lower >= end or prediction.lower <= 0:
        return None
    return min(prediction.upper, end) / prediction.lower


def measured(
    problem: Problem,
    sampler: str,
    prior: str,
    searches: Sequence[Trace],
    trainings: Sequence[Trace],
) -> dict[str, Any]:
    """One sampler on one recording.

    Args:
        problem: What was searched.
        sampler: Its name.
        prior: What its model believed before.
        searches: For an answer that serves many trainings, one for each seed; may be empty.
        trainings: For one training, one for each seed; may be empty.
    """
    predictions = [prediction for trace in searches for prediction in trace.predictions]
    ratios = [ratio for p in predictions if (ratio := interval_ratio(problem, p)) is not None]
    seconds = [
        m.suggestion_seconds
        for trace in (searches or trainings)
        for m in trace.moments
        if m.suggestion_seconds is not None
    ]
    totals = [math.inf if t.arrived_at is None else t.arrived_at for t in trainings]
    stops = [problem.regret(trace.end.recommended) for trace in searches]
    return {
        "recording": problem.recording.name,
        "goal": problem.goal,
        "sampler": sampler,
        "prior": prior,
        "seeds": len(searches or trainings),
        "cost_to_20_percent": _costs([cost_until(problem, t, _NEAR) for t in searches]),
        "cost_to_5_percent": _costs([cost_until(problem, t, _NEARER) for t in searches]),
        "regret_at": {str(at): _median([regret_after(problem, t, at) for t in searches]) for at in REGRET_AT},
        "stop": {
            "cost": _median([trace.end.spent / problem.best for trace in searches]),
            "regret": _median(stops),
            "p90_regret": _p90(stops),
        },
        "total_against_best": _median([total / problem.best for total in totals]),
        "total_against_median": _median([total / problem.median for total in totals]),
        "coverage_90": float(np.mean([is_covered(problem, p) for p in predictions])) if predictions else None,
        "interval_ratio": _median(ratios),
        "suggestion_seconds": {"median": _median(seconds), "p90": _p90(seconds)},
    }


def _costs(costs: Sequence[float]) -> dict[str, float | None]:
    never = float(np.mean(np.isinf(costs))) if costs else None
    return {"median": _median(costs), "p90": _p90(costs), "never": never}


def _median(values: Sequence[float]) -> float | None:
    """None for nothing and where it is infinite, which JSON cannot say."""
    return _finite(float(np.median(values))) if len(values) else None


def _p90(values: Sequence[float]) -> float | None:
    # One of the values: between a finite and an infinite one there is nothing.
    return _finite(float(np.quantile(values, 0.9, method="higher"))) if len(values) else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
