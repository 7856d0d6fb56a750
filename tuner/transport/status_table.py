"""The status of all ranks as one rank knows it, and how it sends its own to the others."""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence
from typing import Final

import numpy as np
import zmq

from tuner.transport.addresses import bind
from tuner.transport.transport import STATUS_WIDTH, Array

_HEAD = struct.Struct("<iq")
_NUMBERS = np.dtype("<f8")

#: Between two sends: at least this, and this for each rank, so that statuses stay a small load.
MIN_SECONDS = 0.010
MIN_SECONDS_PER_RANK = 0.001

#: A status that stays the newest is sent again, less and less often, down to once in this time: for ranks
#: that were not yet connected, or whose full queue lost it.
MAX_SECONDS = 1.0

#: Messages that wait for one peer; a frozen one's are dropped.
NUM_WAITING = 4


class StatusTable:
    """The status table: statuses use a socket of their own, so that no vector delays them; the newest wins.

    `post`, `statuses` and `silent_seconds` are for the caller's thread, the rest for the one that owns
    the sockets. What they share are single references and array elements, written by one of the two.

    Args:
        context: Makes the sockets.
        rank: This rank.
        num_ranks: All ranks.
        host: The address that others reach this rank at.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], rank: int, num_ranks: int, host: str) -> None:
        self._rank: Final = rank
        self._token = b""
        self._telling: Final = context.socket(zmq.PUB)
        self._telling.sndhwm = NUM_WAITING
        self.listening: Final = context.socket(zmq.SUB)
        self.listening.rcvhwm = NUM_WAITING
        self.endpoint: Final = bind(self._telling, host)
        self._statuses: Final[Array] = np.zeros((num_ranks, STATUS_WIDTH))
        self._heard_at: Final[Array] = np.full(num_ranks, time.monotonic())
        self._counts = [0] * num_ranks
        self._newest: tuple[int, bytes] | None = None
        self._has_news = False
        self._min_seconds: Final = max(MIN_SECONDS, MIN_SECONDS_PER_RANK * num_ranks)
        self._pause_seconds = self._min_seconds
        self._spread_at = 0.0

    def connect(self, endpoints: Sequence[str], token: bytes) -> None:
        """Listens to the other ranks of the job that the token stands for."""
        self._token = token
        self.listening.subscribe(token)
        self.listening.ipv6 = any("[" in endpoint for endpoint in endpoints)
        for rank, endpoint in enumerate(endpoints):
            if rank != self._rank:
                self.listening.connect(endpoint)

    def post(self, status: Array) -> bool:
        """Stores this rank's status; says whether the sending thread must be woken."""
        self._statuses[self._rank] = status
        self._counts[self._rank] += 1
        self._newest = (self._counts[self._rank], np.ascontiguousarray(status, dtype=_NUMBERS).tobytes())
        # The other thread clears the flag before it reads: what comes after that is news again.
        was_reported, self._has_news = self._has_news, True
        return not was_reported

    def statuses(self) -> Array:
        """The newest known status of each rank."""
        return self._statuses.copy()

    def silent_seconds(self) -> Array:
        """Seconds since each rank last sent a status."""
        silent: Array = np.maximum(time.monotonic() - self._heard_at, 0)
        silent[self._rank] = 0
        return silent

    def seconds_until_due(self) -> float:
        """How long the sending thread may sleep."""
        if self._newest is None:
            return MAX_SECONDS
        pause_seconds = self._min_seconds if self._has_news else self._pause_seconds
        return max(0.0, self._spread_at + pause_seconds - time.monotonic())

    def spread_if_due(self) -> None:
        """Sends this rank's status to all, if it is time."""
        if self._newest is None or self.seconds_until_due() > 0:
            return
        is_news, self._has_news = self._has_news, False
        count, numbers = self._newest
        self._telling.send(self._token + _HEAD.pack(self._rank, count) + numbers, zmq.NOBLOCK)
        self._spread_at = time.monotonic()
        self._pause_seconds = self._min_seconds if is_news else min(2 * self._pause_seconds, MAX_SECONDS)

    def receive(self) -> None:
        """Stores what the others sent; a repeated status is no sign of life."""
        for _ in range(NUM_WAITING * len(self._counts)):
            try:
                message = self.listening.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            body = message[len(self._token) :]
            if len(body) != _HEAD.size + STATUS_WIDTH * _NUMBERS.itemsize:
                continue
            rank, count = _HEAD.unpack_from(body)
            if 0 <= rank < len(self._counts) and rank != self._rank and count > self._counts[rank]:
                self._counts[rank] = count
                self._statuses[rank] = np.frombuffer(body, dtype=_NUMBERS, offset=_HEAD.size)
                self._heard_at[rank] = time.monotonic()

    def close(self, linger_milliseconds: int) -> None:
        """Closes the sockets."""
        self._telling.close(linger_milliseconds)
        # What is left to send are subscriptions to ranks that are gone.
        self.listening.close(0)
