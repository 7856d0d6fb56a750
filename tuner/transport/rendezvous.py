"""Lets ranks find each other: their key-value store, process group, devices and network addresses."""

from __future__ import annotations

import ipaddress
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

# `torch.distributed` has them too, but does not say so to type checkers.
from torch._C._distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from tuner.domain.errors import ProbeError

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = [
    "LOOPBACK",
    "SAME_HOST",
    "PrefixStore",
    "Store",
    "broadcast_text",
    "exchange",
    "gathered",
    "is_loopback",
    "meeting_store",
    "own_address",
    "process_group",
    "rank_device",
]

LOOPBACK = "127.0.0.1"

#: Used in place of an address if all ranks are on this host. On Linux the ranks then connect by Unix sockets
#: with abstract names, which disappear with their process; on other systems by the loopback address.
SAME_HOST = "ipc" if sys.platform == "linux" else LOOPBACK

#: An address that no host has (RFC 5737). The route to it is the route from this host to other networks.
ELSEWHERE = "192.0.2.1"


def rank_device(local_rank: int, *, is_shared: bool = False) -> torch.device:
    """Returns the device of this rank: an accelerator, or the CPU if the host has no accelerator.

    Args:
        local_rank: Index of this rank among the ranks of this host.
        is_shared: Whether ranks may share an accelerator if this host has more ranks than accelerators.

    Raises:
        ProbeError: The host has accelerators, but fewer than ranks, and `is_shared` is False.
    """
    if not torch.accelerator.is_available():
        return torch.device("cpu")
    accelerator = torch.accelerator.current_accelerator()
    assert accelerator is not None
    count = torch.accelerator.device_count()
    if is_shared:
        local_rank %= count
    if local_rank >= count:
        raise ProbeError(
            f"each rank needs its own device, and {local_rank + 1} ranks or more run on this host, but torch "
            f"sees {count} x {accelerator.type}: lower cluster.nodes or cluster.devices_per_node, or "
            "hide the devices to train on the CPU"
        )
    torch.accelerator.set_device_index(local_rank)
    return torch.device(accelerator.type, local_rank)


def meeting_store(init_method: str, *, rank: int, num_ranks: int) -> Store:
    """Returns the key-value store in which ranks without a process group exchange addresses at start-up.

    Args:
        init_method: URL of the meeting point (see `torch.distributed.init_process_group`).
        rank: Index of this rank.
        num_ranks: Number of ranks of the job.
    """
    store, _, _ = next(iter(rendezvous(init_method, rank=rank, world_size=num_ranks)))
    found: Store = store
    return found


@contextmanager
def process_group(
    init_method: str, *, rank: int, num_ranks: int, device: torch.device, timeout_seconds: float
) -> Iterator[ProcessGroup | None]:
    """Context manager that creates a process group of all ranks of the job, and destroys it at the end.

    It yields None if there is only one rank. Tensors on an accelerator use the device's own backend (NCCL
    with CUDA), tensors on the CPU use gloo. The end of the context closes this rank's connections: if this
    rank has failed, the other ranks notice it at once.

    Delete every model wrapped in `DistributedDataParallel` before the context ends. If the wrapper has the
    last reference to a gloo group, destroying the group deadlocks: it waits for a thread that needs the
    interpreter lock, and holds this lock (seen with torch 2.13).

    Args:
        init_method: URL of the meeting point (see `torch.distributed.init_process_group`).
        rank: Index of this rank.
        num_ranks: Number of ranks of the job.
        device: This rank's device.
        timeout_seconds: How long a collective waits for the slowest rank.
    """
    if num_ranks == 1:
        yield None
        return
    backend = "gloo"
    if device.type != "cpu":
        backend = f"cpu:gloo,{device.type}:{dist.get_default_backend_for_device(device)}"
    dist.init_process_group(
        backend,
        init_method=init_method,
        timeout=timedelta(seconds=timeout_seconds),
        rank=rank,
        world_size=num_ranks,
        device_id=None if device.type == "cpu" else device,
    )
    try:
        yield dist.group.WORLD
    finally:
        dist.destroy_process_group()


def exchange(store: Store, name: str, *, rank: int, num_ranks: int, value: str) -> list[str]:
    """Waits until every rank has passed one text, and returns these texts in the order of ranks.

    Args:
        store: The key-value store that all ranks share.
        name: Prefix of the keys; the same on all ranks, and not used before in this store.
        rank: Index of this rank.
        num_ranks: Number of ranks.
        value: The text of this rank.

    Raises:
        torch.distributed.DistStoreError: A rank did not set its value within the store's time limit.
    """
    keys = [f"{name}/{other}" for other in range(num_ranks)]
    store.set(keys[rank], value)
    store.wait(keys)
    return [store.get(key).decode() for key in keys]


def gathered(own: bytes, group: ProcessGroup, *, rank: int) -> list[bytes]:
    """Sends the bytes of each rank to rank 0, as tensors; all ranks must call this function.

    Args:
        own: The bytes of this rank.
        group: Process group of all ranks, with a backend for tensors on the CPU.
        rank: Index of this rank.

    Returns:
        On rank 0, the bytes of all ranks in the order of ranks; on other ranks, an empty list.
    """
    sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(group.size())]
    dist.all_gather(sizes, torch.tensor([len(own)]), group=group)
    padded = torch.zeros(max(int(size) for size in sizes), dtype=torch.uint8)
    padded[: len(own)] = _tensor(own)
    received = [torch.empty_like(padded) for _ in sizes] if rank == 0 else None
    dist.gather(padded, received, dst=0, group=group)
    return [
        tensor[: int(size)].numpy().tobytes() for tensor, size in zip(received or (), sizes, strict=False)
    ]


def broadcast_text(text: str, group: ProcessGroup) -> str:
    """Sends a text from rank 0 to all ranks, as tensors, and returns it; all ranks must call this function.

    Args:
        text: The text on rank 0; other ranks may pass any text.
        group: Process group of all ranks, with a backend for tensors on the CPU.
    """
    content = _tensor(text.encode())
    size = torch.tensor([len(content)])
    dist.broadcast(size, src=0, group=group)
    if not int(size):
        return ""
    if len(content) != int(size):
        content = torch.empty(int(size), dtype=torch.uint8)
    dist.broadcast(content, src=0, group=group)
    return content.numpy().tobytes().decode()


def _tensor(data: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(data, dtype=np.uint8).copy())


def is_loopback(host: str) -> bool:
    """Whether `host` is the name or the address of the loopback interface."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def own_address(store: Store) -> str:
    """Returns the network address at which other ranks reach this rank.

    - If the store's host is this host's loopback address: the loopback address.
    - If the store has another host: this host's address on the route to that host.
    - If the store has no host, or no such address is found: this host's address on the route to other
      networks.
    - If that is not found either: the loopback address; all ranks must then be on this host.
    """
    while isinstance(store, PrefixStore):
        store = store.underlying_store
    # Stores in files and in memory have no attribute `host`.
    host = str(getattr(store, "host", ELSEWHERE))
    if is_loopback(host):
        return LOOPBACK
    for target in (host, ELSEWHERE):
        found = _source_address(target)
        # Debian maps a host's own name to 127.0.1.1, which other hosts cannot reach.
        if found is not None and not is_loopback(found):
            return found
    return LOOPBACK


def _source_address(target: str) -> str | None:
    """Returns this host's address on the route to `target`; None if there is no route.

    The function connects a datagram socket to `target` to learn the route; this sends nothing.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(target, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(address)
            return str(probe.getsockname()[0])
    except OSError:
        return None
