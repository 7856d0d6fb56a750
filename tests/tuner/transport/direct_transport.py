"""A transport between ranks of one process, where everything arrives at once: for tests without chance."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from tuner.transport import STATUS_WIDTH, Received, Transport
from tuner.transport.transport import Array, VectorForm


class Post:
    """What all ranks share."""

    def __init__(self, num_ranks: int) -> None:
        self.changed = threading.Condition()
        self.statuses = np.zeros((num_ranks, STATUS_WIDTH))
        self.posted_at = np.full(num_ranks, time.monotonic())
        self.published: dict[tuple[int, int], tuple[int, Tensor]] = {}
        self.pushed: list[dict[int, Received]] = [{} for _ in range(num_ranks)]
        self.questions: list[deque[Received]] = [deque() for _ in range(num_ranks)]
        self.answers: list[dict[int, Received]] = [{} for _ in range(num_ranks)]


class DirectTransport(Transport):
    """One rank's end."""

    def __init__(self, post: Post, rank: int, form: VectorForm) -> None:
        self.rank, self.num_ranks, self.moved_bytes = rank, len(post.statuses), 0
        self._post, self._form = post, form
        self._asked: set[int] = set()

    def post(self, status: Array) -> None:
        self._post.statuses[self.rank] = status
        self._post.posted_at[self.rank] = time.monotonic()

    def statuses(self) -> Array:
        return self._post.statuses.copy()

    def silent_seconds(self) -> Array:
        silent: Array = time.monotonic() - self._post.posted_at
        silent[self.rank] = 0
        return silent

    def publish(self, channel: int, vector: Tensor, tag: int) -> None:
        self._post.published[self.rank, channel] = (tag, self._form.copy_of(vector))

    def prefetch(self, rank: int, channel: int) -> None:
        """Everything is here already."""

    def fetch(self, rank: int, channel: int, out: Tensor, *, newer_than: int | None = None) -> int | None:
        tag, vector = self._post.published.get((rank, channel), (None, None))
        if tag is None or vector is None or (newer_than is not None and tag <= newer_than):
            return None
        self._form.copy(vector, out)
        self._count(rank)
        return tag

    def push(self, rank: int, vector: Tensor, tag: int) -> bool:
        self._post.pushed[rank][self.rank] = self._message(vector, tag)
        self._count(rank)
        return True

    def take_pushed(self) -> list[Received]:
        taken, self._post.pushed[self.rank] = self._post.pushed[self.rank], {}
        return [taken[sender] for sender in sorted(taken)]

    def ask(self, rank: int, vector: Tensor, tag: int) -> bool:
        if rank in self._asked:
            return False
        with self._post.changed:
            self._asked.add(rank)
            self._post.questions[rank].append(self._message(vector, tag))
            self._post.changed.notify_all()
        self._count(rank)
        return True

    def reply(self, rank: int, *, wait_seconds: float = 0.0) -> Received | None:
        answers = self._post.answers[self.rank]
        with self._post.changed:
            if not self._post.changed.wait_for(lambda: rank in answers, wait_seconds):
                return None
            self._asked.discard(rank)
            return answers.pop(rank)

    def is_asked(self, rank: int) -> bool:
        return rank in self._asked

    def next_request(self, *, wait_seconds: float = 0.0) -> Received | None:
        questions = self._post.questions[self.rank]
        with self._post.changed:
            self._post.changed.wait_for(lambda: bool(questions), wait_seconds)
            return questions.popleft() if questions else None

    def answer(self, request: Received, fill: Callable[[Tensor], None], tag: int) -> None:
        vector = self._form.new()
        fill(vector)
        with self._post.changed:
            self._post.answers[request.sender][self.rank] = self._message(vector, tag)
            self._post.changed.notify_all()
        self._count(request.sender)

    def close(self) -> None:
        """Nothing to release."""

    def _message(self, vector: Tensor, tag: int) -> Received:
        return Received(sender=self.rank, tag=tag, vector=self._form.copy_of(vector))

    def _count(self, rank: int) -> None:
        if rank != self.rank:
            self.moved_bytes += self._form.num_bytes


def direct_transports(num_ranks: int, num_elements: int) -> list[DirectTransport]:
    """The transports of all ranks."""
    post, form = Post(num_ranks), VectorForm(num_elements=num_elements, dtype=torch.float32)
    return [DirectTransport(post, rank, form) for rank in range(num_ranks)]
