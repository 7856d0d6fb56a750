"""The contract of transports: pass vectors and statuses between ranks, without matching calls."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[np.float64]

#: Numbers in a rank's status.
STATUS_WIDTH = 24

#: Channels in which a rank may publish.
NUM_CHANNELS = 3


@dataclass(frozen=True, kw_only=True)
class Received:
    """A vector that another rank pushed here, or sent with a question.

    Args:
        sender: The rank it comes from.
        tag: The number it was sent with.
        vector: Its content, on the CPU; may be a view of the transport's own memory, which is valid until the
            next call of the method that gave it, or until the request is answered.
    """

    sender: int
    tag: int
    vector: Tensor


class Transport(ABC):
    """Carries vectors of one length between the ranks of one job.

    No call waits for another rank except `reply`, and that no longer than its limit: a rank that died,
    was stopped or is slow stops nobody. All vectors have the length and type the transport was made
    with; what it gives lies on the CPU, what it is given may lie on a device. Each is one contiguous
    message. One thread of a rank uses a transport for everything but `next_request` and `answer`, which
    may be called in another one.

    Three ways of passing vectors:

    - *published*: a rank `publish`es a vector in a channel, replacing the one before; any rank `fetch`es
      the newest whole one, never a mixture of two.
    - *pushed*: `push` puts a vector into a rank's mailbox; one from the same sender that was not
      taken yet is replaced, so that a mailbox never grows; `take_pushed` gives each once.
    - *asked*: `ask` sends a vector to a rank, which finds it by `next_request` in the order of arrival and
      `answer`s it with a vector; `reply` gives the answer. One question from a rank to a rank at a time.

    A status is `STATUS_WIDTH` numbers of a rank that all others see, each number by itself: a
    reader may see some of them new and others still old.

    Attributes:
        rank: This rank.
        num_ranks: All ranks.
        moved_bytes: Bytes of vectors this rank has sent to or fetched from other ranks.
    """

    rank: int
    num_ranks: int
    moved_bytes: int

    @abstractmethod
    def post(self, status: Array) -> None:
        """Makes this rank's status `(STATUS_WIDTH,)` known to all."""

    @abstractmethod
    def statuses(self) -> Array:
        """The newest known status of every rank, `(num_ranks, STATUS_WIDTH)`; zeros where none came."""

    @abstractmethod
    def silent_seconds(self) -> Array:
        """Seconds since each rank last posted, as far as this one knows, `(num_ranks,)`.

        Its own is 0; that of a rank that never posted counts from this transport's start.
        """

    @abstractmethod
    def publish(self, channel: int, vector: Tensor, tag: int) -> None:
        """Publishes a vector in one of `NUM_CHANNELS` channels; it is copied before this returns."""

    @abstractmethod
    def prefetch(self, rank: int, channel: int) -> None:
        """Announces a `fetch` of this vector, so that the transfer may start."""

    @abstractmethod
    def fetch(self, rank: int, channel: int, out: Tensor, *, newer_than: int | None = None) -> int | None:
        """Copies what a rank published last into `out`.

        It does not wait for that rank: where messages take time, it gives what an earlier `prefetch` or
        `fetch` brought, and requests a new one.

        Args:
            rank: The rank that published; this one works too.
            channel: The channel.
            out: The tensor to copy into.
            newer_than: A tag; what is not newer is not copied.

        Returns:
            The tag it was published with; None if nothing (newer) is available.
        """

    @abstractmethod
    def push(self, rank: int, vector: Tensor, tag: int) -> bool:
        """Sends a vector to another rank's mailbox; it is copied before this returns.

        Returns:
            Whether it was sent; a full queue loses it.
        """

    @abstractmethod
    def take_pushed(self) -> list[Received]:
        """What was pushed here since the last call, at most one from each sender."""

    @abstractmethod
    def ask(self, rank: int, vector: Tensor, tag: int) -> bool:
        """Asks a rank (itself works too); the vector is copied before this returns.

        Returns:
            False, and nothing is sent, while an earlier question to that rank is unanswered.
        """

    @abstractmethod
    def reply(self, rank: int, *, wait_seconds: float = 0.0) -> Received | None:
        """The answer to the question to a rank, given once.

        Args:
            rank: The rank that was asked.
            wait_seconds: How long to wait for it at most.

        Returns:
            None while there is none; a later call may still give it.
        """

    @abstractmethod
    def is_asked(self, rank: int) -> bool:
        """Whether a question to a rank waits for its answer."""

    @abstractmethod
    def next_request(self, *, wait_seconds: float = 0.0) -> Received | None:
        """The oldest question not taken yet; taken once, it must be answered.

        Args:
            wait_seconds: How long to wait for one at most.
        """

    @abstractmethod
    def answer(self, request: Received, fill: Callable[[Tensor], None], tag: int) -> None:
        """Answers a question.

        Args:
            request: The question; its vector is valid until `fill` returns.
            fill: Writes the answer into the vector it is given, which is the message itself.
            tag: A number that goes with it.
        """

    @abstractmethod
    def close(self) -> None:
        """Releases everything; other ranks are not disturbed, and see this one fall silent."""


@dataclass(frozen=True, kw_only=True)
class VectorForm:
    """Length and type of a job's vectors.

    Args:
        num_elements: At least 1.
        dtype: A real floating type.
    """

    num_elements: int
    dtype: torch.dtype

    def __post_init__(self) -> None:
        if self.num_elements < 1:
            raise ValueError(f"num_elements={self.num_elements}: a vector has at least 1 element")
        if not self.dtype.is_floating_point:
            raise ValueError(f"dtype={self.dtype}: vectors have a floating type, for instance torch.float32")

    @property
    def num_bytes(self) -> int:
        """Size of one vector."""
        return self.num_elements * self.dtype.itemsize

    def new(self) -> Tensor:
        """An uninitialized vector."""
        return torch.empty(self.num_elements, dtype=self.dtype)

    def copy_of(self, source: Tensor) -> Tensor:
        """A new vector on the CPU with this content."""
        copy = self.new()
        self.copy(source, copy)
        return copy

    def view(self, buffer: Any) -> Tensor:
        """The vector that lies in a buffer; it keeps the buffer alive."""
        return torch.frombuffer(buffer, dtype=self.dtype, count=self.num_elements)

    def copy(self, source: Tensor, target: Tensor) -> None:
        """Copies a vector once, outside of what autograd records."""
        assert source.dtype == target.dtype == self.dtype, "a transport's vectors are of one type"
        assert source.numel() == target.numel() == self.num_elements, (
            "a transport's vectors are of one length"
        )
        # From a device it is waited for: the target is ordinary memory.
        assert target.device.type == "cpu", "a transport's own vectors lie on the CPU"
        target.detach().copy_(source.detach())
