"""Asynchronous strategies: ranks step without a barrier and exchange parameters every tau steps."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tuner.strategies.flat import FlatParameters
from tuner.strategies.moments import wait_for
from tuner.strategies.strategy import Exchange, Links, Share, Strategy
from tuner.transport import Transport

#: The channel in which ranks publish their parameters to peers.
PARAMETERS_CHANNEL = 0


class PeerRule(ABC):
    """What one rank does at an exchange without a barrier.

    A rule changes `flat.vector` only by adding to it. This preserves Nesterov's look-ahead, and the steps
    that were made while a message traveled.

    Args:
        tau: Steps between two exchanges.

    Attributes:
        exchanges_before_step: Whether an exchange comes before the step, on the parameters that the step
            starts from, or after it.
        flat: The rank's parameters.
        links: What connects the rank to the others.
        transport: The transport of `links`.
        rng: The rank's own generator, for drawing peers.
    """

    exchanges_before_step = True
    flat: FlatParameters
    links: Links
    transport: Transport
    rng: np.random.Generator

    def __init__(self, tau: int) -> None:
        self.tau = tau

    def meet(self, flat: FlatParameters, links: Links, rng: np.random.Generator) -> None:
        """Takes over a rank's parameters, which are equal on all ranks, and calls `start`."""
        assert links.transport is not None
        self.flat, self.links, self.transport, self.rng = flat, links, links.transport, rng
        self._plain = torch.empty_like(flat.vector)
        self.start()

    def start(self) -> None:  # noqa: B027
        """Prepares the rule, once its attributes are set."""

    @abstractmethod
    def exchange(self, step: int) -> float | None:
        """Exchanges; called every tau steps, `step` steps after the run began.

        Returns:
            Age in steps of what was mixed in; None if nothing was.
        """

    def attend(self, step: int) -> bool:
        """Answers requests of other ranks and applies what has arrived.

        Returns:
            Whether nothing that this rank started is still in flight.
        """
        return True

    def plain(self) -> Tensor:
        """The rank's parameters without look-ahead (see `FlatParameters.plain`)."""
        return self.flat.plain(self._plain)

    def draw(self, ranks: Sequence[int]) -> int:
        """One of some ranks, drawn uniformly."""
        return int(ranks[int(self.rng.integers(len(ranks)))])

    def score_vector(self) -> Tensor | None:
        """What this rank adds to the evaluated mean: its parameters. None if it adds nothing."""
        return self.plain()

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """The state, besides parameters, that a checkpoint must contain; can be saved by `torch.save`."""

    @abstractmethod
    def load(self, state: Mapping[str, Any], *, of_all: Sequence[Mapping[str, Any]], is_twin: bool) -> None:
        """Resumes from what `state` returned; parameters are loaded before. See `Strategy.load`."""

    def close(self) -> None:  # noqa: B027
        """Ends what runs concurrently with the training."""


class Asynchronous(Strategy):
    """Trains a rank's own replica on its share of each batch, and mixes it with others by a rule.

    The loss is the mean over the rank's own share: each rank follows its own gradient. A single rank trains
    the plain model, without a flat vector and without messages.

    Args:
        rule: What happens at an exchange.
    """

    def __init__(self, rule: PeerRule) -> None:
        self._rule = rule
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

    def before_step(self, share: Share) -> None:
        self._sync_seconds, self._staleness = 0.0, None
        if self._flat is None:
            return
        self.attend()
        if self._rule.exchanges_before_step and self._step > 0 and self._step % self._rule.tau == 0:
            self._exchange()

    def after_step(self) -> None:
        self._step += 1
        moved = 0
        if self._flat is not None:
            assert self._links.transport is not None
            self._flat.stepped()
            if not self._rule.exchanges_before_step and self._step % self._rule.tau == 0:
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
        # Finish computing what is exchanged first; that is no waiting for other ranks.
        wait_for(self._flat.vector.device)
        began = time.perf_counter()
        with torch.no_grad():
            self._staleness = self._rule.exchange(self._step)
        self._sync_seconds += time.perf_counter() - began
