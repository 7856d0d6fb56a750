"""A workload of which only its size is asked: the synthetic prober trains nothing."""

from __future__ import annotations

from typing import Any

from tuner.domain.workload import Workload


class Sized(Workload):
    """Says how many samples it has."""

    def model(self) -> Any:
        raise NotImplementedError

    def training_data(self) -> Any:
        return range(20_000)

    def validation_data(self) -> Any:
        return range(100)

    def loss(self, model: Any, batch: Any) -> Any:
        raise NotImplementedError

    def score(self, model: Any, data: Any) -> float:
        raise NotImplementedError
