"""Transport by ZeroMQ messages: over TCP between hosts, over Unix sockets on one host.

Each rank has one I/O thread that owns all its sockets (a ZeroMQ socket must not be shared between threads).
The I/O thread sends published vectors to the ranks that fetch them and receives messages, whatever the rank's
other threads do. If a rank's process is stopped, the other ranks continue with the last vectors they received
from it.

Why the threads do not disturb each other:

- A vector is copied once, when the caller passes it. ZeroMQ sends this copy, which never changes.
- A received vector is a view of its message, and keeps the message in memory.
- Messages to send are stored in the I/O thread's outbox, received messages in `Arrivals`, each under a lock.
  Both are bounded: the newest message of each kind, rank and channel replaces older ones.

If a rank stops reading, each other rank stores at most `NUM_WAITING` + 1 vectors for it. If the rank has
ended, these vectors are deleted.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable

import torch
from torch import Tensor

from tuner.domain.errors import TunerError
from tuner.transport.job_keys import JobKeys
from tuner.transport.messages import Arrivals, Kind, Message
from tuner.transport.rendezvous import SAME_HOST, PrefixStore, Store, exchange, own_address
from tuner.transport.transport import NUM_CHANNELS, Array, Received, Transport, VectorForm
from tuner.transport.zmq_io_thread import EXPIRY_SECONDS, IoThread


class MessageTransport(Transport):
    """Transport by ZeroMQ messages.

    Requirements:

    - Between hosts, TCP connections to any port must be possible.
    - The ranks must have a secret in common. `JobKeys` says what it protects.
    - The constructor waits until all ranks have reported their addresses.
    - A closed transport must not be used: stop threads that answer requests before `close`.

    Details beyond the interface:

    - `push` and `ask` also return True for a rank that has ended: it looks the same as a slow rank.
    - A push waits while the previous push to the same rank is in flight; a newer push replaces a waiting one.
    - `moved_bytes` counts a published vector when it arrives, even if no `fetch` copies it.
    - `close` waits up to `LINGER_MILLISECONDS` for messages in flight.
    - A request is lost if the connection breaks while both ranks are alive.

    Args:
        store: Key-value store by which the ranks tell each other their addresses; it must be empty at first,
            and is used only by the constructor.
        rank: Index of this rank.
        num_ranks: Number of ranks of the job.
        num_elements: Number of elements of each vector.
        dtype: Floating-point dtype of the vectors.
        secret: The secret of the job, which the launcher passed to each rank.
        one_host: Whether all ranks run on one host, in one network namespace; the same on all ranks.
        host: Address at which other ranks reach this rank; None to determine it from this host's routes.

    Raises:
        torch.distributed.DistStoreError: A rank did not report its address within the store's time limit.
        TunerError: The store has an address that was not signed with the secret of the job.
    """

    def __init__(
        self,
        store: Store,
        *,
        rank: int,
        num_ranks: int,
        num_elements: int,
        dtype: torch.dtype,
        secret: str,
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
        # Used only by the main thread.
        self._num_published = [0] * NUM_CHANNELS
        self._own: dict[int, Message] = {}
        self._num_sent = [0] * num_ranks
        self._asked: dict[int, int] = {}
        # Used only by the thread that answers requests.
        self._taken: dict[int, Message] = {}
        keys = JobKeys(secret)
        self._io_thread = IoThread(
            rank=rank,
            num_ranks=num_ranks,
            host=host or (SAME_HOST if one_host else own_address(store)),
            keys=keys,
            form=self._form,
            arrivals=self._arrivals,
        )
        try:
            own = json.dumps([self._io_thread.endpoint, self._io_thread.status_table.endpoint])
            values = exchange(
                PrefixStore("paceline/messages", store),
                "addresses",
                rank=rank,
                num_ranks=num_ranks,
                value=keys.signed(rank, own),
            )
            endpoints = [json.loads(keys.verified(other, value)) for other, value in enumerate(values)]
            self._io_thread.start(*zip(*endpoints, strict=True))
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
                "The thread that sends messages to other ranks has failed; the error above is the cause"
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
        assert message.vector is not None, "a message of the kind PUBLISHED must have a vector"
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
        """Sends a copy of a vector to a rank; returns the serial number of the message."""
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
