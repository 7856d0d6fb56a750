"""Local SGD: ranks train independently for tau steps, then average; with an outer Nesterov step, DiLoCo."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from search_spaces import StrategyTraits
from tuner.strategies.flat import FlatParameters
from tuner.strategies.moments import Moment, moment, seconds_between
from tuner.strategies.rules import outer_step
from tuner.strategies.strategy import Exchange, Links, Share, Strategy


@dataclass(frozen=True, kw_only=True)
class Outer:
    """The outer optimizer of DiLoCo.

    Args:
        learning_rate: Of an outer step; 1 without momentum is plain averaging.
        momentum: Nesterov momentum of outer steps.
    """

    learning_rate: float
    momentum: float


@dataclass(kw_only=True, slots=True)
class _Pending:
    start: Moment
    end: Moment
    total: Tensor


class LocalSGD(Strategy):
    """Every tau steps all ranks replace their parameters by the mean, in one collective.

    With `outer`, the mean is not taken as it is: a Nesterov step from the last common parameters towards it
    is (Douillard et al. 2023); on one rank that is Lookahead (Zhang et al. 2019). Momentum stays local. What
    is scored is the exact mean of all ranks' parameters.

    Args:
        traits: Of the strategy.
        tau: Steps between two averages.
        outer: The outer optimizer; None for plain averaging.
    """

    def __init__(self, traits: StrategyTraits, tau: int, outer: Outer | None = None) -> None:
        self.traits = traits
        self._tau, self._outer = tau, outer
        self._flat: FlatParameters | None = None
        self._links = Links()
        self._step = 0
        self._pending: list[_Pending | None] = []
        self._anchor: Tensor | None = None
        self._momentum: Tensor | None = None

    def attach(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        links: Links,
        rng: np.random.Generator,
    ) -> nn.Module:
        self._links = links
        if links.group is None and self._outer is None:
            return model
        self._flat = FlatParameters(model, optimizer)
        self._plain = torch.empty_like(self._flat.vector)
        if self._outer is not None:
            self._anchor = self._flat.vector.clone()
            self._momentum = torch.zeros_like(self._anchor)
        return model

    def loss_weight(self, num_samples: int, share: Share) -> float:
        return num_samples / share.num_samples

    def before_step(self, share: Share) -> None:
        """Nothing: exchanges come after the step."""

    def accumulating(self) -> AbstractContextManager[None]:
        return nullcontext()

    def after_backward(self) -> None:
        """Nothing: gradients stay the rank's own."""

    def after_step(self) -> None:
        self._step += 1
        pending = None
        if self._flat is not None:
            self._flat.stepped()
            if self._step % self._tau == 0:
                with torch.no_grad():
                    pending = self._exchange(self._flat)
        self._pending.append(pending)

    def attend(self) -> bool:
        """Nothing is ever in flight between two steps."""
        return True

    def own_score_vector(self) -> None:
        """Nothing: see `scored_parameters`."""

    def scoring(self, vector: Tensor) -> AbstractContextManager[None]:
        assert self._flat is not None, "a single rank is evaluated as it is"
        return self._flat.holding(vector)

    @contextmanager
    def scored_parameters(self) -> Iterator[None]:
        """The mean of all ranks' parameters; a collective call on all ranks."""
        if self._flat is None:
            yield
            return
        with torch.no_grad():
            # A copy in any case: without look-ahead, `plain` is what is trained.
            mean = self._flat.plain(self._plain).clone()
            self._average(mean)
        with self.scoring(mean):
            yield

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
        return {"step": self._step, "anchor": self._anchor, "momentum": self._momentum}

    def load(
        self, state: Mapping[str, Any], *, of_all: Sequence[Mapping[str, Any]] = (), is_twin: bool = False
    ) -> None:
        self._step = state["step"]
        if self._flat is not None:
            self._flat.stepped()
        if self._anchor is not None and self._momentum is not None:
            self._anchor.copy_(state["anchor"])
            self._momentum.copy_(state["momentum"])

    def close(self) -> None:
        """Nothing runs concurrently with the training."""

    def _exchange(self, flat: FlatParameters) -> _Pending:
        start = moment(flat.vector.device)
        plain = flat.plain(self._plain)
        mean = plain.clone()
        self._average(mean)
        end = moment(flat.vector.device)
        if self._outer is not None:
            assert self._anchor is not None
            assert self._momentum is not None
            outer_step(
                self._anchor,
                mean,
                self._momentum,
                learning_rate=self._outer.learning_rate,
                momentum=self._outer.momentum,
            )
            mean.copy_(self._anchor)
        if plain is flat.vector:
            flat.vector.copy_(mean)
        else:
            # Look-ahead is added to the common parameters.
            flat.vector.add_(mean.sub_(plain))
        return _Pending(start=start, end=end, total=flat.vector.sum())

    def _average(self, vector: Tensor) -> None:
        if self._links.group is not None:
            dist.all_reduce(vector, group=self._links.group)
            vector.div_(self._links.num_ranks)
