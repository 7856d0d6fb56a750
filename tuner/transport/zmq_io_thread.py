"""The I/O thread of a rank: owns its ZeroMQ sockets, sends and receives messages, and serves fetches.

A fetch of another rank is answered from the vector that this rank published last, while the rank trains.
"""

from __future__ import annotations

import math
import socket
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import zmq
from zmq.utils.monitor import parse_monitor_message

from tuner.transport.job_keys import REFUSALS, JobKeys
from tuner.transport.messages import Arrivals, Kind, Message
from tuner.transport.rendezvous import SAME_HOST
from tuner.transport.status_table import StatusTable
from tuner.transport.transport import VectorForm

#: Capacity of the queue to one rank, in messages: the most vectors stored for a rank that has stopped
#: reading.
NUM_WAITING = 8

#: Most bytes of a frame that ZeroMQ encrypts. A vector of several frames is decrypted while later frames are
#: on the way: 40 MB there and back took 200 ms instead of 270.
ENCRYPTED_FRAME_BYTES = 1 << 22

#: A push or fetch without a response after this many seconds counts as lost, and another one may be sent.
EXPIRY_SECONDS = 30.0

#: How often to retry messages that could not be sent, in seconds.
RETRY_SECONDS = 0.1

#: How long closing waits until messages in flight are sent, in milliseconds.
LINGER_MILLISECONDS = 300

#: How long closing waits for ZeroMQ to end, in seconds; longer than for messages in flight. Launchers end a
#: rank that returns 2 seconds later than another one.
_TERMINATION_SECONDS = 0.8

#: Most messages that are read from one socket before the next socket is read.
NUM_TAKEN_AT_ONCE = 16

_Socket = zmq.Socket[bytes]


class IoThread:
    """Sends the messages of a rank, and receives those of the other ranks, in a thread of its own.

    Sockets: a rank has one ROUTER socket, to which other ranks connect, and one DEALER socket to each other
    rank. A response is sent by the socket at which the request arrived. The name of a connection is the
    number of the rank that connects. A process that does not have the keys of the job cannot connect; the
    first refused connection is reported.

    Limits, so that no call blocks and memory is bounded:

    - Only one push to each rank is in flight, until that rank's I/O thread confirms it. Of later pushes to
      the same rank, only the newest waits.
    - Only one fetch per rank and channel, and one request per rank, is in flight.
    - `put` stores one unsent message per key (`Message.place`).

    Args:
        rank: Index of this rank.
        num_ranks: Number of ranks of the job.
        host: Address at which other ranks reach this rank (see `JobKeys.bind`).
        keys: Keys of the job, which protect the sockets.
        form: Length and dtype of the vectors.
        arrivals: Store to which the thread adds received messages.
    """

    def __init__(
        self,
        *,
        rank: int,
        num_ranks: int,
        host: str,
        keys: JobKeys,
        form: VectorForm,
        arrivals: Arrivals,
    ) -> None:
        self._rank: Final = rank
        self._keys: Final = keys
        self._form: Final = form
        self._frame_bytes: Final = form.num_bytes if host == SAME_HOST else ENCRYPTED_FRAME_BYTES
        self._arrivals: Final = arrivals
        self._lock: Final = threading.Lock()
        self._outbox: dict[tuple[Kind, int, int], Message] = {}
        self._wake_up_end, self._wake_up_socket = socket.socketpair()
        self._wake_up_end.setblocking(False)
        self._wake_up_socket.setblocking(False)
        self._is_closing = False
        self._context: Final = zmq.Context()
        self._router: Final[_Socket] = self._context.socket(zmq.ROUTER)
        # A rank whose connection broke connects again under the same name.
        self._router.router_handover = True
        self._router.sndhwm = self._router.rcvhwm = NUM_WAITING * 2
        self._refusals: Final = self._router.get_monitor_socket(REFUSALS)
        self.status_table: Final = StatusTable(self._context, rank, num_ranks, host, keys)
        self.endpoint: Final = keys.bind(self._router, host)
        self._dealers: dict[int, _Socket] = {}
        self._names: Final = {other: b"%d" % other for other in range(num_ranks)}
        self._has_refused = False
        self._published: dict[int, Message] = {}
        #: Pairs (rank, channel) of fetches that wait until this rank publishes a newer vector in that
        #: channel.
        self._parked: set[tuple[int, int]] = set()
        #: Maps each rank to the number of the push in flight to it and the time at which that push was sent.
        self._in_flight: dict[int, tuple[int, float]] = {}
        self._waiting: dict[tuple[Kind, int, int], Message] = {}
        #: The exception that ended the thread; None if it runs, or was ended by `stop`.
        self.failure: Exception | None = None
        # A daemon thread does not keep the process alive if a rank ends without `close`.
        self._thread: Final = threading.Thread(target=self._run, name=f"io-{rank}", daemon=True)

    def start(self, endpoints: Sequence[str], status_endpoints: Sequence[str]) -> None:
        """Connects to the other ranks and starts the thread, which owns the sockets from then on.

        Args:
            endpoints: Endpoint of each rank's ROUTER socket, by rank.
            status_endpoints: Endpoint of each rank's status table, by rank.
        """
        self.status_table.connect(status_endpoints)
        for rank, endpoint in enumerate(endpoints):
            if rank == self._rank:
                continue
            dealer = self._dealers[rank] = self._context.socket(zmq.DEALER)
            dealer.identity = self._names[self._rank]
            dealer.sndhwm = dealer.rcvhwm = NUM_WAITING
            dealer.reconnect_ivl_max = 5000
            self._keys.connect(dealer, endpoint)
        self._thread.start()

    def put(self, message: Message) -> None:
        """Queues a message to be sent; it replaces an unsent message with the same `Message.place`."""
        with self._lock:
            is_first = not self._outbox
            self._outbox[message.place] = message
        if is_first:
            self.wake()

    def wake(self) -> None:
        """Wakes the thread from its wait for messages."""
        # The socket is full only if wake-ups are unread, so that the thread will wake in any case.
        with suppress(BlockingIOError):
            self._wake_up_end.send(b"!")

    def stop(self) -> None:
        """Ends the thread and waits for it. Messages in flight are sent for at most `LINGER_MILLISECONDS`."""
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
        monitors = (self._refusals, self.status_table.refusals)
        readables = (self._wake_up_socket, self._router, self.status_table.subscriber, *monitors, *dealers)
        for readable in readables:
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
                elif readable in monitors:
                    self._report_refusals(readable)
                else:
                    for parts in self._taken_from(readable):
                        self._take(Message.parsed(parts, ranks[readable], self._form))
            self._send_waiting()
            self.status_table.send_if_due()

    def _report_refusals(self, monitor: _Socket) -> None:
        """Reads which connections a listening socket has refused; prints a warning about the first one."""
        for frames in self._taken_from(monitor):
            event = parse_monitor_message([bytes(frame.buffer) for frame in frames])
            # With an error number, the connection itself failed to open.
            if self._has_refused or (event["event"] == zmq.EVENT_ACCEPT_FAILED and event["value"] != 0):
                continue
            self._has_refused = True
            print(
                f"Warning: rank {self._rank} refused a process that connected to "
                f"{event['endpoint'].decode(errors='replace')}, since it did not prove that it "
                "belongs to this job, or it ended too early. The training is not affected. To keep "
                "others away from this port, block it by a firewall. Further refusals of this rank are not "
                "reported.",
                file=sys.stderr,
                flush=True,
            )

    def _send_outbox(self) -> bool:
        """Takes the messages that `put` has stored: publishes vectors, and queues other messages for sending.

        Returns:
            Whether `stop` was called, so these are the last messages.
        """
        with suppress(BlockingIOError):
            self._wake_up_socket.recv(4096)
        # The flag is read after the wake-ups: otherwise the wake-up of `stop` could be consumed before its
        # flag is seen. It is read before the messages, so that messages put before `stop` are still sent.
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
        """Returns the messages that can be read from a socket now, without a copy of their content."""
        messages: list[list[zmq.Frame]] = []
        # Asking for the number of events is cheaper than the exception of a failed read.
        while len(messages) < NUM_TAKEN_AT_ONCE and int(readable.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            messages.append(readable.recv_multipart(zmq.NOBLOCK, copy=False))
        return messages

    def _send_waiting(self) -> None:
        for place, message in list(self._waiting.items()):
            if self._is_sent(message):
                del self._waiting[place]

    def _is_sent(self, message: Message) -> bool:
        """Sends a message if possible; returns whether it was sent.

        A push has to wait while the previous push to the same rank is in flight.
        """
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
        """Passes a message to ZeroMQ, which reads the vector's own memory until the message is sent.

        Raises:
            zmq.Again: The queue to that rank is full.
        """
        parts = message.parts(self._frame_bytes)
        if message.kind in (Kind.ANSWER, Kind.PUBLISHED, Kind.ARRIVED):
            # Responses use the socket that the request came from. ZeroMQ drops a response to a rank that has
            # ended.
            self._router.send_multipart([self._names[rank], *parts], zmq.NOBLOCK, copy=False)
        else:
            self._dealers[rank].send_multipart(parts, zmq.NOBLOCK, copy=False)

    def _take(self, message: Message | None) -> None:
        """Handles a message from another rank; ignores None, an invalid message."""
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
        self._router.disable_monitor()
        self._refusals.close(0)
        self.status_table.close(LINGER_MILLISECONDS)
        for line in (self._router, *self._dealers.values()):
            line.close(LINGER_MILLISECONDS)
        # In about one of 300 slices on a busy host, `term` did not return, for a reason within ZeroMQ that is
        # not known. A rank must not be lost because of this: the sockets are closed in any case.
        termination = threading.Thread(target=self._context.term, name=f"term-{self._rank}", daemon=True)
        termination.start()
        termination.join(_TERMINATION_SECONDS)
