"""Defines the binary form of messages between ranks, and the store of received messages.

`Transport` explains the terms: a rank publishes vectors for others to fetch, pushes vectors to mailboxes, and
sends requests, which the other rank answers by a reply.
"""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from queue import Empty, SimpleQueue

import torch
import zmq
from torch import Tensor

from tuner.transport.transport import Received, VectorForm

_HEAD = struct.Struct("<BBqq")


class Kind(IntEnum):
    """Kinds of messages.

    FETCH asks for a vector that the receiver published; PUBLISHED contains it. PUSHED contains a vector for
    the receiver's mailbox; ARRIVED confirms it to the sender. QUESTION is a request; ANSWER is the reply to
    it.
    """

    FETCH = 0
    PUBLISHED = 1
    PUSHED = 2
    ARRIVED = 3
    QUESTION = 4
    ANSWER = 5


_KINDS = frozenset(Kind)
_KINDS_WITHOUT_VECTOR = frozenset({Kind.FETCH, Kind.ARRIVED})


@dataclass(frozen=True, kw_only=True)
class Message:
    """One message between two ranks.

    Args:
        kind: Kind of the message.
        rank: The other rank: the receiver of a message to send, the sender of a received message.
        channel: Channel number of the published vector, for `FETCH` and `PUBLISHED`; 0 otherwise.
        number: Serial number. A sender counts the vectors it publishes in each channel, and its pushes and
            requests to each rank. `ARRIVED` and `ANSWER` repeat the number of the message that they respond
            to. In `FETCH`: the number of the newest published vector that the fetching rank already has.
        tag: The number that the sender attached to the vector.
        vector: The vector; None for kinds without one. It must not change after the message was created,
            because it is sent without a copy.
    """

    kind: Kind
    rank: int
    channel: int = 0
    number: int = 0
    tag: int = 0
    vector: Tensor | None = None

    @property
    def place(self) -> tuple[Kind, int, int]:
        """Key of the message in a queue of unsent messages: a newer message with the same key replaces it."""
        return (self.kind, self.rank, self.channel)

    def parts(self, frame_bytes: int) -> list[bytes | memoryview]:
        """Returns the message as the frames of a ZeroMQ multipart message, each of at most `frame_bytes`."""
        head = _HEAD.pack(self.kind, self.channel, self.number, self.tag)
        if self.vector is None:
            return [head]
        content = self.vector.view(torch.uint8).numpy().data
        starts = range(0, len(content), frame_bytes)
        return [head, *(content[start : start + frame_bytes] for start in starts)]

    @classmethod
    def parsed(cls, parts: list[zmq.Frame], rank: int, form: VectorForm) -> Message | None:
        """Parses the frames that were received from a rank; returns None if they are not a valid message."""
        if not parts or len(parts[0].buffer) != _HEAD.size:
            return None
        kind, channel, number, tag = _HEAD.unpack(parts[0].buffer)
        if kind not in _KINDS or (len(parts) == 1) != (kind in _KINDS_WITHOUT_VECTOR):
            return None
        vector = None
        if len(parts) > 1:
            buffers = [part.buffer for part in parts[1:]]
            if sum(len(buffer) for buffer in buffers) != form.num_bytes:
                return None
            vector = form.view(buffers[0]) if len(buffers) == 1 else None
            if vector is None or vector.data_ptr() % form.dtype.itemsize:
                vector = form.view(bytearray().join(buffers))
        return cls(kind=Kind(kind), rank=rank, channel=channel, number=number, tag=tag, vector=vector)

    def received(self) -> Received:
        """Returns the message as a `Received` object, the form in which callers of `Transport` get it."""
        assert self.vector is not None, "a message that is passed to a caller must have a vector"
        return Received(sender=self.rank, tag=self.tag, vector=self.vector)


class Arrivals:
    """Thread-safe store of received messages: the I/O thread adds them, the threads of callers take them.

    Its size is bounded. For each sender it stores at most one pushed vector, one reply, one published vector
    per channel, and one request.

    Args:
        count: Function that counts the transferred bytes; called once for each published vector that arrives.
    """

    def __init__(self, count: Callable[[], None]) -> None:
        self._count = count
        self._changed = threading.Condition()
        self._pushed: dict[int, Message] = {}
        self._published: dict[tuple[int, int], Message] = {}
        self._answers: dict[int, Message] = {}
        self._fetched_at: dict[tuple[int, int], float] = {}
        self._questions: SimpleQueue[Message] = SimpleQueue()

    def put(self, message: Message) -> None:
        """Stores a received message until a caller takes it."""
        with self._changed:
            match message.kind:
                case Kind.QUESTION:
                    self._questions.put(message)
                case Kind.PUSHED:
                    self._pushed[message.rank] = message
                case Kind.ANSWER:
                    self._answers[message.rank] = message
                    self._changed.notify_all()
                case Kind.PUBLISHED:
                    key = (message.rank, message.channel)
                    self._fetched_at.pop(key, None)
                    self._published[key] = message
                    self._count()

    def begin_fetch(self, rank: int, channel: int, expiry_seconds: float) -> int | None:
        """Records that a fetch of a published vector starts, unless one is in flight.

        Args:
            rank: The rank that published the vector.
            channel: Number of the channel in which the vector was published.
            expiry_seconds: A fetch that has no result after this time counts as lost, so that another fetch
                may start.

        Returns:
            The number of the published vector that is stored here, 0 for none; None if a fetch is in flight.
        """
        key, now = (rank, channel), time.monotonic()
        with self._changed:
            fetched_at = self._fetched_at.get(key)
            if fetched_at is not None and now - fetched_at < expiry_seconds:
                return None
            self._fetched_at[key] = now
            message = self._published.get(key)
        return message.number if message is not None else 0

    def published(self, rank: int, channel: int) -> Message | None:
        """Returns the newest vector from a channel of another rank; None if no vector has arrived from it."""
        return self._published.get((rank, channel))

    def take_pushed(self) -> list[Received]:
        """Removes and returns all pushed vectors, at most one from each sender."""
        with self._changed:
            messages, self._pushed = self._pushed, {}
        return [message.received() for message in messages.values()]

    def take_answer(self, rank: int, number: int, wait_seconds: float) -> Received | None:
        """Removes and returns a rank's reply to the request that has this number; waits for the reply.

        The result is None if the reply does not arrive within `wait_seconds`.
        """

        def is_there() -> bool:
            message = self._answers.get(rank)
            return message is not None and message.number == number

        with self._changed:
            if not self._changed.wait_for(is_there, max(wait_seconds, 0.0)):
                return None
            return self._answers.pop(rank).received()

    def take_question(self, wait_seconds: float) -> Message | None:
        """Removes and returns the oldest request; None if no request arrives within `wait_seconds`."""
        try:
            return self._questions.get(timeout=max(wait_seconds, 0.0))
        except Empty:
            return None
