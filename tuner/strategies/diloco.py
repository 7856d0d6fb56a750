"""DiLoCo: local SGD with an outer Nesterov optimizer on the averaged parameters (Douillard et al. 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tuner.strategies.averaging import AveragingRule
from tuner.strategies.rules import outer_step


class DiLoCo(AveragingRule):
    """Makes a Nesterov step from the last common parameters towards the mean of all ranks' new parameters.

    On one rank this is Lookahead (Zhang et al. 2019).

    Args:
        tau: Steps between two outer steps.
        outer_learning_rate: Learning rate of an outer step; 1 with momentum 0 is plain averaging.
        outer_momentum: Nesterov momentum of outer steps.
    """

    def __init__(self, tau: int, outer_learning_rate: float, outer_momentum: float) -> None:
        super().__init__(tau)
        self._learning_rate, self._coefficient = outer_learning_rate, outer_momentum

    def start(self, parameters: Tensor) -> None:
        self._anchor = parameters.detach().clone()
        self._momentum = torch.zeros_like(self._anchor)

    def combine(self, mean: Tensor) -> None:
        outer_step(
            self._anchor, mean, self._momentum, learning_rate=self._learning_rate, momentum=self._coefficient
        )
        mean.copy_(self._anchor)

    def state(self) -> dict[str, Any]:
        return {"anchor": self._anchor, "momentum": self._momentum}

    def load(self, state: Mapping[str, Any]) -> None:
        self._anchor.copy_(state["anchor"])
        self._momentum.copy_(state["momentum"])
