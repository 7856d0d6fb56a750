"""Which transport a job's ranks use."""

from __future__ import annotations

import torch

from tuner.transport.addresses import LOOPBACK
from tuner.transport.meeting import Store
from tuner.transport.memory_order import shared_memory_is_safe
from tuner.transport.shared_memory import SharedMemoryTransport
from tuner.transport.transport import Transport
from tuner.transport.zmq_transport import MessageTransport


def open_transport(
    store: Store,
    *,
    rank: int,
    num_ranks: int,
    num_elements: int,
    dtype: torch.dtype,
    one_host: bool,
    host: str | None = None,
) -> Transport:
    """Opens a job's transport; returns when all ranks have come.

    Args:
        store: Where the ranks meet; used only here, and fresh for each job.
        rank: This rank.
        num_ranks: All ranks.
        num_elements: Length of all vectors.
        dtype: Their floating type.
        one_host: Whether all ranks run on one host, as one user, and see each other's processes; the same
            on all ranks.
        host: The address that others reach this rank at, where messages pass; found if not given.

    Returns:
        One through shared memory on one host, if its machine lets that be safe; else one by messages.
    """
    if one_host and shared_memory_is_safe():
        return SharedMemoryTransport(
            store, rank=rank, num_ranks=num_ranks, num_elements=num_elements, dtype=dtype
        )
    if host is None and one_host:
        host = LOOPBACK
    return MessageTransport(
        store, rank=rank, num_ranks=num_ranks, num_elements=num_elements, dtype=dtype, host=host
    )
