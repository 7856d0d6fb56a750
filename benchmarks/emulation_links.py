"""Ranks that reach each other as those of several hosts do: by messages over TCP, and over slowed links.

With `SlowLinks` each rank has a network namespace of its own, whose link lets so many bits a second out and
so many in (`tc tbf`). A rank's process enters its namespace before it does anything else.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tuner.launchers import JobHandle, LocalLauncher, RankContext, RankTask

_LOOPBACK = "127.0.0.1"
_INTERFACE = "eth0"
_NEW_NETWORK = 0x40000000
#: Little passes at once: a larger burst lets small vectors through unslowed.
_BURST, _LONGEST_QUEUE = "2kb", "2s"


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a rank is.

    Args:
        namespace: File of its network namespace.
        host: Its address there.
    """

    namespace: str
    host: str


class MessagesLauncher(LocalLauncher):
    """Starts ranks of this host that pass messages over TCP where they would share memory.

    Args:
        places: Namespaces by rank; none for the loopback interface.
    """

    def __init__(self, places: tuple[Place, ...] = ()) -> None:
        super().__init__()
        self._places = places

    def submit(self, task: RankTask, *, num_nodes: int, devices_per_node: int) -> JobHandle:
        payload = {
            "function": task.function,
            "payload": dict(task.payload),
            "places": [[place.namespace, place.host] for place in self._places],
        }
        asynchronous = replace(task, function="benchmarks.emulation_links:run_asynchronous", payload=payload)
        return super().submit(asynchronous, num_nodes=num_nodes, devices_per_node=devices_per_node)


def run_asynchronous(context: RankContext, payload: Mapping[str, Any]) -> Any:
    """Runs a rank's function with a transport that passes messages.

    Args:
        context: The rank's place.
        payload: `function` and its `payload`; `places`, see `Place`.
    """
    host = _LOOPBACK
    if payload["places"]:
        namespace, host = payload["places"][context.rank]
        _enter(namespace)
        os.environ["GLOO_SOCKET_IFNAME"] = _INTERFACE
    import tuner.calibration.timed_messages
    import tuner.probes.ranks.rank
    from tuner.transport import MessageTransport

    def over_tcp(store: Any, **arguments: Any) -> Any:
        return MessageTransport(store, **{**arguments, "host": host})

    # What decides by the launcher's name must not find that all ranks are on one host.
    for caller in (tuner.probes.ranks.rank, tuner.calibration.timed_messages):
        caller.MessageTransport = over_tcp  # type: ignore[attr-defined]
    inner = payload["payload"]
    module, _, name = payload["function"].partition(":")
    return getattr(importlib.import_module(module), name)(context, inner)


def _enter(namespace: str) -> None:
    descriptor = os.open(namespace, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(descriptor, _NEW_NETWORK) != 0:
            raise OSError(ctypes.get_errno(), f"the namespace {namespace} cannot be entered")
    finally:
        os.close(descriptor)


def reason_against_namespaces() -> str | None:
    """Why links cannot be slowed here; None where they can."""
    if shutil.which("ip") is None or shutil.which("tc") is None:
        return "ip and tc (iproute2) are not here"
    try:
        with slow_links(1, megabits=1.0):
            return None
    except (OSError, subprocess.CalledProcessError) as error:
        words = getattr(error, "stderr", "") or str(error)
        return f"network namespaces are not permitted here: {words.strip()}"


@contextmanager
def slow_links(num_ranks: int, *, megabits: float) -> Iterator[tuple[Place, ...]]:
    """Namespaces of ranks, each with a link of so many megabits a second in each direction to one switch."""
    name = f"paceline-{secrets.token_hex(3)}"
    made: list[str] = []
    try:
        _make(f"{name}-switch", made)
        _ip(f"{name}-switch", "link add switch type bridge")
        _ip(f"{name}-switch", "link set switch up")
        places = []
        for rank in range(num_ranks):
            own, host = f"{name}-{rank}", f"10.77.{rank // 200}.{rank % 200 + 1}"
            _make(own, made)
            _ip(own, f"link add {_INTERFACE} type veth peer name port{rank} netns {name}-switch")
            _ip(own, f"address add {host}/16 dev {_INTERFACE}")
            _ip(own, "link set lo up")
            _ip(own, f"link set {_INTERFACE} up")
            _ip(f"{name}-switch", f"link set port{rank} master switch up")
            for namespace, interface in ((own, _INTERFACE), (f"{name}-switch", f"port{rank}")):
                _slow(namespace, interface, megabits)
            places.append(Place(namespace=f"/run/netns/{own}", host=host))
        yield tuple(places)
    finally:
        for namespace in reversed(made):
            subprocess.run(["ip", "netns", "delete", namespace], check=False, capture_output=True)


def _make(namespace: str, made: list[str]) -> None:
    _call(["ip", "netns", "add", namespace])
    made.append(namespace)


def _ip(namespace: str, words: str) -> None:
    _call(["ip", "-n", namespace, *words.split()])


def _slow(namespace: str, interface: str, megabits: float) -> None:
    rate = f"{round(1000 * megabits)}kbit"
    words = f"qdisc add dev {interface} root tbf rate {rate} burst {_BURST} latency {_LONGEST_QUEUE}"
    _call(["tc", "-n", namespace, *words.split()])


def _call(words: list[str]) -> None:
    subprocess.run(words, check=True, capture_output=True, text=True)


def namespaces_left() -> list[str]:
    """Namespaces that this module made and that are still there."""
    folder = Path("/run/netns")
    return sorted(p.name for p in folder.glob("paceline-*")) if folder.is_dir() else []
