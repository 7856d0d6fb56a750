"""Interface of probers, which start slices of probes and poll them without blocking."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from search_spaces import Configuration
from tuner.domain.measurement import Measurement, Purpose


@dataclass(frozen=True, kw_only=True)
class Until:
    """Limits of a slice; the first one that is reached ends it. The target always ends it.

    Args:
        training_seconds: Training clock since the run started.
        samples: Samples seen since the run started.
        steps: Optimizer steps of this slice.
        scores: Number of scores of this slice, at least 1; the slice ends right after the last of them.
            Scores of the untrained model, or at positions that an earlier slice has reached, do not count. A
            timing probe scores nothing and ignores this limit.

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
        configuration: The configuration that runs.
        purpose: What the slice is for.
        folder: The folder of its command, environment, log, metrics and checkpoints.
    """

    identity: str
    configuration: Configuration
    purpose: Purpose
    folder: Path


class Prober(ABC):
    """Runs slices of probes, several at the same time.

    A probe has a folder. Another slice in the same folder resumes from its newest checkpoint, with the same
    configuration; only `nodes` may differ if the strategy's statistics do not depend on them. The measurement
    that `poll` returns grows until its outcome is no longer RUNNING; it covers this slice only (see
    `Measurement`). A failure inside a probe is an outcome; a prober raises only if it cannot work at all.
    """

    @abstractmethod
    def start(
        self, configuration: Configuration, purpose: Purpose, until: Until, folder: Path
    ) -> ProbeHandle:
        """Starts a slice and returns at once.

        Raises:
            ProbeError: No rank can be started.
            StorageError: The folder cannot be written.
        """

    @abstractmethod
    def poll(self, handle: ProbeHandle) -> Measurement:
        """Returns what the slice has measured so far.

        Raises:
            ProbeError: Another prober started the slice.
        """

    @abstractmethod
    def cancel(self, handle: ProbeHandle) -> None:
        """Ends the slice and everything it started; its checkpoints stay."""

    def ask_to_end(self, handle: ProbeHandle) -> float | None:
        """Asks the slice to save and end; `poll` returns when it has ended.

        Returns:
            Seconds that the slice may take to save; None if it cannot be asked and has to be cancelled.
        """
        return None

    def end_orphans(self, folder: Path) -> None:
        """Ends processes that slices of an earlier tuner left running in a probe's folder, on any host."""
        return

    def now(self) -> float:
        """Seconds on the clock that slices are charged by; never goes back."""
        return time.monotonic()

    @abstractmethod
    def close(self) -> None:
        """Ends every slice and releases warm processes."""
