"""Passes vectors between ranks by ZeroMQ messages: over TCP between hosts, over Unix sockets on one host.

Each rank has one I/O thread that owns all its sockets (ZeroMQ's must not be shared). It answers
fetches from the newest publication and receives what others send, whatever the rank's other threads do;
only a rank whose process is stopped does not, and then others use the last they received. Why the threads
are safe from each other:

- A vector is copied once, when the caller gives it, and never changed after that: ZeroMQ sends that copy.
- A received vector lies in its message, which lives as long as somebody has the vector.
- Messages to send wait in the I/O thread's outbox and received ones in `Arrivals`, each under a lock. Both
  are bounded, since the newest message of each place replaces the older ones.

A frozen peer costs at most `NUM_WAITING` vectors in the queue to it, and one that waits; the queue to a dead
one is dropped by the system.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable

import torch
from torch import Tensor

from tuner.domain.errors import TunerError
from tuner.transport.messages import Arrivals, Kind, Message
from tuner.transport.rendezvous import SAME_HOST, PrefixStore, Store, exchange, own_address
from tuner.transport.transport import NUM_CHANNELS, Array, Received, Transport, VectorForm
from tuner.transport.zmq_io_thread import EXPIRY_SECONDS, IoThread


class MessageTransport(Transport):
    """Carries vectors by ZeroMQ; between hosts, TCP must reach any port.

    Making one waits until all ranks have reported their addresses. Stop threads that serve requests before
    `close`: a closed transport must not be used. Nothing is encrypted, as with torch.distributed itself: the
    network between the hosts must be trusted.

    Beyond the contract: `push` and `ask` return True for a rank that is gone, which looks like a slow one. A
    push waits while the one before it is in flight, and a newer one replaces it. A publication counts as
    moved when it arrives, whether it is fetched into a tensor or not. `close` waits `LINGER_MILLISECONDS`
    for messages in flight. A question is lost if its connection breaks while both ranks live.

    Args:
        store: Where the ranks meet; used only here, and fresh for each job.
        rank: This rank.
        num_ranks: All ranks.
        num_elements: Length of all vectors.
        dtype: Their floating type.
        one_host: Whether all ranks run on one host, in one network namespace; the same on all ranks.
        host: The address that others reach this rank at; found if not given.

    Raises:
        torch.distributed.DistStoreError: A rank did not come within the store's time limit.
    """

    def __init__(
        self,
        store: Store,
        *,
        rank: int,
        num_ranks: int,
        num_elements: int,
        dtype: torch.dtype,
        one_host: bool = False,
        host: str | None = None,
    ) -> None:
        self.rank = rank
        self.num_ranks = num_ranks
        self.moved_bytes = 0
        self._form = VectorForm(num_elements=num_elements, dtype=dtype)
        self._counting = threading.Lock()
        self._arrivals = Arrivals(self._count)
        self._is_closed = False
        # The main thread's.
        self._num_published = [0] * NUM_CHANNELS
        self._own: dict[int, Message] = {}
        self._num_sent = [0] * num_ranks
        self._asked: dict[int, int] = {}
        # The serving thread's.
        self._taken: dict[int, Message] = {}
        self._io_thread = IoThread(
            rank=rank,
            num_ranks=num_ranks,
            host=host or (SAME_HOST if one_host else own_address(store)),
            form=self._form,
            arrivals=self._arrivals,
        )
        try:
            card = [self._io_thread.endpoint, self._io_thread.status_table.endpoint, secrets.token_hex(8)]
            values = exchange(
                PrefixStore("paceline/messages", store),
                "addresses",
                rank=rank,
                num_ranks=num_ranks,
                value=json.dumps(card),
            )
            endpoints, status_endpoints, tokens = zip(*map(json.loads, values), strict=True)
            self._io_thread.start(endpoints, status_endpoints, tokens[0].encode())
        except BaseException:
            self.close()
            raise

    def _count(self) -> None:
        with self._counting:
            self.moved_bytes += self._form.num_bytes

    def _put(self, message: Message) -> None:
        self._check()
        self._io_thread.put(message)

    def _check(self) -> None:
        if self._io_thread.failure is not None:
            raise TunerError(
                "The thread that passes messages to other ranks has failed"
            ) from self._io_thread.failure

    def post(self, status: Array) -> None:
        self._check()
        if self._io_thread.status_table.post(status):
            self._io_thread.wake()

    def statuses(self) -> Array:
        return self._io_thread.status_table.statuses()

    def silent_seconds(self) -> Array:
        return self._io_thread.status_table.silent_seconds()

    def publish(self, channel: int, vector: Tensor, tag: int) -> None:
        self._num_published[channel] += 1
        message = Message(
            kind=Kind.PUBLISHED,
            rank=self.rank,
            channel=channel,
            number=self._num_published[channel],
            tag=tag,
            vector=self._form.copy_of(vector),
        )
        self._own[channel] = message
        self._put(message)

    def prefetch(self, rank: int, channel: int) -> None:
        if rank == self.rank:
            return
        newest_had = self._arrivals.begin_fetch(rank, channel, EXPIRY_SECONDS)
        if newest_had is not None:
            self._put(Message(kind=Kind.FETCH, rank=rank, channel=channel, number=newest_had))

    def fetch(self, rank: int, channel: int, out: Tensor, *, newer_than: int | None = None) -> int | None:
        if rank == self.rank:
            message = self._own.get(channel)
        else:
            self.prefetch(rank, channel)
            message = self._arrivals.published(rank, channel)
        if message is None or (newer_than is not None and message.tag <= newer_than):
            return None
        assert message.vector is not None, "a publication has a vector"
        self._form.copy(message.vector, out)
        return message.tag

    def push(self, rank: int, vector: Tensor, tag: int) -> bool:
        self._send(Kind.PUSHED, rank, vector, tag)
        return True

    def take_pushed(self) -> list[Received]:
        return self._arrivals.take_pushed()

    def ask(self, rank: int, vector: Tensor, tag: int) -> bool:
        if rank in self._asked:
            return False
        self._asked[rank] = self._send(Kind.QUESTION, rank, vector, tag)
        return True

    def _send(self, kind: Kind, rank: int, vector: Tensor, tag: int) -> int:
        """Sends a vector to a rank; returns the message's number."""
        self._num_sent[rank] += 1
        number = self._num_sent[rank]
        self._pass_on(
            Message(kind=kind, rank=rank, number=number, tag=tag, vector=self._form.copy_of(vector))
        )
        return number

    def _pass_on(self, message: Message) -> None:
        if message.rank == self.rank:
            self._arrivals.put(message)
        else:
            self._put(message)
            self._count()

    def reply(self, rank: int, *, wait_seconds: float = 0.0) -> Received | None:
        number = self._asked.get(rank)
        if number is None:
            return None
        answer = self._arrivals.take_answer(rank, number, wait_seconds)
        if answer is not None:
            del self._asked[rank]
        return answer

    def is_asked(self, rank: int) -> bool:
        return rank in self._asked

    def next_request(self, *, wait_seconds: float = 0.0) -> Received | None:
        message = self._arrivals.take_question(wait_seconds)
        if message is None:
            return None
        self._taken[message.rank] = message
        return message.received()

    def answer(self, request: Received, fill: Callable[[Tensor], None], tag: int) -> None:
        rank = request.sender
        vector = self._form.new()
        fill(vector)
        number = self._taken[rank].number
        self._pass_on(Message(kind=Kind.ANSWER, rank=rank, number=number, tag=tag, vector=vector))
        del self._taken[rank]

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._io_thread.stop()
