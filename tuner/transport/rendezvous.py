"""Rendezvous of ranks: the store where they meet, their process group, and the addresses they listen at."""

from __future__ import annotations

import ipaddress
import secrets
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
import zmq

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
    "bind",
    "exchange",
    "is_loopback",
    "meeting_store",
    "own_address",
    "process_group",
    "rank_device",
]

LOOPBACK = "127.0.0.1"

#: In place of an address: only ranks of this host connect, through Unix sockets where names of sockets
#: disappear with their process.
SAME_HOST = "ipc" if sys.platform == "linux" else LOOPBACK

#: An address that nobody has (RFC 5737): the way there is the way out of this host.
ELSEWHERE = "192.0.2.1"


def rank_device(local_rank: int, *, is_shared: bool = False) -> torch.device:
    """This rank's device: its own accelerator, or the CPU if the host has none.

    Args:
        local_rank: Place among the ranks of this host.
        is_shared: Whether several ranks may use one accelerator if there are too few.

    Raises:
        ProbeError: There are accelerators, but not one for this rank.
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
            f"a rank needs a device of its own, and {local_rank + 1} ranks of this host are running, but "
            f"torch sees {count} x {accelerator.type}: lower cluster.nodes or cluster.devices_per_node, or "
            "hide the devices to train on the CPU"
        )
    torch.accelerator.set_device_index(local_rank)
    return torch.device(accelerator.type, local_rank)


def meeting_store(init_method: str, *, rank: int, num_ranks: int) -> Store:
    """The store in which ranks without a process group exchange addresses while they start."""
    store, _, _ = next(iter(rendezvous(init_method, rank=rank, world_size=num_ranks)))
    found: Store = store
    return found


@contextmanager
def process_group(
    init_method: str, *, rank: int, num_ranks: int, device: torch.device, timeout_seconds: float
) -> Iterator[ProcessGroup | None]:
    """All ranks of the job as a process group; None for one rank, which needs none.

    Gradients go over the device's own backend (gloo on the CPU, NCCL with CUDA), control messages
    over gloo. Leaving it closes this rank's connections, so that the others of a failed one learn
    of it at once. Models wrapped for the group must be deleted by then: if the wrapper has the last
    reference to a gloo group, the group's end waits for a thread while it holds the interpreter lock that
    the thread needs (seen with torch 2.13).

    Args:
        init_method: Where the ranks meet (see `torch.distributed.init_process_group`).
        rank: This rank.
        num_ranks: All ranks.
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
    """Exchanges a value of each rank: waits for all of them, and returns them in the order of ranks.

    Raises:
        torch.distributed.DistStoreError: A rank did not come within the store's time limit.
    """
    keys = [f"{name}/{other}" for other in range(num_ranks)]
    store.set(keys[rank], value)
    store.wait(keys)
    return [store.get(key).decode() for key in keys]


def is_loopback(host: str) -> bool:
    """Whether a host's name or address reaches only the host itself."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def own_address(store: Store) -> str:
    """The address that this rank's packets to the other ranks come from.

    If the store is reached over TCP, that of the route to the store's host, else that of the route out of
    this host; if there is none, the ranks must be on this host.
    """
    while isinstance(store, PrefixStore):
        store = store.underlying_store
    # Read from the object: stores in files and in memory have no host.
    host = str(getattr(store, "host", ELSEWHERE))
    if is_loopback(host):
        return LOOPBACK
    for target in (host, ELSEWHERE):
        found = _source_address(target)
        # Debian maps a host's own name to 127.0.1.1: no address for others.
        if found is not None and not is_loopback(found):
            return found
    return LOOPBACK


def _source_address(target: str) -> str | None:
    """This host's address on the route to another host; connecting a datagram socket sends nothing."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(target, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(address)
            return str(probe.getsockname()[0])
    except OSError:
        return None


def bind(listening: zmq.Socket[bytes], host: str) -> str:
    """Binds a socket to a free port of an address; returns the endpoint that others connect to.

    It listens at that address alone, unless this host does not have it (a translated one, or a name): then
    at all addresses.

    Args:
        listening: The socket.
        host: The address, or `SAME_HOST`.
    """
    if host == "ipc":
        # An abstract name, which disappears with its process.
        endpoint = f"ipc://@paceline-{secrets.token_hex(16)}"
        listening.bind(endpoint)
        return endpoint
    bracketed = f"[{host}]" if ":" in host else host
    listening.ipv6 = ":" in host
    try:
        listening.bind(f"tcp://{bracketed}:*")
    except zmq.ZMQError:
        listening.bind("tcp://*:*")
    port = listening.getsockopt_string(zmq.LAST_ENDPOINT).rpartition(":")[2].rstrip("\0")
    return f"tcp://{bracketed}:{port}"
