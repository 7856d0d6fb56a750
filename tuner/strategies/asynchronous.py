"""Asynchronous strategies: ranks step without a barrier and exchange parameters every tau steps.

Ranks communicate through a `Transport`, which needs no matching call on the other rank:

- Publish and fetch: a rank publishes its newest parameters, and any rank may fetch a copy.
- Push: a rank sends a message into the mailbox of another rank.
- Ask, answer and reply: a rank sends a request with a vector; the other rank sends a reply with a vector.
"""

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

#: The transport's channel in which ranks publish their parameters.
PARAMETERS_CHANNEL = 0


class PeerRule(ABC):
    """The rule by which one rank exchanges parameters with other ranks, without a barrier.

    A rule must change `flat.vector` only by adding to it. Then Nesterov's look-ahead is preserved, and so are
    the steps that the rank made while a message was being sent.

    Args:
        tau: Steps between two exchanges of parameters.

    Attributes:
        exchanges_before_step: Whether an exchange comes before the optimizer's step (True) or after it
            (False).
        flat: The rank's parameters.
        links: The rank's connections to the other ranks.
        transport: The transport of `links`.
        rng: The rank's own random generator, for choosing peers.
    """

    exchanges_before_step = True
    flat: FlatParameters
    links: Links
    transport: Transport
    rng: np.random.Generator

    def __init__(self, tau: int) -> None:
        self.tau = tau

    def meet(self, flat: FlatParameters, links: Links, rng: np.random.Generator) -> None:
        """Connects the rule to a rank's parameters and to the other ranks, then calls `start`.

        Args:
            flat: The rank's parameters, which are equal on all ranks at this time.
            links: The rank's connections to the other ranks.
            rng: The rank's own random generator, for choosing peers.
        """
        assert links.transport is not None
        self.flat, self.links, self.transport, self.rng = flat, links, links.transport, rng
        self._plain = torch.empty_like(flat.vector)
        self.start()

    def start(self) -> None:  # noqa: B027
        """Initializes the state of the rule, after its attributes were set."""

    @abstractmethod
    def exchange(self, step: int) -> float | None:
        """Exchanges parameters with other ranks; called every tau steps.

        Args:
            step: Number of steps since the run began.

        Returns:
            Age, in steps, of the parameters of other ranks that were mixed into this rank's own; None if
            there were none.
        """

    def attend(self, step: int) -> bool:
        """Replies to requests of other ranks and applies the messages that have arrived.

        Args:
            step: Number of steps since the run began.

        Returns:
            Whether this rank has received the replies to all its requests, or expects no more of them.
        """
        return True

    def plain(self) -> Tensor:
        """Returns the rank's parameters without look-ahead (see `FlatParameters.plain`)."""
        return self.flat.plain(self._plain)

    def draw(self, ranks: Sequence[int]) -> int:
        """Chooses one of the given ranks at random, with equal probabilities."""
        return int(ranks[int(self.rng.integers(len(ranks)))])

    def score_vector(self) -> Tensor | None:
        """Returns this rank's contribution to the evaluated parameters, `(num_parameters,)`.

        By default, the contribution is the rank's own parameters, and an evaluation uses the mean over all
        ranks. The result is None if the rank contributes nothing.
        """
        return self.plain()

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Returns the state of the rule for a checkpoint, without parameters; `torch.save` can save it."""

    @abstractmethod
    def load(self, state: Mapping[str, Any], *, of_all: Sequence[Mapping[str, Any]], is_twin: bool) -> None:
        """Restores the state that the method `state` returned; call it after the parameters were loaded.

        Args:
            state: The saved state of this rank.
            of_all: The saved states of all ranks that the checkpoint contains, for rules that combine them.
            is_twin: Whether `state` is that of another rank, because this rank's state is lost.
        """

    def close(self) -> None:  # noqa: B027
        """Ends the threads that the rule has started."""


class Asynchronous(Strategy):
    """Trains a rank's replica on the rank's share of each batch, and exchanges parameters by a rule.

    The loss is the mean over the rank's own share, so each rank makes steps with its own gradient. A single
    rank trains the model as it is, without a flat vector of parameters and without messages.

    Args:
        rule: The rule by which ranks exchange parameters.
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
        assert self._flat is not None, (
            "a single rank has no vector of parameters: evaluate its model directly"
        )
        return self._rule.score_vector()

    def scoring(self, vector: Tensor) -> AbstractContextManager[None]:
        assert self._flat is not None, (
            "a single rank has no vector of parameters: evaluate its model directly"
        )
        return self._flat.holding(vector)

    @contextmanager
    def scored_parameters(self) -> Iterator[None]:
        """Context manager that leaves the model unchanged; allowed for a single rank only."""
        assert self._flat is None, (
            "ranks without a barrier are evaluated by own_score_vector and scoring instead"
        )
        yield

    def exchanges(self) -> list[Exchange]:
        found, self._done = self._done, []
        return found

    def state(self) -> dict[str, Any]:
        rule = {} if self._flat is None else self._rule.state()
        # In an emulated run (on this host under a virtual clock), a checkpoint may be saved between a rank's
        # exchange and the end of its step.
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
        # The device first finishes computing the parameters. This time is not waiting for other ranks.
        wait_for(self._flat.vector.device)
        began = time.perf_counter()
        with torch.no_grad():
            self._staleness = self._rule.exchange(self._step)
        self._sync_seconds += time.perf_counter() - began
