"""The workload of `benchmarks.strategies`: a network of ours, steps that can sleep, and a log of steps."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.utils.data import Dataset

from tuner.domain.workload import Workload
from tuner.workloads.digits import Digits

#: Number of a rank's process, with the moments of its steps in it, as text, one a line.
STEPS_FILE = "steps-{process}.txt"


class Timed(Workload):
    """`Digits` whose steps are logged, and may sleep in place of computing.

    Args:
        network: As of `Digits`.
        width: As of `Digits`.
        sleep_seconds: Added to each step: compute that needs no core.
        folder: Where each rank logs the monotonic time of its steps; None for no log.
    """

    def __init__(
        self, *, network: str, width: int, sleep_seconds: float = 0.0, folder: str | None = None
    ) -> None:
        self._digits = Digits(network=network, width=width)  # type: ignore[arg-type]
        self._sleep_seconds = sleep_seconds
        self._folder = folder
        self._log: int | None = None

    def model(self) -> nn.Module:
        return self._digits.model()

    def training_data(self) -> Dataset[Any]:
        return self._digits.training_data()

    def validation_data(self) -> Dataset[Any]:
        return self._digits.validation_data()

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        if self._folder is not None:
            if self._log is None:
                path = Path(self._folder) / STEPS_FILE.format(process=os.getpid())
                self._log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.write(self._log, f"{time.monotonic():.6f}\n".encode())
        if self._sleep_seconds:
            time.sleep(self._sleep_seconds)
        return self._digits.loss(model, batch)

    def score(self, model: nn.Module, data: Dataset[Any]) -> float:
        return self._digits.score(model, data)
