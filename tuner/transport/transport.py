"""The interface of transports, which send vectors and statuses between the ranks of one job.

Terms used here and in the implementations:

- *vector*: one contiguous tensor, usually all trainable parameters of a model or an update of them.
- *tag*: a number that the sender attaches to a vector, for instance its step.
- *publish*: a rank makes a vector available under a channel number; other ranks fetch a copy when they want
  one.
- *push*: a rank sends a vector to another rank's mailbox, unasked.
- *request* and *reply*: a rank sends a vector to another rank (`ask`), which sends a vector back (`answer`).
- *status*: a few numbers by which each rank tells all others how far it is.

No call needs a matching call on the other rank at the same time.
"""

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

#: Number of values in the status of a rank.
STATUS_WIDTH = 24

#: Number of channels in which a rank can publish vectors; channel numbers start at 0.
NUM_CHANNELS = 3


@dataclass(frozen=True, kw_only=True)
class Received:
    """A vector received from another rank: pushed to this rank, sent with a request, or sent as a reply.

    Args:
        sender: The rank that sent the vector.
        tag: The number that the sender attached to the vector.
        vector: The vector, on the CPU. It may be a view of the transport's own memory. The view of a pushed
            vector or of a reply is valid until the next call of the method that returned it; the view of a
            request's vector is valid until the request is answered.
    """

    sender: int
    tag: int
    vector: Tensor


class Transport(ABC):
    """Sends vectors of one length and statuses between the ranks of one job.

    Rules for vectors:

    - All vectors have the length and dtype that the transport was created with.
    - Vectors passed to a method may be on any device. Vectors returned are on the CPU.
    - A received vector is always complete, never a mixture of two vectors.

    Three ways to send a vector:

    - Publish and fetch: `publish` makes a vector available in a channel and replaces the previous vector of
      that channel. Any rank can copy the newest one by `fetch`.
    - Push: `push` sends a vector to another rank's mailbox, and `take_pushed` empties the mailbox. A mailbox
      contains at most one vector per sender: a newer vector replaces one that was not taken yet.
    - Request and reply: `ask` sends a vector to another rank. That rank takes requests by `next_request`, in
      order of arrival, and sends a vector back by `answer`. `reply` returns this vector to the asking rank. A
      rank can have one unanswered request to each rank.

    Rules for waiting and threads:

    - Only `reply` and `next_request` wait for other ranks, at most for their `wait_seconds`. A rank that has
      died or is slow blocks no other rank.
    - `next_request` and `answer` may be called from a second thread; all other methods belong to one thread.

    A status is `STATUS_WIDTH` numbers. Each number is updated by itself: a reader may see some new numbers
    and some old ones.

    Attributes:
        rank: Index of this rank.
        num_ranks: Number of ranks of the job.
        moved_bytes: Bytes of vectors that this rank has sent to other ranks or fetched from them.
    """

    rank: int
    num_ranks: int
    moved_bytes: int

    @abstractmethod
    def post(self, status: Array) -> None:
        """Sends this rank's status `(STATUS_WIDTH,)` to all other ranks."""

    @abstractmethod
    def statuses(self) -> Array:
        """Returns the newest received status of every rank, `(num_ranks, STATUS_WIDTH)`.

        The row of a rank from which no status has arrived is zero.
        """

    @abstractmethod
    def silent_seconds(self) -> Array:
        """Returns the seconds since the newest status of each rank arrived here, `(num_ranks,)`.

        The value for this rank itself is 0. For a rank from which no status has arrived yet, the time counts
        from the creation of this transport.
        """

    @abstractmethod
    def publish(self, channel: int, vector: Tensor, tag: int) -> None:
        """Makes a copy of `vector` available to all ranks; replaces the previous vector of the channel.

        Args:
            channel: Channel number, below `NUM_CHANNELS`.
            vector: The vector; the caller may change it after the call.
            tag: A number to attach, which `fetch` returns.
        """

    @abstractmethod
    def prefetch(self, rank: int, channel: int) -> None:
        """Starts the transfer of the vector that `rank` published in `channel`, for a later `fetch`."""

    @abstractmethod
    def fetch(self, rank: int, channel: int, out: Tensor, *, newer_than: int | None = None) -> int | None:
        """Copies the newest available vector that a rank published in a channel into `out`.

        The call does not wait for the other rank. It copies the vector that an earlier `prefetch` or `fetch`
        has transferred, and starts the next transfer.

        Args:
            rank: The rank that published the vector; may be this rank.
            channel: Number of the channel in which the vector was published.
            out: The tensor to copy into.
            newer_than: If given, only a vector with a larger tag is copied.

        Returns:
            The tag of the copied vector; None if no vector was copied.
        """

    @abstractmethod
    def push(self, rank: int, vector: Tensor, tag: int) -> bool:
        """Sends a copy of a vector to another rank's mailbox.

        Returns:
            Whether the vector was sent. It is lost if the queue to that rank is full.
        """

    @abstractmethod
    def take_pushed(self) -> list[Received]:
        """Returns the vectors pushed to this rank since the last call, at most one per sender."""

    @abstractmethod
    def ask(self, rank: int, vector: Tensor, tag: int) -> bool:
        """Sends a request with a copy of a vector to a rank, which may be this rank itself.

        Returns:
            Whether the request was sent. It is not sent while an earlier request to that rank is unanswered.
        """

    @abstractmethod
    def reply(self, rank: int, *, wait_seconds: float = 0.0) -> Received | None:
        """Returns the reply to this rank's request to `rank`. Each reply is returned once.

        Args:
            rank: The rank that the request was sent to.
            wait_seconds: Longest time to wait for the reply, in seconds.

        Returns:
            The reply; None if it has not arrived yet. A later call may return it.
        """

    @abstractmethod
    def is_asked(self, rank: int) -> bool:
        """Whether a request from this rank to `rank` is unanswered."""

    @abstractmethod
    def next_request(self, *, wait_seconds: float = 0.0) -> Received | None:
        """Returns the oldest request to this rank that no call has returned yet; None if there is none.

        The caller must answer it by `answer`.

        Args:
            wait_seconds: Longest time to wait for a request, in seconds.
        """

    @abstractmethod
    def answer(self, request: Received, fill: Callable[[Tensor], None], tag: int) -> None:
        """Sends a reply to a request.

        Args:
            request: The request, from `next_request`; its vector is valid until `fill` returns.
            fill: Function that writes the reply into the vector it is called with. That vector is sent
                without another copy.
            tag: A number to attach to the reply.
        """

    @abstractmethod
    def close(self) -> None:
        """Closes all connections. Other ranks continue, but no longer receive statuses of this rank."""


@dataclass(frozen=True, kw_only=True)
class VectorForm:
    """Length and dtype of all vectors of a job.

    Args:
        num_elements: Number of elements of a vector, at least 1.
        dtype: Floating-point dtype of the elements.
    """

    num_elements: int
    dtype: torch.dtype

    def __post_init__(self) -> None:
        if self.num_elements < 1:
            raise ValueError(f"num_elements={self.num_elements}: a vector must have at least 1 element")
        if not self.dtype.is_floating_point:
            raise ValueError(
                f"dtype={self.dtype}: vectors must have a floating-point dtype, such as torch.float32"
            )

    @property
    def num_bytes(self) -> int:
        """Size of one vector, in bytes."""
        return self.num_elements * self.dtype.itemsize

    def new(self) -> Tensor:
        """Returns a new, uninitialized vector on the CPU."""
        return torch.empty(self.num_elements, dtype=self.dtype)

    def copy_of(self, source: Tensor) -> Tensor:
        """Returns a copy of `source` on the CPU."""
        copy = self.new()
        self.copy(source, copy)
        return copy

    def view(self, buffer: Any) -> Tensor:
        """Returns the content of a buffer as a vector without a copy; the vector keeps the buffer alive."""
        return torch.frombuffer(buffer, dtype=self.dtype, count=self.num_elements)

    def copy(self, source: Tensor, target: Tensor) -> None:
        """Copies `source` into `target`, which is on the CPU, without recording it for autograd."""
        assert source.dtype == target.dtype == self.dtype, "the vector's dtype differs from the transport's"
        assert source.numel() == target.numel() == self.num_elements, (
            "the vector's length differs from the transport's"
        )
        # A copy from a device is finished when this returns, because the target is not pinned memory.
        assert target.device.type == "cpu", "a vector can only be copied to a tensor on the CPU"
        target.detach().copy_(source.detach())
