"""The I/O thread that owns a rank's ZeroMQ sockets: sends, receives, and serves what was published."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from typing import Final

import zmq

from tuner.transport.addresses import bind
from tuner.transport.arrivals import Arrivals
from tuner.transport.messages import Kind, Message, Outbox, SendBufferPool, parsed
from tuner.transport.status_table import StatusTable
from tuner.transport.transport import VectorForm

#: Messages that wait for one peer. A frozen one costs that many vectors at most.
NUM_WAITING = 8

#: A push not confirmed for so long counts as lost with its connection, and another may be sent.
EXPIRY_SECONDS = 30.0

#: How often to retry what could not be sent.
RETRY_SECONDS = 0.1

#: How long closing waits for messages that are still being sent.
LINGER_MILLISECONDS = 300

#: Messages taken from one peer before the next one's turn.
NUM_TAKEN_AT_ONCE = 16

_Socket = zmq.Socket[bytes]


class IoThread:
    """Moves messages between a rank's outbox, its arrivals, and the other ranks.

    A rank has one ROUTER socket, which receives the others' messages, and a DEALER for each other rank; an
    answer returns by the socket its question came from. A peer's name is its rank and the job's token, so
    that a rank left over from another job, which still connects to a port that is now ours, is ignored.

    Nothing blocks: one push per rank is in flight until that rank's I/O thread confirms it, while the newest
    waits; one fetch per rank and channel; one question per rank.

    Args:
        rank: This rank.
        num_ranks: All ranks.
        host: The address that others reach this rank at.
        form: Of the vectors.
        pool: Source of the messages' send buffers.
        outbox: Messages to send.
        arrivals: Where to put received messages.
    """

    def __init__(
        self,
        *,
        rank: int,
        num_ranks: int,
        host: str,
        form: VectorForm,
        pool: SendBufferPool,
        outbox: Outbox,
        arrivals: Arrivals,
    ) -> None:
        self._rank: Final = rank
        self._form: Final = form
        self._pool: Final = pool
        self._outbox: Final = outbox
        self._arrivals: Final = arrivals
        self._context: Final = zmq.Context()
        self._router: Final[_Socket] = self._context.socket(zmq.ROUTER)
        # A peer whose connection broke comes back under its name.
        self._router.router_handover = True
        self._router.sndhwm = self._router.rcvhwm = NUM_WAITING * 2
        self.board: Final = StatusTable(self._context, rank, num_ranks, host)
        self.endpoint: Final = bind(self._router, host)
        self._dealers: dict[int, _Socket] = {}
        self._names: dict[int, bytes] = {}
        self._published: dict[int, Message] = {}
        self._parked: dict[tuple[int, int], int] = {}
        self._under_way: dict[int, tuple[int, float]] = {}
        self._waiting: dict[tuple[Kind, int, int], Message] = {}
        #: What ended the thread, if it was not `stop`.
        self.failure: Exception | None = None
        # A daemon, so that a rank that ends without `close` does end.
        self._thread: Final = threading.Thread(target=self._run, name=f"io-{rank}", daemon=True)

    def start(self, endpoints: Sequence[str], board_endpoints: Sequence[str], token: bytes) -> None:
        """Connects to the other ranks and hands the sockets over to the thread."""
        self.board.connect(board_endpoints, token)
        self._names = {rank: b"%d:%s" % (rank, token) for rank in range(len(endpoints))}
        for rank, endpoint in enumerate(endpoints):
            if rank == self._rank:
                continue
            dealer = self._dealers[rank] = self._context.socket(zmq.DEALER)
            dealer.identity = self._names[self._rank]
            dealer.sndhwm = dealer.rcvhwm = NUM_WAITING
            dealer.ipv6 = "[" in endpoint
            dealer.reconnect_ivl_max = 5000
            dealer.connect(endpoint)
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread and waits for it; messages in flight have `LINGER_MILLISECONDS`."""
        self._outbox.close()
        if self._thread.ident is None:
            self._close_sockets()
        else:
            self._thread.join()
        self._outbox.dispose()

    def _run(self) -> None:
        try:
            self._serve()
        except Exception as error:
            self.failure = error
        finally:
            self._close_sockets()

    def _serve(self) -> None:
        poller = zmq.Poller()
        for readable in (self._outbox.waking, self._router, self.board.listening, *self._dealers.values()):
            poller.register(readable, zmq.POLLIN)
        waking = self._outbox.waking.fileno()
        ranks = {dealer: rank for rank, dealer in self._dealers.items()}
        ranks_by_name = {name: rank for rank, name in self._names.items()}
        is_closed = False
        while not is_closed:
            seconds = self.board.seconds_until_due()
            if self._waiting:
                seconds = min(seconds, RETRY_SECONDS)
            for readable, _ in poller.poll(math.ceil(seconds * 1000)):
                if readable == waking:
                    outgoing, is_closed = self._outbox.drain()
                    for message in outgoing:
                        self._send(message)
                elif readable is self._router:
                    for name, *parts in self._taken_from(self._router):
                        rank = ranks_by_name.get(name.bytes)
                        if rank is not None:
                            self._take(parsed(parts, rank, self._form))
                elif readable is self.board.listening:
                    self.board.receive()
                else:
                    for parts in self._taken_from(readable):
                        self._take(parsed(parts, ranks[readable], self._form))
            self._send_waiting()
            self.board.spread_if_due()

    @staticmethod
    def _taken_from(readable: _Socket) -> list[list[zmq.Frame]]:
        """The messages available at a socket that has some, their content not copied."""
        messages: list[list[zmq.Frame]] = []
        # To ask whether there are more is cheaper than to be refused one.
        while len(messages) < NUM_TAKEN_AT_ONCE and int(readable.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            messages.append(readable.recv_multipart(zmq.NOBLOCK, copy=False))
        return messages

    def _send(self, message: Message) -> None:
        """Sends a message of this rank, or lets it wait in place of an older one."""
        if message.kind is Kind.PUBLISHED:
            replaced = self._published.get(message.channel)
            self._published[message.channel] = message
            parked = [rank for rank, channel in self._parked if channel == message.channel]
            for rank in parked:
                del self._parked[rank, message.channel]
                self._give_published(rank, message.channel)
        else:
            replaced = self._waiting.pop(message.place, None)
            if not self._goes_out(message):
                self._waiting[message.place] = message
        if replaced is not None and replaced.send_buffer is not None:
            self._pool.release(replaced.send_buffer)

    def _send_waiting(self) -> None:
        for place, message in list(self._waiting.items()):
            if self._goes_out(message):
                del self._waiting[place]

    def _goes_out(self, message: Message) -> bool:
        """Sends a message if its connection is free."""
        if message.kind is Kind.PUSHED:
            _, sent_at = self._under_way.get(message.rank, (0, -EXPIRY_SECONDS))
            if time.monotonic() - sent_at < EXPIRY_SECONDS:
                return False
        try:
            self._deliver(message, message.rank)
        except zmq.Again:
            return False
        if message.kind is Kind.PUSHED:
            self._under_way[message.rank] = (message.number, time.monotonic())
        if message.send_buffer is not None:
            self._pool.release(message.send_buffer)
        return True

    def _deliver(self, message: Message, rank: int) -> None:
        """Gives a message to ZeroMQ, which holds the vector until it is sent.

        Raises:
            zmq.Again: The line is full.
        """
        parts: list[bytes | memoryview] = [message.head]
        line = self._dealers[rank]
        if message.kind in (Kind.ANSWER, Kind.PUBLISHED, Kind.ARRIVED):
            # Back the way the question came; to one that is gone, it goes nowhere.
            line = self._router
            parts.insert(0, self._names[rank])
        if message.send_buffer is None:
            line.send_multipart(parts, zmq.NOBLOCK)
            return
        parts.append(message.send_buffer.content)
        sending = line.send_multipart(parts, zmq.NOBLOCK, copy=False, track=True)
        assert sending is not None, "a tracked message has a tracker"
        self._pool.has_gone(message.send_buffer, sending)

    def _give_published(self, rank: int, channel: int) -> None:
        self._deliver(self._published[channel], rank)

    def _take(self, message: Message | None) -> None:
        """Does what a message from another rank asks for."""
        if message is None:
            return
        if message.kind is Kind.FETCH:
            newest = self._published.get(message.channel)
            if newest is not None and newest.number > message.number:
                self._give_published(message.rank, message.channel)
            else:
                # It gets the next one as soon as there is one.
                self._parked[message.rank, message.channel] = message.number
        elif message.kind is Kind.ARRIVED:
            if self._under_way.get(message.rank, (0, 0.0))[0] == message.number:
                del self._under_way[message.rank]
        else:
            self._arrivals.put(message)
            if message.kind is Kind.PUSHED:
                self._deliver(
                    Message(kind=Kind.ARRIVED, rank=message.rank, number=message.number), message.rank
                )

    def _close_sockets(self) -> None:
        self.board.close(LINGER_MILLISECONDS)
        for line in (self._router, *self._dealers.values()):
            line.close(LINGER_MILLISECONDS)
        self._context.term()
