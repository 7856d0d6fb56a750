"""Exchange of parameters between asynchronous virtual ranks.

Mixing means that a rank combines its parameters with those of another rank (gossip) or with the center, the
parameters of a parameter server.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from search_spaces import Configuration, traits_of
from tuner.domain.cluster import VirtualCluster
from tuner.emulation.event_clock import Event, EventClock
from tuner.emulation.virtual_rank import VirtualRank
from tuner.emulation.virtual_transport import Mailbox
from tuner.strategies import Links, Strategy, strategy
from tuner.strategies.flat import FlatParameters, trainable_bytes
from tuner.strategies.rules import accumulated, elastic_force, moving_rate

#: Kinds of events: a rank's request reaches the server; the server has received the whole vector and
#: processes it; the reply reaches the rank.
ARRIVED, SERVED, RESUMES = "arrived", "served", "resumes"


class Mixing(ABC):
    """Interface for exchanging parameters between virtual ranks, before or after their steps.

    If `before_step` or `after_step` returns False, the rank must wait until `take` returns True for one of
    its events.

    Attributes:
        staleness: Ages, in steps, of the parameter vectors that ranks mixed into their own in this slice; one
            entry per vector.
        moved_bytes: Bytes of parameters that all ranks have sent or fetched.
    """

    staleness: list[float]
    moved_bytes: int

    @abstractmethod
    def before_step(self, rank: int) -> bool:
        """Exchanges parameters before a rank's step; returns whether the rank may start the step now."""

    @abstractmethod
    def after_step(self, rank: int) -> bool:
        """Exchanges parameters after a rank's step; returns whether the rank may continue now."""

    @abstractmethod
    def take(self, event: Event) -> bool:
        """Processes an event of the virtual clock; returns whether the rank of the event may continue now."""

    @abstractmethod
    def score_vector(self) -> Tensor:
        """Returns the parameters to evaluate: all trainable parameters as one vector."""

    @abstractmethod
    def scoring(self, vector: Tensor) -> AbstractContextManager[None]:
        """Context manager in which the first rank's model uses the given parameters."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Returns the state from which `load` resumes, without the state of the ranks and of the clock."""

    @abstractmethod
    def load(self, state: dict[str, Any]) -> None:
        """Resumes from the result of `state`; call it after the ranks' parameters were loaded."""


class PeerMixing(Mixing):
    """Gossip between virtual ranks: the strategies are those of real ranks, the transport is simulated.

    As with real ranks, no rank waits for a message. If links are slower than steps, ranks mix in older
    parameters, or mix less often.
    """

    def __init__(
        self,
        ranks: Sequence[VirtualRank],
        configuration: Configuration,
        clock: EventClock,
        cluster: VirtualCluster,
        seed: int,
    ) -> None:
        self._ranks = ranks
        num_ranks = len(ranks)
        self.mailbox = Mailbox(clock, cluster, num_ranks, trainable_bytes(ranks[0].model))
        everybody = tuple(range(num_ranks))
        self._transports = self.mailbox.transports()
        self._strategies: list[Strategy] = []
        for rank, transport in zip(ranks, self._transports, strict=True):
            own = strategy(configuration.strategy, configuration)
            links = Links(
                rank=rank.rank, num_ranks=num_ranks, transport=transport, live_ranks=lambda: everybody
            )
            own.attach(rank.model, rank.optimizer, links, np.random.default_rng((seed, rank.rank, 1)))
            self._strategies.append(own)
        self.staleness = []

    @property
    def moved_bytes(self) -> int:  # type: ignore[override]
        """Bytes of parameters that all ranks have sent or fetched."""
        return sum(transport.moved_bytes for transport in self._transports)

    def before_step(self, rank: int) -> bool:
        self._strategies[rank].before_step(self._ranks[rank].share)
        return True

    def after_step(self, rank: int) -> bool:
        own = self._strategies[rank]
        own.after_step()
        ages = [e.staleness_steps for e in own.exchanges() if e.staleness_steps is not None]
        self.staleness.extend(ages)
        return True

    def take(self, event: Event) -> bool:
        self.mailbox.deliver(event)
        return False

    def score_vector(self) -> Tensor:
        mean: Tensor | None = None
        for own in self._strategies:
            vector = own.own_score_vector()
            assert vector is not None, (
                "without a server, every rank contributes its parameters to an evaluation"
            )
            mean = vector.clone() if mean is None else mean.add_(vector)
        assert mean is not None
        return mean.div_(len(self._strategies))

    def scoring(self, vector: Tensor) -> AbstractContextManager[None]:
        return self._strategies[0].scoring(vector)

    def state(self) -> dict[str, Any]:
        return {
            "strategies": [own.state() for own in self._strategies],
            "mail": self.mailbox.state(),
        }

    def load(self, state: dict[str, Any]) -> None:
        for own, saved in zip(self._strategies, state["strategies"], strict=True):
            own.load(saved)
        # A strategy may publish a vector while it loads. Loading the mailbox replaces that vector.
        self.mailbox.load(state["mail"])


class CenterMixing(Mixing):
    """Exchange of parameters with a parameter server, which processes requests in order of arrival.

    In an exchange, a rank sends a request with a vector and receives a reply with a vector. A is the latency
    of a link in seconds, w its bandwidth in bytes per second, and n the bytes of a vector:

    - The request reaches the server after A seconds. The server's link receives one vector at a time, in n /
      w seconds each.
    - The reply reaches the rank after n / w + A seconds. The link can send and receive at the same time.
      Since vectors arrive at least n / w seconds apart, replies never wait for the link.
    - The rank waits for the reply.
    - The server is on rank 0, as with real ranks. Rank 0's own exchange takes no time.

    Args:
        ranks: All virtual ranks, ordered by index; rank 0 has the server.
        configuration: Configuration with the strategy and its parameters.
        clock: Virtual clock of the emulation.
        cluster: Description of the links.
    """

    def __init__(
        self,
        ranks: Sequence[VirtualRank],
        configuration: Configuration,
        clock: EventClock,
        cluster: VirtualCluster,
    ) -> None:
        traits = traits_of(configuration.strategy)
        self._ranks, self._clock, self._cluster = ranks, clock, cluster
        self._tau = traits.tau_of(configuration)
        #: With elastic averaging, ranks exchange before a step and move towards the center. Otherwise they
        #: send the sum of their updates after a step.
        self._is_elastic = "beta" in traits.knobs
        beta = float(configuration.get("beta", traits.knobs["beta"].default)) if self._is_elastic else 1.0
        self._rate = moving_rate(beta, len(ranks))
        self._flats = [FlatParameters(rank.model, rank.optimizer) for rank in ranks]
        self._center = self._flats[0].vector.clone()
        #: The server's parameters as each rank last received them.
        self._taken = [] if self._is_elastic else [self._center.clone() for _ in ranks]
        self._scratch = torch.empty_like(self._center)
        #: Time at which the server's link will have received all vectors that were sent to the server so far.
        self._free_at = 0.0
        self._served = 0
        self._last_served = [0] * len(ranks)
        self.staleness, self.moved_bytes = [], 0

    def before_step(self, rank: int) -> bool:
        step = self._ranks[rank].step
        due = self._is_elastic and step > 0 and step % self._tau == 0
        return self._exchange(rank) if due else True

    def after_step(self, rank: int) -> bool:
        self._flats[rank].stepped()
        due = not self._is_elastic and self._ranks[rank].step % self._tau == 0
        return self._exchange(rank) if due else True

    def _exchange(self, rank: int) -> bool:
        if rank == 0:
            self._apply(rank, self._serve(rank))
            return True
        self.moved_bytes += 2 * self._flats[rank].num_bytes
        self._clock.schedule(self._clock.seconds + self._cluster.one_way_seconds, ARRIVED, rank)
        return False

    def take(self, event: Event) -> bool:
        rank, now = event.rank, self._clock.seconds
        link = self._cluster.link_seconds(self._flats[rank].num_bytes)
        if event.kind == ARRIVED:
            self._free_at = max(now, self._free_at) + link
            self._clock.schedule(self._free_at, SERVED, rank)
            return False
        if event.kind == SERVED:
            self._clock.schedule(now + link + self._cluster.one_way_seconds, RESUMES, rank, self._serve(rank))
            return False
        self._apply(rank, event.content[0])
        return True

    def _serve(self, rank: int) -> Tensor:
        """Changes the center by the vector of a rank's request; returns the vector of the reply."""
        plain = self._flats[rank].plain(self._scratch)
        if self._is_elastic:
            answer = elastic_force(plain, self._center, self._rate, torch.empty_like(plain))
            self._center.add_(answer)
        else:
            update = accumulated(plain, self._taken[rank], torch.empty_like(plain))
            self._taken[rank].copy_(plain)
            answer = self._center.add_(update).clone()
        if self._last_served[rank]:
            self.staleness.append(float(self._served - self._last_served[rank]))
        self._served += 1
        self._last_served[rank] = self._served
        return answer

    def _apply(self, rank: int, answer: Tensor) -> None:
        vector = self._flats[rank].vector
        if self._is_elastic:
            vector.sub_(answer)
        else:
            vector.add_(answer).sub_(self._taken[rank])
            self._taken[rank].copy_(answer)

    def score_vector(self) -> Tensor:
        return self._center

    def scoring(self, vector: Tensor) -> AbstractContextManager[None]:
        return self._flats[0].holding(vector)

    def state(self) -> dict[str, Any]:
        return {
            "center": self._center,
            "taken": self._taken,
            "free_at": self._free_at,
            "served": self._served,
            "last_served": list(self._last_served),
        }

    def load(self, state: dict[str, Any]) -> None:
        self._center.copy_(state["center"])
        for own, saved in zip(self._taken, state["taken"], strict=True):
            own.copy_(saved)
        self._free_at, self._served = state["free_at"], state["served"]
        self._last_served = list(state["last_served"])
        for flat in self._flats:
            flat.stepped()
