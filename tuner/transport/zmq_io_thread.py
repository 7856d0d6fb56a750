"""The I/O thread that owns a rank's ZeroMQ sockets: sends, receives, and serves what was published."""

from __future__ import annotations

import math
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import zmq

from tuner.transport.messages import Arrivals, Kind, Message
from tuner.transport.rendezvous import bind
from tuner.transport.status_table import StatusTable
from tuner.transport.transport import VectorForm

#: Capacity of the queue to one peer, in messages. A frozen peer costs at most so many vectors.
NUM_WAITING = 8

#: A push or fetch that is not confirmed after this time, in seconds, counts as lost, and another may be sent.
EXPIRY_SECONDS = 30.0

#: How often to retry messages that could not be sent, in seconds.
RETRY_SECONDS = 0.1

#: How long closing waits for messages in flight.
LINGER_MILLISECONDS = 300

#: Messages taken from one peer before it is the next peer's turn.
NUM_TAKEN_AT_ONCE = 16

_Socket = zmq.Socket[bytes]


class IoThread:
    """Moves messages between a rank's callers and the other ranks.

    A rank has one ROUTER socket, which receives the others' messages, and a DEALER for each other rank; an
    answer returns by the socket its question came from. A peer's name is its rank and the job's token, so
    that a rank left over from another job, which still connects to a port that is now ours, is ignored.

    Nothing blocks: one push per rank is in flight until that rank's I/O thread confirms it, while the newest
    waits; one fetch per rank and channel; one question per rank. Callers hand messages over by `put`, which
    stores one message for each place, so that a thread that gets no time costs no memory.

    Args:
        rank: This rank.
        num_ranks: All ranks.
        host: The address that others reach this rank at (see `bind`).
        form: Of the vectors.
        arrivals: Where to put received messages.
    """

    def __init__(self, *, rank: int, num_ranks: int, host: str, form: VectorForm, arrivals: Arrivals) -> None:
        self._rank: Final = rank
        self._form: Final = form
        self._arrivals: Final = arrivals
        self._lock: Final = threading.Lock()
        self._outbox: dict[tuple[Kind, int, int], Message] = {}
        self._wake_up_end, self._wake_up_socket = socket.socketpair()
        self._wake_up_end.setblocking(False)
        self._wake_up_socket.setblocking(False)
        self._is_closing = False
        self._context: Final = zmq.Context()
        self._router: Final[_Socket] = self._context.socket(zmq.ROUTER)
        # A peer whose connection broke comes back under its name.
        self._router.router_handover = True
        self._router.sndhwm = self._router.rcvhwm = NUM_WAITING * 2
        self.status_table: Final = StatusTable(self._context, rank, num_ranks, host)
        self.endpoint: Final = bind(self._router, host)
        self._dealers: dict[int, _Socket] = {}
        self._names: dict[int, bytes] = {}
        self._published: dict[int, Message] = {}
        #: Ranks and channels whose fetch is answered by the next publication.
        self._parked: set[tuple[int, int]] = set()
        #: By rank: number of the push in flight, and when it was sent.
        self._in_flight: dict[int, tuple[int, float]] = {}
        self._waiting: dict[tuple[Kind, int, int], Message] = {}
        #: What ended the thread, unless `stop` did.
        self.failure: Exception | None = None
        # A daemon, so that a rank that ends without `close` does end.
        self._thread: Final = threading.Thread(target=self._run, name=f"io-{rank}", daemon=True)

    def start(self, endpoints: Sequence[str], status_endpoints: Sequence[str], token: bytes) -> None:
        """Connects to the other ranks and hands the sockets over to the thread."""
        self.status_table.connect(status_endpoints, token)
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

    def put(self, message: Message) -> None:
        """Hands a message over to be sent; it replaces an older one of the same place."""
        with self._lock:
            is_first = not self._outbox
            self._outbox[message.place] = message
        if is_first:
            self.wake()

    def wake(self) -> None:
        """Wakes the thread."""
        # Refused only if so many wake-ups are unread that one more would add nothing.
        with suppress(BlockingIOError):
            self._wake_up_end.send(b"!")

    def stop(self) -> None:
        """Ends the thread and waits for it; messages in flight have `LINGER_MILLISECONDS`."""
        self._is_closing = True
        self.wake()
        if self._thread.ident is None:
            self._close_sockets()
        else:
            self._thread.join()
        self._wake_up_end.close()
        self._wake_up_socket.close()

    def _run(self) -> None:
        try:
            self._serve()
        except Exception as error:
            self.failure = error
        finally:
            self._close_sockets()

    def _serve(self) -> None:
        poller = zmq.Poller()
        dealers = self._dealers.values()
        for readable in (self._wake_up_socket, self._router, self.status_table.subscriber, *dealers):
            poller.register(readable, zmq.POLLIN)
        wake_up = self._wake_up_socket.fileno()
        ranks = {dealer: rank for rank, dealer in self._dealers.items()}
        ranks_by_name = {name: rank for rank, name in self._names.items()}
        is_closed = False
        while not is_closed:
            seconds = self.status_table.seconds_until_due()
            if self._waiting:
                seconds = min(seconds, RETRY_SECONDS)
            for readable, _ in poller.poll(math.ceil(seconds * 1000)):
                if readable == wake_up:
                    is_closed = self._send_outbox()
                elif readable is self._router:
                    for name, *parts in self._taken_from(self._router):
                        rank = ranks_by_name.get(name.bytes)
                        if rank is not None:
                            self._take(Message.parsed(parts, rank, self._form))
                elif readable is self.status_table.subscriber:
                    self.status_table.receive()
                else:
                    for parts in self._taken_from(readable):
                        self._take(Message.parsed(parts, ranks[readable], self._form))
            self._send_waiting()
            self.status_table.send_if_due()

    def _send_outbox(self) -> bool:
        """Sends all messages that callers have put; returns whether they are the last."""
        with suppress(BlockingIOError):
            self._wake_up_socket.recv(4096)
        # Read after the wake-ups, or the one from `stop` could be read before its flag is seen; and before
        # the messages, so that those put before closing are still sent.
        is_last = self._is_closing
        with self._lock:
            messages, self._outbox = self._outbox, {}
        for message in messages.values():
            if message.kind is Kind.PUBLISHED:
                self._publish(message)
            else:
                self._waiting[message.place] = message
        return is_last

    def _publish(self, message: Message) -> None:
        self._published[message.channel] = message
        for rank, channel in [parked for parked in self._parked if parked[1] == message.channel]:
            self._parked.discard((rank, channel))
            self._deliver(message, rank)

    @staticmethod
    def _taken_from(readable: _Socket) -> list[list[zmq.Frame]]:
        """The messages available at a socket that has some, their content not copied."""
        messages: list[list[zmq.Frame]] = []
        # To ask whether there are more is cheaper than to be refused one.
        while len(messages) < NUM_TAKEN_AT_ONCE and int(readable.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            messages.append(readable.recv_multipart(zmq.NOBLOCK, copy=False))
        return messages

    def _send_waiting(self) -> None:
        for place, message in list(self._waiting.items()):
            if self._is_sent(message):
                del self._waiting[place]

    def _is_sent(self, message: Message) -> bool:
        """Sends a message if its connection is free."""
        if message.kind is Kind.PUSHED:
            _, sent_at = self._in_flight.get(message.rank, (0, -EXPIRY_SECONDS))
            if time.monotonic() - sent_at < EXPIRY_SECONDS:
                return False
        try:
            self._deliver(message, message.rank)
        except zmq.Again:
            return False
        if message.kind is Kind.PUSHED:
            self._in_flight[message.rank] = (message.number, time.monotonic())
        return True

    def _deliver(self, message: Message, rank: int) -> None:
        """Gives a message to ZeroMQ, which uses the vector's own memory until it is sent.

        Raises:
            zmq.Again: The queue is full.
        """
        if message.kind in (Kind.ANSWER, Kind.PUBLISHED, Kind.ARRIVED):
            # Back the way the question came; to one that is gone, it goes nowhere.
            self._router.send_multipart([self._names[rank], *message.parts()], zmq.NOBLOCK, copy=False)
        else:
            self._dealers[rank].send_multipart(message.parts(), zmq.NOBLOCK, copy=False)

    def _take(self, message: Message | None) -> None:
        """Does what a message from another rank asks for."""
        if message is None:
            return
        if message.kind is Kind.FETCH:
            newest = self._published.get(message.channel)
            if newest is not None and newest.number > message.number:
                self._deliver(newest, message.rank)
            else:
                self._parked.add((message.rank, message.channel))
        elif message.kind is Kind.ARRIVED:
            if self._in_flight.get(message.rank, (0, 0.0))[0] == message.number:
                del self._in_flight[message.rank]
        else:
            self._arrivals.put(message)
            if message.kind is Kind.PUSHED:
                arrived = Message(kind=Kind.ARRIVED, rank=message.rank, number=message.number)
                self._deliver(arrived, message.rank)

    def _close_sockets(self) -> None:
        self.status_table.close(LINGER_MILLISECONDS)
        for line in (self._router, *self._dealers.values()):
            line.close(LINGER_MILLISECONDS)
        self._context.term()
