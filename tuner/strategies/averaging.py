"""Averaging every tau steps: ranks train independently, then average their parameters (local SGD)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from tuner.strategies.flat import FlatParameters
from tuner.strategies.moments import Moment, moment, seconds_between
from tuner.strategies.strategy import Exchange, Links, Strategy


class AveragingRule:
    """Computes the parameters with which all ranks continue after an average.

    By default, these parameters are the mean of all ranks' parameters (local SGD). Subclasses override
    `combine`, and the other methods if they have state. All ranks call the rule with the same values, so the
    state of the rule is the same on all ranks.

    Args:
        tau: Steps between two averages.
    """

    def __init__(self, tau: int) -> None:
        self.tau = tau

    def start(self, parameters: Tensor) -> None:
        """Initializes the rule; called once.

        Args:
            parameters: The initial parameters, equal on all ranks, `(num_parameters,)`. A rule that stores
                them must copy them.
        """

    def combine(self, mean: Tensor) -> None:
        """Overwrites the mean of all ranks' parameters with the parameters with which all ranks continue.

        Args:
            mean: Mean of all ranks' parameters, `(num_parameters,)`; changed in place.
        """

    def state(self) -> dict[str, Any]:
        """Returns the state that a checkpoint must contain."""
        return {}

    def load(self, state: Mapping[str, Any]) -> None:
        """Restores the state that `state` returned; called after `start`."""


@dataclass(kw_only=True, slots=True)
class _Pending:
    start: Moment
    end: Moment
    total: Tensor


class Averaging(Strategy):
    """Averages the parameters of all ranks every tau steps in one collective, and applies a rule to the mean.

    Momentum is not exchanged. An evaluation uses the exact mean of all ranks' parameters.

    Args:
        rule: Computes the parameters with which all ranks continue.
    """

    def __init__(self, rule: AveragingRule) -> None:
        self._rule = rule
        self._flat: FlatParameters | None = None
        self._links = Links()
        self._step = 0
        self._pending: list[_Pending | None] = []

    def attach(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        links: Links,
        rng: np.random.Generator,
    ) -> nn.Module:
        self._links = links
        if links.group is None and not self.traits.has_outer_step:
            return model
        self._flat = FlatParameters(model, optimizer)
        self._plain = torch.empty_like(self._flat.vector)
        self._rule.start(self._flat.vector)
        return model

    def after_step(self) -> None:
        self._step += 1
        pending = None
        if self._flat is not None:
            self._flat.stepped()
            if self._step % self._rule.tau == 0:
                with torch.no_grad():
                    pending = self._exchange(self._flat)
        self._pending.append(pending)

    @contextmanager
    def scored_parameters(self) -> Iterator[None]:
        """Context manager in which the model has the mean of all ranks' parameters.

        All ranks must enter the context together, since they compute the mean in one collective.
        """
        if self._flat is None:
            yield
            return
        with torch.no_grad():
            mean = self._mean(self._flat.plain(self._plain))
        with self.scoring(mean):
            yield

    def scoring(self, vector: Tensor) -> AbstractContextManager[None]:
        assert self._flat is not None, (
            "a single rank has no vector of parameters: evaluate its model directly"
        )
        return self._flat.holding(vector)

    def exchanges(self) -> list[Exchange]:
        num_bytes = 0 if self._flat is None or self._links.group is None else self._flat.num_bytes
        found = [
            Exchange()
            if pending is None
            else Exchange(
                sync_seconds=max(0.0, seconds_between(pending.start, pending.end)),
                exchanged_bytes=num_bytes,
                is_finite=math.isfinite(float(pending.total)),
            )
            for pending in self._pending
        ]
        self._pending = []
        return found

    def state(self) -> dict[str, Any]:
        return {"step": self._step, **(self._rule.state() if self._flat is not None else {})}

    def load(
        self, state: Mapping[str, Any], *, of_all: Sequence[Mapping[str, Any]] = (), is_twin: bool = False
    ) -> None:
        self._step = state["step"]
        if self._flat is not None:
            self._flat.stepped()
            self._rule.load(state)

    def _exchange(self, flat: FlatParameters) -> _Pending:
        start = moment(flat.vector.device)
        plain = flat.plain(self._plain)
        mean = self._mean(plain)
        end = moment(flat.vector.device)
        self._rule.combine(mean)
        flat.replace(plain, mean)
        return _Pending(start=start, end=end, total=flat.vector.sum())

    def _mean(self, plain: Tensor) -> Tensor:
        """Computes the mean of all ranks' parameters, without Nesterov's look-ahead, as a new vector."""
        mean = plain.clone()
        if self._links.group is not None:
            dist.all_reduce(mean, group=self._links.group)
            mean.div_(self._links.num_ranks)
        return mean
