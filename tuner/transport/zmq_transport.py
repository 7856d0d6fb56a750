"""Passes vectors between ranks of several hosts, by ZeroMQ messages over TCP.

Each rank has one I/O thread that owns all its sockets (ZeroMQ's must not be shared). It answers
fetches from the newest published copy and receives what others send, whatever the rank's other threads do;
only a rank whose process is stopped does not, and then others use the last they received. Why the threads
are safe from each other:

- *What goes out changes hands.* A vector is copied once, into a send buffer that nobody else has. The outbox
  (`messages.py`), under a lock, hands it to the I/O thread, which gives it to ZeroMQ without another copy.
  The buffer is written again when its last holder has released it and ZeroMQ's trackers say that all
  sendings are over.
- *What comes in changes hands.* The I/O thread parses a message and puts it, under a lock, where the caller
  finds it (`arrivals.py`); its vector lies in the message itself, which lives as long as somebody holds
  the vector. The I/O thread never touches it again.
- *Every queue is bounded* by what it is for: the newest of each place wins.

What a frozen peer costs is `NUM_WAITING` vectors in the line to it, and one that waits; a dead one's line
is dropped by the system.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable

import torch
from torch import Tensor

from tuner.domain.errors import TunerError
from tuner.transport.addresses import LOOPBACK, PrefixStore, Store, exchange, own_address
from tuner.transport.arrivals import Arrivals, received
from tuner.transport.messages import Kind, Message, Outbox, SendBufferPool
from tuner.transport.shared_memory import SharedMemoryTransport, shared_memory_is_safe
from tuner.transport.transport import NUM_CHANNELS, Array, Received, Transport, VectorForm
from tuner.transport.zmq_io_thread import EXPIRY_SECONDS, IoThread


class MessageTransport(Transport):
    """For ranks of several hosts that reach each other by TCP, at any port.

    Making one waits until all ranks have reported their addresses. Before `close`, whoever serves in another
    thread ends that: a closed transport must not be used. Nothing is encrypted, as with torch.distributed
    itself: the network between the hosts must be trusted.

    Beyond the contract: `push` and `ask` give True for a rank that is gone, which looks like a slow one. A
    push waits while the one before it is in flight, and a newer one replaces it. What a rank published counts
    as moved when it arrives, whether it is fetched into a tensor or not. `close` gives messages in flight a
    moment (`LINGER_MILLISECONDS`), not more. A question is lost if its connection breaks while both ranks
    live.

    Args:
        store: Where the ranks meet; used only here, and fresh for each job.
        rank: This rank.
        num_ranks: All ranks.
        num_elements: Length of all vectors.
        dtype: Their floating type.
        host: The address that others reach this rank at; found from the way to the store if not given.

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
        host: str | None = None,
    ) -> None:
        self.rank = rank
        self.num_ranks = num_ranks
        self.moved_bytes = 0
        self._form = VectorForm(num_elements=num_elements, dtype=dtype)
        self._counting = threading.Lock()
        self._pool = SendBufferPool(self._form)
        self._outbox = Outbox(self._pool)
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
            host=host or own_address(store),
            form=self._form,
            pool=self._pool,
            outbox=self._outbox,
            arrivals=self._arrivals,
        )
        try:
            card = [self._io_thread.endpoint, self._io_thread.board.endpoint, secrets.token_hex(8)]
            values = exchange(
                PrefixStore("paceline/messages", store),
                "addresses",
                rank=rank,
                num_ranks=num_ranks,
                value=json.dumps(card),
            )
            endpoints, board_endpoints, tokens = zip(*map(json.loads, values), strict=True)
            self._io_thread.start(endpoints, board_endpoints, tokens[0].encode())
        except BaseException:
            self.close()
            raise

    def _count(self) -> None:
        with self._counting:
            self.moved_bytes += self._form.num_bytes

    def _put(self, message: Message) -> None:
        self._check()
        self._outbox.put(message)

    def _check(self) -> None:
        if self._io_thread.failure is not None:
            raise TunerError(
                "The thread that passes messages to other ranks has failed"
            ) from self._io_thread.failure

    def post(self, status: Array) -> None:
        self._check()
        if self._io_thread.board.post(status):
            self._outbox.wake()

    def statuses(self) -> Array:
        return self._io_thread.board.statuses()

    def silent_seconds(self) -> Array:
        return self._io_thread.board.silent_seconds()

    def publish(self, channel: int, vector: Tensor, tag: int) -> None:
        self._num_published[channel] += 1
        # Held by the I/O thread, and here for the rank's own fetches.
        message = Message(
            kind=Kind.PUBLISHED,
            rank=self.rank,
            channel=channel,
            number=self._num_published[channel],
            tag=tag,
            send_buffer=self._pool.take(vector, num_holders=2),
        )
        replaced = self._own.get(channel)
        self._own[channel] = message
        if replaced is not None and replaced.send_buffer is not None:
            self._pool.release(replaced.send_buffer)
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
        source = message.send_buffer.vector if message.send_buffer is not None else message.vector
        assert source is not None, "a published message has a vector"
        self._form.copy(source, out)
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
        """Sends a vector to a rank, or puts it among its own arrivals; gives its number."""
        self._num_sent[rank] += 1
        number = self._num_sent[rank]
        if rank == self.rank:
            copy = self._form.new()
            self._form.copy(vector, copy)
            self._arrivals.put(Message(kind=kind, rank=rank, number=number, tag=tag, vector=copy))
        else:
            send_buffer = self._pool.take(vector)
            self._put(Message(kind=kind, rank=rank, number=number, tag=tag, send_buffer=send_buffer))
            self._count()
        return number

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
        return received(message)

    def answer(self, request: Received, fill: Callable[[Tensor], None], tag: int) -> None:
        rank = request.sender
        number = self._taken[rank].number
        if rank == self.rank:
            vector = self._form.new()
            fill(vector)
            self._arrivals.put(Message(kind=Kind.ANSWER, rank=rank, number=number, tag=tag, vector=vector))
        else:
            send_buffer = self._pool.take()
            try:
                fill(send_buffer.vector)
            except BaseException:
                self._pool.release(send_buffer)
                raise
            self._put(Message(kind=Kind.ANSWER, rank=rank, number=number, tag=tag, send_buffer=send_buffer))
            self._count()
        del self._taken[rank]

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._io_thread.stop()


def open_transport(
    store: Store,
    *,
    rank: int,
    num_ranks: int,
    num_elements: int,
    dtype: torch.dtype,
    one_host: bool,
    host: str | None = None,
) -> Transport:
    """Opens a job's transport; returns when all ranks have come.

    Args:
        store: Where the ranks meet; used only here, and fresh for each job.
        rank: This rank.
        num_ranks: All ranks.
        num_elements: Length of all vectors.
        dtype: Their floating type.
        one_host: Whether all ranks run on one host, as one user, and see each other's processes; the same
            on all ranks.
        host: The address that others reach this rank at, where messages pass; found if not given.

    Returns:
        One through shared memory on one host, if its machine lets that be safe; else one by messages.
    """
    if one_host and shared_memory_is_safe():
        return SharedMemoryTransport(
            store, rank=rank, num_ranks=num_ranks, num_elements=num_elements, dtype=dtype
        )
    if host is None and one_host:
        host = LOOPBACK
    return MessageTransport(
        store, rank=rank, num_ranks=num_ranks, num_elements=num_elements, dtype=dtype, host=host
    )
