"""A recording as a problem to be searched: the job over it, and the truth that searches are judged by."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from search_spaces import Configuration
from tuner.domain.errors import JobError
from tuner.domain.measurement import Measurement
from tuner.job import Job
from tuner.job.recorded_job import completed
from tuner.probes.recorded import RecordedProber
from tuner.recordings.file import load_recording
from tuner.recordings.recording import Recording

Goal = Literal["seconds", "dollars"]

#: Trainings that an answer serves where only regret counts: a later gain is always worth more than a probe.
MANY_TRAININGS = 1000


@dataclass(frozen=True, kw_only=True, eq=False)
class Problem:
    """A recording, what is made small on it, and how every configuration truly does.

    Args:
        path: The recording's file.
        goal: What is made small.
        trainings: How many trainings the answer serves.
        deadline: Longest training time that counts, seconds; None for any.
        can_resume: Whether a run resumes where its last slice ended; otherwise each slice starts it over.
        unit: Cost that searches are measured in, in the goal's unit, where it is not the smallest true cost.
    """

    path: Path
    goal: Goal
    trainings: int
    deadline: float | None
    can_resume: bool = True
    unit: float | None = None

    @cached_property
    def recording(self) -> Recording:
        """What is replayed."""
        return load_recording(self.path)

    @cached_property
    def job(self) -> Job:
        """The job as `paceline run` would make it."""
        goal: dict[str, Any] = {"minimize": self.goal, "trainings": self.trainings}
        if self.deadline is not None:
            goal["deadline"] = self.deadline
        stated = {
            "name": "replay",
            "goal": goal,
            "probe": {"kind": "recorded", "recording": str(self.path.resolve())},
        }
        data, problems = completed(stated, self.path.parent)
        if problems:
            raise JobError(f"{self.path}: {'; '.join(problems)}")
        return (Job if self.can_resume else _RestartingJob).model_validate(data)

    def prober(self) -> RecordedProber:
        """A prober that replays the recording and writes nothing."""
        return RecordedProber(
            self.recording, target=self.job.goal.target, can_resume=self.can_resume, folderless=True
        )

    @cached_property
    def seconds(self) -> Mapping[Configuration, float]:
        """True training seconds to the target, the recorded configurations in order; infinite for never."""
        return true_seconds(self.recording)

    @cached_property
    def costs(self) -> Mapping[Configuration, float]:
        """True cost of one training in the goal's unit, start-up left out; infinite past the deadline."""
        limit = math.inf if self.deadline is None else self.deadline
        return {c: s * self.price(c) if s <= limit else math.inf for c, s in self.seconds.items()}

    @cached_property
    def best(self) -> float:
        """The unit that searches are measured in: the smallest true cost, unless `unit` says otherwise."""
        return min(self.costs.values()) if self.unit is None else self.unit

    @cached_property
    def median(self) -> float:
        """The median true cost of the configurations that arrive in time."""
        return float(np.median([cost for cost in self.costs.values() if math.isfinite(cost)]))

    def price(self, configuration: Configuration) -> float:
        """What a second of a configuration costs in the goal's unit."""
        return 1.0 if self.goal == "seconds" else self.recording.cluster.dollars_per_second(configuration)

    def charged(self, measurement: Measurement) -> float:
        """What a slice was charged in the goal's unit."""
        return measurement.charged_seconds if self.goal == "seconds" else measurement.charged_dollars

    def regret(self, configuration: Configuration | None) -> float:
        """True cost of a recommendation over the best; infinite for none."""
        return math.inf if configuration is None else self.costs[configuration] / self.best


class _RestartingJob(Job):
    """A recorded job whose runs start over with each slice."""

    @property
    def can_resume(self) -> bool:
        return False


def true_seconds(recording: Recording) -> dict[Configuration, float]:
    """Training seconds to the target of every recorded configuration; infinite where it is never reached."""
    return {c: recording.truth_seconds(recording.run(c)) for c in recording.configurations()}


@lru_cache(maxsize=32)
def problem(path: Path, goal: Goal, trainings: int = MANY_TRAININGS) -> Problem:
    """The problem that a recording poses.

    For dollars the deadline is the median training time of what arrives, so that waiting forever on one
    cheap machine is no answer.

    Raises:
        JobError: The file cannot be read, or nothing in it reaches the target.
    """
    arriving = [s for s in true_seconds(load_recording(path)).values() if math.isfinite(s)]
    if not arriving:
        raise JobError(f"{path}: no recorded run reaches the target; choose a recording where one does")
    deadline = float(np.median(arriving)) if goal == "dollars" else None
    return Problem(path=path, goal=goal, trainings=trainings, deadline=deadline)
