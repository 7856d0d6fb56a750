"""Studies of runs that stop at random before they reach the target, from complete learning curves."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.plateaus import curve_of
from tuner.domain.workload import METRICS
from tuner.job import Job
from tuner.recordings.recording import Recording
from tuner.search.start_value import guessed_start, progress_of

Array = npt.NDArray[np.float64]

#: Scores that a curve has, and that a run has before the target, and runs of a workload that reach it.
_FEWEST_SCORES, _FEWEST_ARRIVING = 3, 3
_FEWEST_SEEN = 2
#: Most runs of a study that reach the target, and that do not; the chance that it has any of the latter.
_MOST_ARRIVING, _MOST_OTHERS, _CHANCE_OF_OTHERS = 7, 3, 0.7


@dataclass(frozen=True, kw_only=True)
class FirstPart:
    """A run until it stops, before it reaches the target.

    Args:
        samples: At each score, `(num_scores,)`.
        progress: At each score, `(num_scores,)`.
        log_samples_to_target: The truth; None if the run never reaches the target.
    """

    samples: Array
    progress: Array
    log_samples_to_target: float | None


def studies_of(recording: Recording, num: int, rng: np.random.Generator) -> Iterator[list[FirstPart]]:
    """Random studies of a recording's runs; none where too few of them reach the target.

    Args:
        recording: The curves and the target.
        num: How many studies.
        rng: Draws the runs and where they stop.
    """
    sign = 1.0 if recording.maximize else -1.0
    curves = [curve_of(run, sign) for run in recording.runs]
    curves = [curve for curve in curves if len(curve[0]) >= _FEWEST_SCORES]
    past = [np.flatnonzero(values >= sign * recording.target) for _, values in curves]
    others = [place for place, found in enumerate(past) if not len(found)]
    arriving = [place for place, found in enumerate(past) if len(found) and found[0] >= _FEWEST_SCORES]
    if len(arriving) < _FEWEST_ARRIVING:
        return
    job = _job_of(recording)
    for _ in range(num):
        chosen = _drawn(arriving, _MOST_ARRIVING, rng)
        if others and rng.random() < _CHANCE_OF_OTHERS:
            chosen += _drawn(others, _MOST_OTHERS, rng)
        start = guessed_start(job, [sign * float(curves[place][1][0]) for place in chosen])
        assert start is not None, "every study has a run"
        study = []
        for place in chosen:
            samples, values = curves[place]
            end = int(past[place][0]) if len(past[place]) else len(values)
            length = int(math.exp(rng.uniform(math.log(_FEWEST_SEEN), math.log(end + 1))))
            length = min(max(length, _FEWEST_SEEN), end)
            study.append(
                FirstPart(
                    samples=samples[:length],
                    progress=progress_of(values[:length], sign * start, sign * recording.target),
                    log_samples_to_target=math.log(samples[end]) if len(past[place]) else None,
                )
            )
        yield study


def _drawn(places: Sequence[int], most: int, rng: np.random.Generator) -> list[int]:
    """One of them up to `most`, none twice."""
    num = min(int(rng.integers(1, most + 1)), len(places))
    return [int(place) for place in rng.choice(places, num, replace=False)]


def _job_of(recording: Recording) -> Job:
    """The goal of a recording as a job; nothing else of it is used."""
    goal = {"metric": recording.metric, "target": recording.target}
    if recording.metric not in METRICS:
        goal["direction"] = "maximize" if recording.maximize else "minimize"
    return Job.model_validate(
        {
            "workload": {"command": "train.py {batch_size} {learning_rate}", "epoch_samples": 1},
            "goal": goal,
            "space": {"batch_size": [1, 2], "learning_rate": [0.1, 0.2]},
        }
    )
