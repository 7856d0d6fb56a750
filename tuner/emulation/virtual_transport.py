"""The transport of virtual ranks: what they send arrives when the virtual clock says so."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tuner.cluster import VirtualCluster
from tuner.emulation.event_clock import Event, EventClock
from tuner.transport import Received, Transport
from tuner.transport.transport import STANDING_WIDTH

Array = npt.NDArray[np.float64]

#: Kinds of events: a fetch reaches the rank that published; a message reaches its receiver.
SNAPSHOT, PUSHED, ASKED, ANSWERED = "snapshot", "pushed", "asked", "answered"


class Mail:
    """What virtual ranks have published, and what is on its way between them.

    Messages of one rank leave it one after the other, n / w each; what it publishes is fetched without its
    doing, and different pairs do not hinder each other. Vectors are never changed once they are sent, so
    that all who are sent one hold the same memory.

    Args:
        clock: Of the emulation.
        cluster: How long messages take.
        num_ranks: p.
        num_bytes: n, of one vector.
    """

    def __init__(self, clock: EventClock, cluster: VirtualCluster, num_ranks: int, num_bytes: int) -> None:
        self.clock, self.num_ranks, self.num_bytes = clock, num_ranks, num_bytes
        self._cluster = cluster
        self._free_at = [0.0] * num_ranks
        self.published: dict[tuple[int, int], tuple[int, Tensor]] = {}
        #: What each rank fetches: by whom and of whom, when it is there, and what it is once it is known.
        self.coming: dict[tuple[int, int, int], tuple[float, int, Tensor | None]] = {}
        self.pushed: list[dict[int, tuple[int, Tensor]]] = [{} for _ in range(num_ranks)]
        self.requests: list[deque[tuple[int, int, Tensor]]] = [deque() for _ in range(num_ranks)]
        self.answers: list[dict[int, tuple[int, Tensor]]] = [{} for _ in range(num_ranks)]
        self.unanswered: list[set[int]] = [set() for _ in range(num_ranks)]

    def transports(self) -> list[VirtualTransport]:
        """One for each rank."""
        return [VirtualTransport(self, rank) for rank in range(self.num_ranks)]

    def free_at(self, rank: int) -> float:
        """When a rank's last message has left it."""
        return self._free_at[rank]

    def all_there_at(self, rank: int) -> float:
        """When all that a rank fetches is there; now or earlier where nothing is on its way."""
        return max((when for (own, _, _), (when, _, _) in self.coming.items() if own == rank), default=0.0)

    def send(self, sender: int, kind: str, receiver: int, tag: int, vector: Tensor) -> None:
        """Puts a message on its way."""
        start = max(self.clock.seconds, self._free_at[sender])
        self._free_at[sender] = start + self._cluster.link_seconds(self.num_bytes)
        arrives = start + self._cluster.message_seconds(self.num_bytes)
        self.clock.announce(arrives, kind, receiver, sender, tag, vector)

    def ask_for(self, rank: int, peer: int, channel: int) -> None:
        """A rank begins to fetch: a message without content there, and the vector back."""
        there = self.clock.seconds + self._cluster.latency
        back = there + self._cluster.message_seconds(self.num_bytes)
        self.coming[rank, peer, channel] = (back, 0, None)
        self.clock.announce(there, SNAPSHOT, rank, peer, channel)

    def deliver(self, event: Event) -> None:
        """Takes an event of one of its kinds."""
        if event.kind == SNAPSHOT:
            peer, channel = event.content
            key = (event.rank, peer, channel)
            if key in self.coming:
                tag, vector = self.published[peer, channel]
                self.coming[key] = (self.coming[key][0], tag, vector)
            return
        sender, tag, vector = event.content
        if event.kind == PUSHED:
            self.pushed[event.rank][sender] = (tag, vector)
        elif event.kind == ASKED:
            self.requests[event.rank].append((sender, tag, vector))
        else:
            self.answers[event.rank][sender] = (tag, vector)

    def state(self) -> dict[str, Any]:
        """What `load` goes on from."""
        return {
            "free_at": list(self._free_at),
            "published": [(*key, *kept) for key, kept in self.published.items()],
            "coming": [(*key, *kept) for key, kept in self.coming.items()],
            "pushed": [dict(box) for box in self.pushed],
            "requests": [list(queue) for queue in self.requests],
            "answers": [dict(box) for box in self.answers],
            "unanswered": [sorted(ranks) for ranks in self.unanswered],
        }

    def load(self, state: dict[str, Any]) -> None:
        """Goes on from what `state` gave."""
        self._free_at = list(state["free_at"])
        self.published = {(rank, ch): (tag, vector) for rank, ch, tag, vector in state["published"]}
        self.coming = {
            (own, peer, ch): (when, tag, vector) for own, peer, ch, when, tag, vector in state["coming"]
        }
        self.pushed = [dict(box) for box in state["pushed"]]
        self.requests = [deque(map(tuple, queue)) for queue in state["requests"]]
        self.answers = [dict(box) for box in state["answers"]]
        self.unanswered = [set(ranks) for ranks in state["unanswered"]]


class VirtualTransport(Transport):
    """One rank's end of the mail.

    Whoever runs the rank lets it fetch only once what it fetches is there (`Mail.all_there_at`).
    """

    def __init__(self, mail: Mail, rank: int) -> None:
        self._mail = mail
        self.rank, self.num_ranks, self.moved_bytes = rank, mail.num_ranks, 0
        self._standing = np.zeros(STANDING_WIDTH)

    def post(self, standing: Array) -> None:
        self._standing = standing.copy()

    def standings(self) -> Array:
        """Its own alone: virtual ranks are counted by whoever runs them."""
        found = np.zeros((self.num_ranks, STANDING_WIDTH))
        found[self.rank] = self._standing
        return found

    def silent_seconds(self) -> Array:
        """Zeros: no virtual rank falls silent."""
        return np.zeros(self.num_ranks)

    def publish(self, channel: int, vector: Tensor, tag: int) -> None:
        self._mail.published[self.rank, channel] = (tag, vector.clone())

    def prefetch(self, rank: int, channel: int) -> None:
        if rank != self.rank and (self.rank, rank, channel) not in self._mail.coming:
            self._mail.ask_for(self.rank, rank, channel)

    def fetch(self, rank: int, channel: int, out: Tensor, *, newer_than: int | None = None) -> int | None:
        if rank == self.rank:
            tag, vector = self._mail.published[rank, channel]
        else:
            found = self._mail.coming.get((self.rank, rank, channel))
            if found is None or found[2] is None or found[0] > self._mail.clock.seconds:
                return None
            del self._mail.coming[self.rank, rank, channel]
            tag, vector = found[1], found[2]
            self.moved_bytes += self._mail.num_bytes
        if newer_than is not None and tag <= newer_than:
            return None
        out.copy_(vector)
        return tag

    def push(self, rank: int, vector: Tensor, tag: int) -> bool:
        self._mail.send(self.rank, PUSHED, rank, tag, vector.clone())
        self.moved_bytes += self._mail.num_bytes
        return True

    def take_pushed(self) -> list[Received]:
        box, self._mail.pushed[self.rank] = self._mail.pushed[self.rank], {}
        return [Received(sender=s, tag=tag, vector=vector) for s, (tag, vector) in sorted(box.items())]

    def ask(self, rank: int, vector: Tensor, tag: int) -> bool:
        if rank in self._mail.unanswered[self.rank]:
            return False
        self._mail.unanswered[self.rank].add(rank)
        self._mail.send(self.rank, ASKED, rank, tag, vector.clone())
        self.moved_bytes += self._mail.num_bytes
        return True

    def reply(self, rank: int, *, wait_seconds: float = 0.0) -> Received | None:
        found = self._mail.answers[self.rank].pop(rank, None)
        if found is None:
            return None
        self._mail.unanswered[self.rank].discard(rank)
        return Received(sender=rank, tag=found[0], vector=found[1])

    def is_asked(self, rank: int) -> bool:
        return rank in self._mail.unanswered[self.rank]

    def next_request(self, *, wait_seconds: float = 0.0) -> Received | None:
        queue = self._mail.requests[self.rank]
        if not queue:
            return None
        sender, tag, vector = queue.popleft()
        return Received(sender=sender, tag=tag, vector=vector)

    def answer(self, request: Received, fill: Callable[[Tensor], None], tag: int) -> None:
        message = torch.empty_like(request.vector)
        fill(message)
        self._mail.send(self.rank, ANSWERED, request.sender, tag, message)
        self.moved_bytes += self._mail.num_bytes

    def close(self) -> None:
        """Nothing is held."""
