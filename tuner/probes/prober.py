"""Interface of probers: start slices of probes, poll them without blocking, many at once."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from search_spaces import Configuration
from tuner.domain.measurement import Measurement, Purpose


@dataclass(frozen=True, kw_only=True)
class Until:
    """Where a slice ends; whichever comes first. The target always ends it.

    Args:
        training_seconds: Training clock since the run started.
        samples: Samples seen since the run started.
        steps: Optimizer steps of this slice.
        scores: Number of scores of this slice, at least 1; the slice ends right after the last of them. The
            score of the untrained model does not count, nor does one at a position that an earlier slice
            had reached. A timing probe scores nothing and ignores it.

    Raises:
        ValueError: No end is given, or `scores` is below 1.
    """

    training_seconds: float | None = None
    samples: int | None = None
    steps: int | None = None
    scores: int | None = None

    def __post_init__(self) -> None:
        if {self.training_seconds, self.samples, self.steps, self.scores} == {None}:
            raise ValueError("a slice needs an end: training_seconds, samples, steps or scores")
        if self.scores is not None and self.scores < 1:
            raise ValueError(f"scores must be at least 1, got {self.scores}")


@dataclass(frozen=True, kw_only=True)
class ProbeHandle:
    """Handle of a slice in flight.

    Args:
        identity: Unique within the prober.
        configuration: What runs.
        purpose: Why.
        folder: Where its command, environment, log, metrics and checkpoints lie.
    """

    identity: str
    configuration: Configuration
    purpose: Purpose
    folder: Path


class Prober(ABC):
    """Runs slices of probes.

    A probe lives in a folder. Starting it again in the same folder resumes from the newest
    checkpoint there, under the same configuration but for `nodes`, where the strategy's statistics
    do not depend on them. The measurement that `poll` returns grows until its outcome is no longer
    RUNNING; it is that of the slice alone (see `Measurement`). What went wrong inside a probe is an
    outcome; only a prober that cannot work at all raises.
    """

    @abstractmethod
    def start(
        self, configuration: Configuration, purpose: Purpose, until: Until, folder: Path
    ) -> ProbeHandle:
        """Starts a slice and returns at once.

        Raises:
            ProbeError: Probing is impossible: no rank can be started.
            StorageError: The folder cannot be written.
        """

    @abstractmethod
    def poll(self, handle: ProbeHandle) -> Measurement:
        """What the slice saw so far."""

    @abstractmethod
    def cancel(self, handle: ProbeHandle) -> None:
        """Ends the slice and everything it started; what was checkpointed stays."""

    def ask_to_end(self, handle: ProbeHandle) -> float | None:
        """Asks the slice to save what it has and to end; `poll` says when it has.

        Returns:
            Seconds that it is given for it, besides what it needs to be ended; None where it cannot be asked,
            and is to be cancelled.
        """
        return None

    def end_orphans(self, folder: Path) -> None:
        """Ends what an earlier tuner's slices left running in a probe's folder, also on other hosts.

        Args:
            folder: The probe's folder.
        """
        return

    def now(self) -> float:
        """Seconds on the clock by which slices are charged, never going back."""
        return time.monotonic()

    @abstractmethod
    def close(self) -> None:
        """Ends every slice and releases warm processes."""
