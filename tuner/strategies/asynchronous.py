"""Asynchronous strategies: steps on flat parameters without a barrier, and an exchange every tau steps."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from search_spaces import StrategyTraits
from tuner.strategies.flat import FlatParameters
from tuner.strategies.moments import wait_for
from tuner.strategies.peer_rule import PeerRule
from tuner.strategies.strategy import Exchange, Links, Share, Strategy


class Asynchronous(Strategy):
    """Trains its own replica on its share of each batch, and mixes it with others by a rule.

    The loss is the mean over the rank's own share: each rank follows its own gradient. A rank that is
    alone is the plain model: no flat vector, no message.

    Args:
        traits: Of the strategy.
        rule: What happens at an exchange.
        tau: Steps between two exchanges.
    """

    def __init__(self, traits: StrategyTraits, rule: PeerRule, tau: int) -> None:
        self.traits = traits
        self._rule, self._tau = rule, tau
        self._flat: FlatParameters | None = None
        self._links = Links()
        self._step = 0
        self._sync_seconds = 0.0
        self._staleness: float | None = None
        self._moved_bytes = 0
        self._done: list[Exchange] = []

    def attach(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        links: Links,
        rng: np.random.Generator,
    ) -> nn.Module:
        self._links = links
        if links.transport is not None:
            self._flat = FlatParameters(model, optimizer)
            self._rule.meet(self._flat, links, rng)
            self._moved_bytes = links.transport.moved_bytes
        return model

    def loss_weight(self, num_samples: int, share: Share) -> float:
        return num_samples / share.num_samples

    def before_step(self, share: Share) -> None:
        self._sync_seconds, self._staleness = 0.0, None
        if self._flat is None:
            return
        self.attend()
        if self._rule.exchanges_before_step and self._step > 0 and self._step % self._tau == 0:
            self._exchange()

    def accumulating(self) -> AbstractContextManager[None]:
        return nullcontext()

    def after_backward(self) -> None:
        """Nothing: gradients stay the rank's own."""

    def after_step(self) -> None:
        self._step += 1
        moved = 0
        if self._flat is not None:
            assert self._links.transport is not None
            self._flat.stepped()
            if not self._rule.exchanges_before_step and self._step % self._tau == 0:
                self._exchange()
            moved = self._links.transport.moved_bytes - self._moved_bytes
            self._moved_bytes += moved
        self._done.append(
            Exchange(
                sync_seconds=self._sync_seconds,
                exchanged_bytes=moved,
                staleness_steps=self._staleness,
            )
        )

    def attend(self) -> bool:
        return True if self._flat is None else self._rule.attend(self._step)

    def own_score_vector(self) -> Tensor | None:
        assert self._flat is not None, "a single rank is evaluated as it is"
        return self._rule.score_vector()

    def scoring(self, vector: Tensor) -> AbstractContextManager[None]:
        assert self._flat is not None, "a single rank is evaluated as it is"
        return self._flat.holding(vector)

    @contextmanager
    def scored_parameters(self) -> Iterator[None]:
        """The model as it is: only a single rank is evaluated this way."""
        assert self._flat is None, "without a barrier, use own_score_vector and scoring"
        yield

    def exchanges(self) -> list[Exchange]:
        found, self._done = self._done, []
        return found

    def state(self) -> dict[str, Any]:
        rule = {} if self._flat is None else self._rule.state()
        # An emulated run may be saved between a rank's exchange and the end of its step.
        return {"step": self._step, "rule": rule, "staleness": self._staleness}

    def load(
        self, state: Mapping[str, Any], *, of_all: Sequence[Mapping[str, Any]] = (), is_twin: bool = False
    ) -> None:
        self._step, self._staleness = state["step"], state.get("staleness")
        if self._flat is not None:
            self._flat.stepped()
            rules = [other["rule"] for other in of_all] or [state["rule"]]
            self._rule.load(state["rule"], of_all=rules, is_twin=is_twin)

    def close(self) -> None:
        if self._flat is not None:
            self._rule.close()

    def _exchange(self) -> None:
        assert self._flat is not None
        # What is exchanged has to be computed first, which is no waiting for others.
        wait_for(self._flat.vector.device)
        began = time.perf_counter()
        with torch.no_grad():
            self._staleness = self._rule.exchange(self._step)
        self._sync_seconds += time.perf_counter() - began
