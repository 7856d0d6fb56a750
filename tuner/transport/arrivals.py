"""What came in and was not taken yet."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue

from tuner.transport.letters import Kind, Letter
from tuner.transport.transport import Received


def received(letter: Letter) -> Received:
    """What the caller is given of a letter."""
    assert letter.vector is not None, "a letter without a vector is not given"
    return Received(sender=letter.rank, tag=letter.tag, vector=letter.vector)


class Arrivals:
    """Where the thread that receives puts letters, and the callers' threads find them.

    Bounded: one letter for each sender's pushes, channel and answer, and one question of each asker.

    Args:
        count: Is called for each published vector that came in.
    """

    def __init__(self, count: Callable[[], None]) -> None:
        self._count = count
        self._changed = threading.Condition()
        self._pushed: dict[int, Letter] = {}
        self._published: dict[tuple[int, int], Letter] = {}
        self._answers: dict[int, Letter] = {}
        self._fetched_at: dict[tuple[int, int], float] = {}
        self._questions: SimpleQueue[Letter] = SimpleQueue()

    def put(self, letter: Letter) -> None:
        """Takes a letter that came in."""
        if letter.kind is Kind.QUESTION:
            self._questions.put(letter)
            return
        with self._changed:
            if letter.kind is Kind.PUSHED:
                self._pushed[letter.rank] = letter
            elif letter.kind is Kind.ANSWER:
                self._answers[letter.rank] = letter
                self._changed.notify_all()
            elif letter.kind is Kind.PUBLISHED:
                key = (letter.rank, letter.channel)
                self._fetched_at.pop(key, None)
                self._published[key] = letter
        if letter.kind is Kind.PUBLISHED:
            self._count()

    def begin_fetch(self, rank: int, channel: int, expiry_seconds: float) -> int | None:
        """The number of the copy at hand, if another one may be asked for: none is on its way."""
        key, now = (rank, channel), time.monotonic()
        with self._changed:
            fetched_at = self._fetched_at.get(key)
            if fetched_at is not None and now - fetched_at < expiry_seconds:
                return None
            self._fetched_at[key] = now
            letter = self._published.get(key)
        return letter.number if letter is not None else 0

    def published(self, rank: int, channel: int) -> Letter | None:
        """The newest that came in of a rank's channel."""
        return self._published.get((rank, channel))

    def take_pushed(self) -> list[Received]:
        """All that was pushed since the last time."""
        with self._changed:
            letters, self._pushed = self._pushed, {}
        return [received(letter) for letter in letters.values()]

    def take_answer(self, rank: int, number: int, wait_seconds: float) -> Received | None:
        """A rank's answer to a question, waiting for it no longer than this."""

        def is_there() -> bool:
            letter = self._answers.get(rank)
            return letter is not None and letter.number == number

        with self._changed:
            if not self._changed.wait_for(is_there, max(wait_seconds, 0.0)):
                return None
            return received(self._answers.pop(rank))

    def take_question(self, wait_seconds: float) -> Letter | None:
        """The oldest question, waiting for one no longer than this."""
        try:
            return self._questions.get(timeout=max(wait_seconds, 0.0))
        except Empty:
            return None
