"""Interface of probers, which start slices of probes and return their measurements without blocking.

A probe is a training run of one configuration, made to measure it. A slice is a part of that run: the next
slice of the same probe continues from the checkpoint of the previous slice. A score is one evaluation of the
metric that the job names as its goal.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from search_spaces import Configuration
from tuner.domain.measurement import Measurement, Purpose


@dataclass(frozen=True, kw_only=True)
class Until:
    """Limits of a slice: the slice ends when it reaches the first of them, or the target of the job.

    Args:
        training_seconds: Training time since the run started, including earlier slices; None for no limit.
        samples: Number of samples processed since the run started, including earlier slices; None for no
            limit.
        steps: Number of optimizer steps in this slice alone; None for no limit.
        scores: Number of scores in this slice alone, at least 1; None for no limit. The slice ends right
            after its last score. Scores of the untrained model do not count, nor do scores of training that
            an earlier slice has already done. A timing probe does not score and ignores this limit.

    Raises:
        ValueError: No limit is given, or `scores` is below 1.
    """

    training_seconds: float | None = None
    samples: int | None = None
    steps: int | None = None
    scores: int | None = None

    def __post_init__(self) -> None:
        if {self.training_seconds, self.samples, self.steps, self.scores} == {None}:
            raise ValueError("a slice needs a limit: training_seconds, samples, steps or scores")
        if self.scores is not None and self.scores < 1:
            raise ValueError(f"scores must be at least 1, got {self.scores}")


@dataclass(frozen=True, kw_only=True)
class ProbeHandle:
    """Identifies a slice that was started, for `Prober.poll` and `Prober.cancel`.

    Args:
        identity: Number of the slice as text, unique within the prober.
        configuration: The configuration that the slice trains.
        purpose: Whether the slice times steps or trains (see `Purpose`).
        folder: Folder of the probe, with its command, environment, log, metrics and checkpoints.
    """

    identity: str
    configuration: Configuration
    purpose: Purpose
    folder: Path


class Prober(ABC):
    """Runs slices of probes, several at the same time.

    - Each probe has its own folder. A new slice in the folder of an earlier slice resumes from the newest
      checkpoint there.
    - All slices in a folder have the same configuration. Only `nodes` may differ, and only if the number of
      nodes does not change the training that the strategy does.
    - `poll` returns the measurement of one slice, not of the whole run (see `Measurement`). While the outcome
      of the measurement is RUNNING, the slice continues, and later polls return a more complete measurement.
    - If training fails, the measurement has an outcome such as FAILED. A prober raises an exception only if
      it cannot run any slice.
    """

    @abstractmethod
    def start(
        self, configuration: Configuration, purpose: Purpose, until: Until, folder: Path
    ) -> ProbeHandle:
        """Starts a slice and returns at once.

        Args:
            configuration: The configuration to train.
            purpose: Whether the slice times steps or trains.
            until: Limits of the slice.
            folder: Folder of the probe; the slice resumes from the newest checkpoint in this folder, if any.

        Raises:
            ProbeError: No rank can be started.
            StorageError: The folder cannot be written.
        """

    @abstractmethod
    def poll(self, handle: ProbeHandle) -> Measurement:
        """Returns the measurement of the slice so far.

        Raises:
            ProbeError: Another prober started the slice.
        """

    @abstractmethod
    def cancel(self, handle: ProbeHandle) -> None:
        """Stops a slice and all processes that it started; its checkpoints are not deleted."""

    def ask_to_end(self, handle: ProbeHandle) -> float | None:
        """Asks a slice to save a checkpoint and end.

        Afterwards, the caller must poll the slice until its outcome is no longer RUNNING.

        Returns:
            Seconds that the slice may take to save; None if this prober cannot ask slices to end. In this
            case, the caller must cancel the slice.
        """
        return None

    def forget_after(self, folder: Path, samples: int) -> None:
        """Removes progress that the database does not have, because the tuner was killed before it stored it.

        Only a prober whose lost slices are not charged needs this: it repeats such a slice.

        Args:
            folder: Folder of the probe.
            samples: Number of samples of the run in the database.
        """
        return

    def end_orphans(self, folder: Path) -> None:
        """Ends processes that a killed tuner left running for a probe, on any host.

        Args:
            folder: Folder of the probe.
        """
        return

    def now(self) -> float:
        """Returns the seconds on the monotonic clock that measures the duration and the cost of slices."""
        return time.monotonic()

    @abstractmethod
    def close(self) -> None:
        """Stops every slice, and ends processes that wait for another slice."""
