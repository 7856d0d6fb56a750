"""Where a rank listens, and the address under which others reach it."""

from __future__ import annotations

import ipaddress
import socket

import zmq

# `torch.distributed` has them too, but does not say so to type checkers.
from torch._C._distributed_c10d import PrefixStore, Store

__all__ = ["LOOPBACK", "PrefixStore", "Store", "bind", "exchange", "is_loopback", "own_address"]

LOOPBACK = "127.0.0.1"

#: An address that nobody has (RFC 5737): the way there is the way out of this host.
ELSEWHERE = "192.0.2.1"


def is_loopback(host: str) -> bool:
    """Whether a host's name or address is this host's own, inwards."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def own_address(store: Store) -> str:
    """The address that this rank's packets to the other ranks come from.

    It is that of the way to the store's host if the store is reached over TCP, else that of the way out of
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
    """Has a socket listen at a free port; gives the endpoint that others connect to.

    It listens at that address alone, unless that is not one of this host's own (a translated one, or a
    name): then at all.
    """
    bracketed = f"[{host}]" if ":" in host else host
    listening.ipv6 = ":" in host
    try:
        listening.bind(f"tcp://{bracketed}:*")
    except zmq.ZMQError:
        listening.bind("tcp://*:*")
    port = listening.getsockopt_string(zmq.LAST_ENDPOINT).rpartition(":")[2].rstrip("\0")
    return f"tcp://{bracketed}:{port}"


def exchange(store: Store, name: str, *, rank: int, num_ranks: int, value: str) -> list[str]:
    """Gives the values of all ranks, in their order, once all have given theirs.

    Raises:
        torch.distributed.DistStoreError: A rank did not come within the store's time limit.
    """
    keys = [f"{name}/{other}" for other in range(num_ranks)]
    store.set(keys[rank], value)
    store.wait(keys)
    return [store.get(key).decode() for key in keys]
