"""Transports messages between virtual ranks; a virtual clock determines when a message arrives.

- Publish and fetch: a rank publishes vectors in a channel (a number that tells kinds of vectors apart), and
  other ranks fetch the newest one.
- Push: a rank sends a vector to another rank, which confirms it.
- Ask and answer: a rank sends a request with a vector; the other rank sends a reply with a vector.
- Tag: a number that is sent with a vector, such as the sender's step.
- In flight: sent but not arrived, or, for a request, not replied to yet.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tuner.domain.cluster import VirtualCluster
from tuner.emulation.event_clock import Event, EventClock
from tuner.transport import Received, Transport
from tuner.transport.transport import STATUS_WIDTH

Array = npt.NDArray[np.float64]

#: Kinds of events. Each is the arrival of a message:
#: - FETCHED: a fetch arrives at the rank that publishes the vector.
#: - GIVEN: the published vector arrives at the rank that fetches it.
#: - PUSHED: a pushed vector arrives at its receiver.
#: - CONFIRMED: the confirmation of a pushed vector arrives at its sender.
#: - ASKED: a request arrives.
#: - ANSWERED: a reply arrives.
FETCHED, GIVEN, PUSHED, CONFIRMED, ASKED, ANSWERED = (
    "fetched",
    "given",
    "pushed",
    "confirmed",
    "asked",
    "answered",
)
#: A virtual rank stores the newest fetched vectors of at most this many other ranks. Real ranks store one
#: vector of every other rank, but for many virtual ranks in one process, that would need too much memory.
MOST_HELD = 8


class Mailbox:
    """Stores the published vectors and the messages of all virtual ranks, and simulates their transport.

    The rules are those of the transport of real ranks (`MessageTransport`):

    - A rank's link sends one vector at a time and receives one vector at a time, in n / w seconds each (n
      bytes per vector, w bytes per second). Messages without a vector only take the latency.
    - The vectors that a rank publishes are numbered. A fetch asks for a vector with a higher number than the
      last one, and is replied to as soon as such a vector is published. Until the reply arrives, the fetching
      rank uses the last vector.
    - A rank has at most one fetch in flight per other rank and channel.
    - A rank has at most one unconfirmed push per receiver. If it pushes again before the confirmation, only
      the newest of these vectors is stored, and is sent after the confirmation.
    - A vector is not changed after it was sent, so all its receivers use the same memory.

    Args:
        clock: Virtual clock of the emulation.
        cluster: Description of the links.
        num_ranks: Number of virtual ranks.
        num_bytes: Size of one vector, in bytes.
    """

    def __init__(self, clock: EventClock, cluster: VirtualCluster, num_ranks: int, num_bytes: int) -> None:
        self.clock, self.num_ranks, self.num_bytes = clock, num_ranks, num_bytes
        self._cluster = cluster
        #: Time at which each rank's link will have sent, and will have received, all vectors so far.
        self._sent_at, self._taken_at = [0.0] * num_ranks, [0.0] * num_ranks
        #: Maps (rank, channel) to number, tag and vector of the rank's newest published vector.
        self.published: dict[tuple[int, int], tuple[int, int, Tensor]] = {}
        #: Maps (fetching rank, publishing rank, channel) to number, tag and vector of the last fetched
        #: vector; the entry that was fetched longest ago is first.
        self.held: dict[tuple[int, int, int], tuple[int, int, Tensor]] = {}
        self._fetching: set[tuple[int, int, int]] = set()
        #: Maps (rank, channel) to the ranks whose fetch waits for the next published vector.
        self._parked: dict[tuple[int, int], list[int]] = {}
        self._pushing: set[tuple[int, int]] = set()
        self._waiting: dict[tuple[int, int], tuple[int, Tensor]] = {}
        self.pushed: list[dict[int, tuple[int, Tensor]]] = [{} for _ in range(num_ranks)]
        self.requests: list[deque[tuple[int, int, Tensor]]] = [deque() for _ in range(num_ranks)]
        self.answers: list[dict[int, tuple[int, Tensor]]] = [{} for _ in range(num_ranks)]
        self.unanswered: list[set[int]] = [set() for _ in range(num_ranks)]

    def transports(self) -> list[VirtualTransport]:
        """Returns one transport for each rank."""
        return [VirtualTransport(self, rank) for rank in range(self.num_ranks)]

    def publish(self, rank: int, channel: int, tag: int, vector: Tensor) -> None:
        """Stores a rank's newest published vector, and sends it to all ranks whose fetch waits for it."""
        number = self.published[rank, channel][0] + 1 if (rank, channel) in self.published else 1
        self.published[rank, channel] = (number, tag, vector)
        for other in self._parked.pop((rank, channel), []):
            self._give(rank, channel, other)

    def fetch(self, rank: int, peer: int, channel: int) -> None:
        """Requests a newer vector of `peer` for `rank`, unless such a fetch is in flight."""
        key = (rank, peer, channel)
        if key in self._fetching:
            return
        self._fetching.add(key)
        number = self.held[key][0] if key in self.held else 0
        self.clock.schedule(
            self.clock.seconds + self._cluster.one_way_seconds, FETCHED, rank, peer, channel, number
        )

    def push(self, sender: int, receiver: int, tag: int, vector: Tensor) -> None:
        """Sends a vector to another rank, once the last vector that was pushed to it is confirmed."""
        if (sender, receiver) in self._pushing:
            self._waiting[sender, receiver] = (tag, vector)
            return
        self._pushing.add((sender, receiver))
        self.send(sender, PUSHED, receiver, tag, vector)

    def send(self, sender: int, kind: str, receiver: int, *content: Any) -> None:
        """Sends a vector over the links of both ranks, and schedules its arrival.

        Args:
            sender: Index of the sending rank.
            kind: Kind of the event that is scheduled for the arrival of the vector, such as `PUSHED`.
            receiver: Index of the receiving rank.
            content: Data of the event, including the vector.
        """
        link = self._cluster.link_seconds(self.num_bytes)
        self._sent_at[sender] = max(self.clock.seconds, self._sent_at[sender]) + link
        arrives = max(self._sent_at[sender] + self._cluster.one_way_seconds, self._taken_at[receiver] + link)
        self._taken_at[receiver] = arrives
        self.clock.schedule(arrives, kind, receiver, sender, *content)

    def deliver(self, event: Event) -> None:
        """Processes the arrival of a message; the event's kind says what kind of message it is."""
        rank, (peer, *content) = event.rank, event.content
        match event.kind:
            case "fetched":
                channel, number = content
                if self.published[peer, channel][0] > number:
                    self._give(peer, channel, rank)
                else:
                    self._parked.setdefault((peer, channel), []).append(rank)
            case "given":
                channel, *content_of = content
                self._fetching.discard((rank, peer, channel))
                self._store_pushed((rank, peer, channel), (content_of[0], content_of[1], content_of[2]))
            case "pushed":
                self.pushed[rank][peer] = (content[0], content[1])
                self.clock.schedule(event.seconds + self._cluster.one_way_seconds, CONFIRMED, peer, rank)
            case "confirmed":
                self._pushing.discard((rank, peer))
                if (rank, peer) in self._waiting:
                    self.push(rank, peer, *self._waiting.pop((rank, peer)))
            case "asked":
                self.requests[rank].append((peer, content[0], content[1]))
            case _:
                self.answers[rank][peer] = (content[0], content[1])

    def _give(self, peer: int, channel: int, rank: int) -> None:
        self.send(peer, GIVEN, rank, channel, *self.published[peer, channel])

    def _store_pushed(self, key: tuple[int, int, int], content_of: tuple[int, int, Tensor]) -> None:
        self.held.pop(key, None)
        self.held[key] = content_of
        if self.num_ranks - 1 > MOST_HELD:
            own = [other for other in self.held if other[0] == key[0] and other[2] == key[2]]
            for other in own[:-MOST_HELD]:
                del self.held[other]

    def state(self) -> dict[str, Any]:
        """Returns all stored vectors and messages, for a checkpoint; `load` restores them."""
        return {
            "sent_at": list(self._sent_at),
            "taken_at": list(self._taken_at),
            "published": [(*key, *stored) for key, stored in self.published.items()],
            "held": [(*key, *stored) for key, stored in self.held.items()],
            "fetching": sorted(self._fetching),
            "parked": [(*key, list(ranks)) for key, ranks in self._parked.items()],
            "pushing": sorted(self._pushing),
            "waiting": [(*key, *stored) for key, stored in self._waiting.items()],
            "pushed": [dict(box) for box in self.pushed],
            "requests": [list(queue) for queue in self.requests],
            "answers": [dict(box) for box in self.answers],
            "unanswered": [sorted(ranks) for ranks in self.unanswered],
        }

    def load(self, state: dict[str, Any]) -> None:
        """Restores the vectors and messages that `state` returned."""
        self._sent_at, self._taken_at = list(state["sent_at"]), list(state["taken_at"])
        self.published = {(rank, ch): (n, tag, vector) for rank, ch, n, tag, vector in state["published"]}
        self.held = {(own, peer, ch): (n, tag, v) for own, peer, ch, n, tag, v in state["held"]}
        self._fetching = {(own, peer, ch) for own, peer, ch in state["fetching"]}
        self._parked = {(rank, ch): list(ranks) for rank, ch, ranks in state["parked"]}
        self._pushing = {(sender, receiver) for sender, receiver in state["pushing"]}
        self._waiting = {(own, peer): (tag, vector) for own, peer, tag, vector in state["waiting"]}
        self.pushed = [dict(box) for box in state["pushed"]]
        self.requests = [deque(map(tuple, queue)) for queue in state["requests"]]
        self.answers = [dict(box) for box in state["answers"]]
        self.unanswered = [set(ranks) for ranks in state["unanswered"]]


class VirtualTransport(Transport):
    """Transport of one virtual rank, which stores its messages in the `Mailbox` of all ranks."""

    def __init__(self, mailbox: Mailbox, rank: int) -> None:
        self._mailbox = mailbox
        self.rank, self.num_ranks, self.moved_bytes = rank, mailbox.num_ranks, 0
        self._status = np.zeros(STATUS_WIDTH)

    def post(self, status: Array) -> None:
        self._status = status.copy()

    def statuses(self) -> Array:
        """Returns one row per rank: this rank's status, and zeros for other ranks, which are not needed."""
        found = np.zeros((self.num_ranks, STATUS_WIDTH))
        found[self.rank] = self._status
        return found

    def silent_seconds(self) -> Array:
        """Returns the seconds since each rank's last status: zeros, because virtual ranks do not fail."""
        return np.zeros(self.num_ranks)

    def publish(self, channel: int, vector: Tensor, tag: int) -> None:
        self._mailbox.publish(self.rank, channel, tag, vector.clone())

    def prefetch(self, rank: int, channel: int) -> None:
        if rank != self.rank:
            self._mailbox.fetch(self.rank, rank, channel)

    def fetch(self, rank: int, channel: int, out: Tensor, *, newer_than: int | None = None) -> int | None:
        if rank == self.rank:
            found = self._mailbox.published.get((rank, channel))
        else:
            self.prefetch(rank, channel)
            found = self._mailbox.held.get((self.rank, rank, channel))
            self.moved_bytes += self._mailbox.num_bytes if found is not None else 0
        if found is None:
            return None
        _, tag, vector = found
        if newer_than is not None and tag <= newer_than:
            return None
        out.copy_(vector)
        return tag

    def push(self, rank: int, vector: Tensor, tag: int) -> bool:
        self._mailbox.push(self.rank, rank, tag, vector.clone())
        self.moved_bytes += self._mailbox.num_bytes
        return True

    def take_pushed(self) -> list[Received]:
        box, self._mailbox.pushed[self.rank] = self._mailbox.pushed[self.rank], {}
        return [Received(sender=s, tag=tag, vector=vector) for s, (tag, vector) in sorted(box.items())]

    def ask(self, rank: int, vector: Tensor, tag: int) -> bool:
        if rank in self._mailbox.unanswered[self.rank]:
            return False
        self._mailbox.unanswered[self.rank].add(rank)
        self._mailbox.send(self.rank, ASKED, rank, tag, vector.clone())
        self.moved_bytes += self._mailbox.num_bytes
        return True

    def reply(self, rank: int, *, wait_seconds: float = 0.0) -> Received | None:
        found = self._mailbox.answers[self.rank].pop(rank, None)
        if found is None:
            return None
        self._mailbox.unanswered[self.rank].discard(rank)
        return Received(sender=rank, tag=found[0], vector=found[1])

    def is_asked(self, rank: int) -> bool:
        return rank in self._mailbox.unanswered[self.rank]

    def next_request(self, *, wait_seconds: float = 0.0) -> Received | None:
        queue = self._mailbox.requests[self.rank]
        if not queue:
            return None
        sender, tag, vector = queue.popleft()
        return Received(sender=sender, tag=tag, vector=vector)

    def answer(self, request: Received, fill: Callable[[Tensor], None], tag: int) -> None:
        message = torch.empty_like(request.vector)
        fill(message)
        self._mailbox.send(self.rank, ANSWERED, request.sender, tag, message)
        self.moved_bytes += self._mailbox.num_bytes

    def close(self) -> None:
        """Does nothing, because a simulated transport has no connections to close."""
