"""Received messages that no caller has taken yet."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue

from tuner.transport.messages import Kind, Message
from tuner.transport.transport import Received


def received(message: Message) -> Received:
    """What the caller receives of a message."""
    assert message.vector is not None, "a message without a vector is not handed out"
    return Received(sender=message.rank, tag=message.tag, vector=message.vector)


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
        if message.kind is Kind.QUESTION:
            self._questions.put(message)
            return
        with self._changed:
            if message.kind is Kind.PUSHED:
                self._pushed[message.rank] = message
            elif message.kind is Kind.ANSWER:
                self._answers[message.rank] = message
                self._changed.notify_all()
            elif message.kind is Kind.PUBLISHED:
                key = (message.rank, message.channel)
                self._fetched_at.pop(key, None)
                self._published[key] = message
        if message.kind is Kind.PUBLISHED:
            self._count()

    def begin_fetch(self, rank: int, channel: int, expiry_seconds: float) -> int | None:
        """The number of the stored copy, or None while another one is on its way."""
        key, now = (rank, channel), time.monotonic()
        with self._changed:
            fetched_at = self._fetched_at.get(key)
            if fetched_at is not None and now - fetched_at < expiry_seconds:
                return None
            self._fetched_at[key] = now
            message = self._published.get(key)
        return message.number if message is not None else 0

    def published(self, rank: int, channel: int) -> Message | None:
        """The newest received message of a rank's channel."""
        return self._published.get((rank, channel))

    def take_pushed(self) -> list[Received]:
        """All that was pushed since the last time."""
        with self._changed:
            messages, self._pushed = self._pushed, {}
        return [received(message) for message in messages.values()]

    def take_answer(self, rank: int, number: int, wait_seconds: float) -> Received | None:
        """A rank's answer to a question, waiting for it no longer than this."""

        def is_there() -> bool:
            message = self._answers.get(rank)
            return message is not None and message.number == number

        with self._changed:
            if not self._changed.wait_for(is_there, max(wait_seconds, 0.0)):
                return None
            return received(self._answers.pop(rank))

    def take_question(self, wait_seconds: float) -> Message | None:
        """The oldest question, waiting for one no longer than this."""
        try:
            return self._questions.get(timeout=max(wait_seconds, 0.0))
        except Empty:
            return None
