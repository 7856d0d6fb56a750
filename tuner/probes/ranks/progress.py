"""Sends progress and results of a rank to the process that started it."""

from __future__ import annotations

import time
from dataclasses import asdict

from tuner.domain.measurement import CurvePoint, NoiseStatistic
from tuner.launchers import RankContext

#: Least number of seconds between two progress messages.
_BEAT_SECONDS = 0.5


class ProgressReporter:
    """Sends messages of a rank to the process that started it.

    A message is a dictionary of plain data with a `kind`: `progress`, `started` (the first step is next),
    `curve`, `noise`, `checkpoint` or `out_of_memory`. If a rank sends no message for too long, the probe
    ends. Messages must therefore be sent by the training loop, not by a separate thread that would hide a
    hang.

    Args:
        context: Rank context of the launcher, which sends the messages.
    """

    def __init__(self, context: RankContext) -> None:
        self._context = context
        self._entered = time.perf_counter()
        self._last_sent = 0.0
        self._status = {"step": 0, "samples": 0, "training_seconds": 0.0, "scoring_seconds": 0.0}

    @property
    def seconds_since_entry(self) -> float:
        """Seconds since this object was created, at the start of the rank's function."""
        return time.perf_counter() - self._entered

    def set_position(
        self, *, step: int, samples: int, training_seconds: float, scoring_seconds: float
    ) -> None:
        """Sets the training progress that later messages contain.

        Args:
            step: Number of optimizer steps done.
            samples: Number of samples processed.
            training_seconds: Training time so far.
            scoring_seconds: Time of evaluations so far.
        """
        self._status = {
            "step": step,
            "samples": samples,
            "training_seconds": training_seconds,
            "scoring_seconds": scoring_seconds,
        }

    def progress(self, phase: str) -> None:
        """Sends the training progress and what the rank is doing, such as `training` or `saving`."""
        self._send("progress", phase=phase, **self._status)

    def beat(self, *, step: int, samples: int) -> None:
        """Updates the training progress, and sends it at most every half second."""
        self._status.update(step=step, samples=samples)
        self.alive("training")

    def alive(self, phase: str) -> None:
        """Sends the training progress like `progress`, but at most every half second."""
        if time.perf_counter() - self._last_sent >= _BEAT_SECONDS:
            self.progress(phase)

    def started(self, *, setup_seconds: float, samples: int) -> None:
        """Reports that the first step of the slice is next.

        Args:
            setup_seconds: Seconds since the start of the rank's function, without evaluation.
            samples: Number of samples processed in earlier slices.
        """
        self._send("started", setup_seconds=setup_seconds, samples=samples)

    def curve(self, point: CurvePoint) -> None:
        """Sends a curve point. A point is sent again if its training time is corrected later."""
        self._send("curve", point=asdict(point))

    def noise(self, statistic: NoiseStatistic) -> None:
        """Sends the gradient noise since the last evaluation."""
        self._send("noise", statistic=asdict(statistic))

    def checkpoint(self, path: str) -> None:
        """Reports that a checkpoint was saved."""
        self._send("checkpoint", path=path)

    def out_of_memory(self, error: BaseException) -> None:
        """Reports that this rank could not allocate memory."""
        self._send("out_of_memory", words=str(error) or type(error).__name__)

    def _send(self, kind: str, **content: object) -> None:
        self._last_sent = time.perf_counter()
        self._context.send({"kind": kind, **content})
