"""Predicts when each run will be evaluated next, from the intervals between its evaluations so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from search_spaces import Configuration
from tuner.analytic.laws import Array
from tuner.domain.measurement import CurvePoint
from tuner.search.state import SearchState

#: Scores come at regular intervals of samples, steps or seconds. Each of these units predicts the time to the
#: first score of a run. If a run without a score has trained for this multiple of the time that a unit
#: predicts, this unit is not used.
_OVERDUE = 1.1
#: If a score is later than predicted, it is expected after this share of the run's training seconds so far.
_MORE_OF_OVERDUE = 0.25


def score_times(
    state: SearchState, configurations: Sequence[Configuration], seconds_per_sample: Array
) -> Array:
    """Predicts for how many seconds each candidate must still train until its next score.

    A score is an evaluation of the metric. Scores are assumed to come at regular intervals of samples, steps
    or seconds. The prediction uses the unit in which the intervals vary least between runs. Scores of the
    untrained model do not count.

    Args:
        state: State of the search.
        configurations: The candidates.
        seconds_per_sample: Predicted seconds per sample of each candidate, `(num,)`.

    Returns:
        The training seconds, `(num,)`; 0 if no run has a score.
    """
    num = len(configurations)
    batches = np.array([float(c.batch_size) for c in configurations])
    units = {"samples": seconds_per_sample, "steps": seconds_per_sample * batches, "seconds": np.ones(num)}
    rows = {configuration: i for i, configuration in enumerate(configurations)}
    firsts: list[Mapping[str, float]] = []
    distances: list[Mapping[str, float]] = []
    done, last = np.zeros(num), np.zeros(num)
    is_unscored, is_scored = np.zeros(num, dtype=bool), np.zeros(num, dtype=bool)
    for run in state.runs.values():
        places = [_places(point, run.configuration.batch_size) for point in run.measurement.trained_curve]
        if places:
            firsts.append(places[0])
        if len(places) > 1:
            between = np.diff([list(place.values()) for place in places], axis=0)
            distances.append(dict(zip(units, np.median(between, axis=0).tolist(), strict=True)))
        row = rows.get(run.configuration)
        if row is not None:
            done[row] = run.measurement.training_seconds
            last[row] = places[-1]["seconds"] if places else 0.0
            is_scored[row], is_unscored[row] = bool(places), not places
    if not firsts:
        return np.zeros(num)
    ruled_out = {
        unit
        for unit, seconds in units.items()
        if (done > _OVERDUE * np.median([first[unit] for first in firsts]) * seconds)[is_unscored].any()
    }
    first = _predicted(firsts, units, ruled_out)
    distance = _predicted(distances, units, ruled_out) if distances else first
    left = np.where(is_scored, last + distance, first) - done
    return np.asarray(np.where(left > 0, left, np.maximum(_MORE_OF_OVERDUE * done, 1e-9)), dtype=float)


def _places(point: CurvePoint, batch_size: int) -> dict[str, float]:
    """Returns how far a run had trained at a score, in each unit: samples, steps and seconds."""
    return {
        "samples": float(point.samples),
        "steps": point.samples / batch_size,
        "seconds": max(point.training_seconds, 1e-9),
    }


def _predicted(seen: Sequence[Mapping[str, float]], units: Mapping[str, Array], ruled_out: set[str]) -> Array:
    """Predicts the interval between two scores of each candidate, in training seconds, `(num,)`.

    Args:
        seen: The observed intervals, one element per run. An element maps each unit to the length of the
            interval.
        units: Maps each unit to the training seconds of one sample, step or second of each candidate,
            `(num,)`.
        ruled_out: Units that contradict the scores of a run; they are used only if all units do.
    """
    spread = {unit: float(np.std(np.log([max(one[unit], 1e-9) for one in seen]))) for unit in units}
    unit = min(units, key=lambda name: (name in ruled_out, round(spread[name], 3)))
    return np.asarray(np.median([one[unit] for one in seen]) * units[unit], dtype=float)
