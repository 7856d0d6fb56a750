"""Messages between ranks, and the received ones that no caller has taken yet."""

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
    """What a message is about."""

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
        kind: What it is about.
        rank: The rank that it is for, or comes from.
        channel: Of `FETCH` and `PUBLISHED`.
        number: Of the publication, push or question, counted by its sender; with `FETCH`, the newest
            publication that the sender has.
        tag: The number that the sender gave to the vector.
        vector: Its content; nobody changes it once the message exists, so that it is sent without a copy.
    """

    kind: Kind
    rank: int
    channel: int = 0
    number: int = 0
    tag: int = 0
    vector: Tensor | None = None

    @property
    def place(self) -> tuple[Kind, int, int]:
        """A message replaces an older one of the same place that was not sent yet."""
        return (self.kind, self.rank, self.channel)

    def parts(self) -> list[bytes | memoryview]:
        """The message as ZeroMQ sends it."""
        head = _HEAD.pack(self.kind, self.channel, self.number, self.tag)
        return [head] if self.vector is None else [head, self.vector.view(torch.uint8).numpy().data]

    @classmethod
    def parsed(cls, parts: list[zmq.Frame], rank: int, form: VectorForm) -> Message | None:
        """The message in the parts received from a rank; None if they are not one."""
        if len(parts) not in (1, 2) or len(parts[0].buffer) != _HEAD.size:
            return None
        kind, channel, number, tag = _HEAD.unpack(parts[0].buffer)
        if kind not in _KINDS or (len(parts) == 1) != (kind in _KINDS_WITHOUT_VECTOR):
            return None
        vector = None
        if len(parts) == 2:
            if len(parts[1].buffer) != form.num_bytes:
                return None
            vector = form.view(parts[1].buffer)
            if vector.data_ptr() % form.dtype.itemsize:
                vector = form.view(bytearray(parts[1].buffer))
        return cls(kind=Kind(kind), rank=rank, channel=channel, number=number, tag=tag, vector=vector)

    def received(self) -> Received:
        """The message as callers see it."""
        assert self.vector is not None, "callers receive only messages with a vector"
        return Received(sender=self.rank, tag=self.tag, vector=self.vector)


class Arrivals:
    """Where the I/O thread puts received messages and the callers' threads find them.

    Bounded: one message for each sender's pushes, channel and answer, and one question of each asker.

    Args:
        count: Called for each published vector that came in.
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
        """Stores a received message."""
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
        """The number of the stored publication, 0 for none; None while a newer one is being fetched."""
        key, now = (rank, channel), time.monotonic()
        with self._changed:
            fetched_at = self._fetched_at.get(key)
            if fetched_at is not None and now - fetched_at < expiry_seconds:
                return None
            self._fetched_at[key] = now
            message = self._published.get(key)
        return message.number if message is not None else 0

    def published(self, rank: int, channel: int) -> Message | None:
        """The newest received publication of a rank in a channel."""
        return self._published.get((rank, channel))

    def take_pushed(self) -> list[Received]:
        """All pushes since the last call, at most one from each sender."""
        with self._changed:
            messages, self._pushed = self._pushed, {}
        return [message.received() for message in messages.values()]

    def take_answer(self, rank: int, number: int, wait_seconds: float) -> Received | None:
        """A rank's answer to the question of this number; None if it does not arrive in time."""

        def is_there() -> bool:
            message = self._answers.get(rank)
            return message is not None and message.number == number

        with self._changed:
            if not self._changed.wait_for(is_there, max(wait_seconds, 0.0)):
                return None
            return self._answers.pop(rank).received()

    def take_question(self, wait_seconds: float) -> Message | None:
        """The oldest question; None if none arrives in time."""
        try:
            return self._questions.get(timeout=max(wait_seconds, 0.0))
        except Empty:
            return None
