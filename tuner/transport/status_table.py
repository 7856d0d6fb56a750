"""Sends this rank's status (a few numbers) by ZeroMQ, and stores the newest status of each other rank."""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence
from typing import Final

import numpy as np
import zmq

from tuner.transport.job_keys import REFUSALS, JobKeys
from tuner.transport.transport import STATUS_WIDTH, Array

_HEAD = struct.Struct("<iq")
_NUMBERS = np.dtype("<f8")

#: A rank waits at least this many seconds, times the number of ranks, between two sends of its status, so
#: that statuses stay a small load on the network.
MIN_SECONDS_PER_RANK = 0.0005

#: An unchanged status is sent again, for ranks that were not connected yet or whose full queue lost it. The
#: interval between repetitions doubles up to this value, in seconds.
MAX_SECONDS = 1.0

#: Capacity of the queue to one rank, in messages. If a rank stops reading, further messages to it are
#: dropped.
NUM_WAITING = 4


class StatusTable:
    """Table with the newest known status of each rank: a few numbers by which it tells how far it is.

    Statuses are sent by separate sockets, so that large vectors do not delay them. Two threads use a table:

    - The caller's thread calls `post`, `statuses` and `silent_seconds`.
    - The I/O thread, which owns the sockets, calls the other methods.

    No lock is needed: the threads share only single references and array elements.

    Args:
        context: ZeroMQ context that creates the sockets.
        rank: Index of this rank.
        num_ranks: Number of ranks of the job.
        host: Address at which other ranks reach this rank (see `JobKeys.bind`).
        keys: Keys of the job, which protect the sockets.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        rank: int,
        num_ranks: int,
        host: str,
        keys: JobKeys,
    ) -> None:
        self._rank: Final = rank
        self._keys: Final = keys
        self._publisher: Final = context.socket(zmq.PUB)
        self._publisher.sndhwm = NUM_WAITING
        self.refusals: Final = self._publisher.get_monitor_socket(REFUSALS)
        self.subscriber: Final = context.socket(zmq.SUB)
        self.subscriber.rcvhwm = NUM_WAITING
        self.endpoint: Final = keys.bind(self._publisher, host)
        self._statuses: Final[Array] = np.zeros((num_ranks, STATUS_WIDTH))
        self._received_at: Final[Array] = np.full(num_ranks, time.monotonic())
        self._counts = [0] * num_ranks
        self._newest: tuple[int, bytes] | None = None
        self._is_new = False
        self._min_seconds: Final = MIN_SECONDS_PER_RANK * num_ranks
        self._pause_seconds = self._min_seconds
        self._sent_at = 0.0

    def connect(self, endpoints: Sequence[str]) -> None:
        """Subscribes to the statuses of all other ranks, so that `receive` gets them.

        Args:
            endpoints: Endpoint of each rank's status table, by rank.
        """
        self.subscriber.subscribe(b"")
        for rank, endpoint in enumerate(endpoints):
            if rank != self._rank:
                self._keys.connect(self.subscriber, endpoint)

    def post(self, status: Array) -> bool:
        """Stores this rank's status; returns whether the caller must wake the I/O thread to send it."""
        self._statuses[self._rank] = status
        self._counts[self._rank] += 1
        self._newest = (self._counts[self._rank], np.ascontiguousarray(status, dtype=_NUMBERS).tobytes())
        # The I/O thread clears the flag before it reads the status, so that it misses none.
        was_new, self._is_new = self._is_new, True
        return not was_new

    def statuses(self) -> Array:
        """Returns a copy of the newest known status of each rank, `(num_ranks, STATUS_WIDTH)`."""
        return self._statuses.copy()

    def silent_seconds(self) -> Array:
        """Returns the seconds since a new status of each rank arrived, `(num_ranks,)`; 0 for this rank."""
        silent: Array = np.maximum(time.monotonic() - self._received_at, 0)
        silent[self._rank] = 0
        return silent

    def seconds_until_due(self) -> float:
        """Returns how long the I/O thread may sleep before it must send this rank's status."""
        if self._newest is None:
            return MAX_SECONDS
        pause_seconds = self._min_seconds if self._is_new else self._pause_seconds
        return max(0.0, self._sent_at + pause_seconds - time.monotonic())

    def send_if_due(self) -> None:
        """Sends this rank's status to all other ranks, if enough time has passed since the last send."""
        if self._newest is None or self.seconds_until_due() > 0:
            return
        is_new = self._is_new
        self._send()
        self._pause_seconds = self._min_seconds if is_new else min(2 * self._pause_seconds, MAX_SECONDS)

    def _send(self) -> None:
        assert self._newest is not None, "a status must have been posted"
        # The flag is cleared before the status is read, so that a status posted meanwhile is not missed.
        self._is_new = False
        count, numbers = self._newest
        self._publisher.send(_HEAD.pack(self._rank, count) + numbers, zmq.NOBLOCK)
        self._sent_at = time.monotonic()

    def receive(self) -> None:
        """Stores the statuses that arrived. A status that is sent again does not count as a sign of life."""
        for _ in range(NUM_WAITING * len(self._counts)):
            try:
                body = self.subscriber.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            if len(body) != _HEAD.size + STATUS_WIDTH * _NUMBERS.itemsize:
                continue
            rank, count = _HEAD.unpack_from(body)
            if 0 <= rank < len(self._counts) and rank != self._rank and count > self._counts[rank]:
                self._counts[rank] = count
                self._statuses[rank] = np.frombuffer(body, dtype=_NUMBERS, offset=_HEAD.size)
                self._received_at[rank] = time.monotonic()

    def close(self, linger_milliseconds: int) -> None:
        """Sends the last status if it was not sent yet, and closes the sockets."""
        if self._is_new:
            self._send()
        self._publisher.disable_monitor()
        self.refusals.close(0)
        self._publisher.close(linger_milliseconds)
        # This socket can only have unsent subscriptions left, to ranks that have ended.
        self.subscriber.close(0)
