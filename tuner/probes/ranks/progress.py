"""Progress reporter of a rank: its status at least once a second, and its results."""

from __future__ import annotations

import time
from dataclasses import asdict

from tuner.domain.measurement import CurvePoint, NoiseStatistic
from tuner.launchers import RankContext

#: Seconds between two signs of progress while steps are made.
_BEAT_SECONDS = 0.5


class ProgressReporter:
    """Sends a rank's messages. Each is a sign of progress, so none may come from a separate thread.

    A message is plain data with a `kind`: `progress` (the rank's status), `started` (the first
    step is next), `curve`, `noise`, `checkpoint` or `out_of_memory`.

    Args:
        context: The rank's place.
    """

    def __init__(self, context: RankContext) -> None:
        self._context = context
        self._entered = time.perf_counter()
        self._last_sent = 0.0
        self._status = {"step": 0, "samples": 0, "training_seconds": 0.0, "scoring_seconds": 0.0}

    @property
    def seconds_since_entry(self) -> float:
        """Since the rank's function was entered."""
        return time.perf_counter() - self._entered

    def set_position(
        self, *, step: int, samples: int, training_seconds: float, scoring_seconds: float
    ) -> None:
        """Stores the run's position for the messages to come."""
        self._status = {
            "step": step,
            "samples": samples,
            "training_seconds": training_seconds,
            "scoring_seconds": scoring_seconds,
        }

    def progress(self, phase: str) -> None:
        """Reports what the rank does now."""
        self._send("progress", phase=phase, **self._status)

    def beat(self, *, step: int, samples: int) -> None:
        """Between two steps: reports progress, unless a message was sent a moment ago."""
        self._status.update(step=step, samples=samples)
        self.alive("training")

    def alive(self, phase: str) -> None:
        """While the rank waits: reports what for, unless a message was sent a moment ago."""
        if time.perf_counter() - self._last_sent >= _BEAT_SECONDS:
            self.progress(phase)

    def started(self, *, setup_seconds: float, samples: int) -> None:
        """The first step is next.

        Args:
            setup_seconds: From entry to here, scoring left out.
            samples: Samples seen in earlier slices.
        """
        self._send("started", setup_seconds=setup_seconds, samples=samples)

    def curve(self, point: CurvePoint) -> None:
        """A scoring; sent again with the same samples where its clock was not settled at first."""
        self._send("curve", point=asdict(point))

    def noise(self, statistic: NoiseStatistic) -> None:
        """Gradient noise since the last evaluation point."""
        self._send("noise", statistic=asdict(statistic))

    def checkpoint(self, path: str) -> None:
        """A checkpoint was saved."""
        self._send("checkpoint", path=path)

    def out_of_memory(self, error: BaseException) -> None:
        """This rank could not allocate what it needed."""
        self._send("out_of_memory", words=str(error) or type(error).__name__)

    def _send(self, kind: str, **content: object) -> None:
        self._last_sent = time.perf_counter()
        self._context.send({"kind": kind, **content})
