"""Vectors on their way out of a rank, and when their memory may be used again."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Final

import torch
import zmq
from torch import Tensor

from tuner.transport.vector_form import VectorForm


@dataclass(eq=False, kw_only=True)
class Parcel:
    """A vector that is sent without being copied again.

    Args:
        vector: The content; written by who took the parcel, before anybody else has it.
        content: The same memory, as ZeroMQ takes it.
        num_holders: How many still need it here.
        sendings: Those ZeroMQ has not let go of.
    """

    vector: Tensor
    content: memoryview
    num_holders: int = 0
    sendings: list[zmq.MessageTracker] = field(default_factory=list)

    @property
    def is_free(self) -> bool:
        """Whether it may be written anew."""
        return self.num_holders == 0 and all(sending.done for sending in self.sendings)


class ParcelPool:
    """Makes parcels, and uses those again that nobody needs any longer.

    Fresh memory of a vector's size costs as much as copying it, since the system clears it page by page.
    A parcel is handed from thread to thread with its hold; only the count is shared, under a lock.

    Args:
        form: Of the vectors.
    """

    def __init__(self, form: VectorForm) -> None:
        self._form: Final = form
        self._lock: Final = threading.Lock()
        self._parcels: Final[list[Parcel]] = []

    def take(self, source: Tensor | None = None, *, num_holders: int = 1) -> Parcel:
        """Gives a parcel that nobody else has, with a copy of `source` in it."""
        with self._lock:
            parcel = next((parcel for parcel in self._parcels if parcel.is_free), None)
            if parcel is None:
                vector = self._form.new()
                parcel = Parcel(vector=vector, content=vector.view(torch.uint8).numpy().data)
                self._parcels.append(parcel)
            parcel.sendings.clear()
            parcel.num_holders = num_holders
        if source is not None:
            self._form.copy(source, parcel.vector)
        return parcel

    def release(self, parcel: Parcel) -> None:
        """Says that one of its holders is done with it."""
        with self._lock:
            parcel.num_holders -= 1

    def has_gone(self, parcel: Parcel, sending: zmq.MessageTracker) -> None:
        """Says that ZeroMQ has it, for a while."""
        with self._lock:
            parcel.sendings = [*(other for other in parcel.sendings if not other.done), sending]
