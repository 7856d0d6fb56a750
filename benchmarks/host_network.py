"""Several "hosts" on one machine: network namespaces with links of a known bandwidth and latency.

Each host is a namespace that is called by its own address, so that `{host}` names both. Needs root and
iproute2. Links let so many bits a second out and so many in (`tc tbf`); a latency is added by a switch of our
own (`delaying_switch.py`), for netem is not in every kernel.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import delaying_switch

INTERFACE = "eth0"
#: How a command is run on a host, as in `[cluster.torchrun] connect`.
CONNECT = f"nsenter --net=/run/netns/{{host}} env GLOO_SOCKET_IFNAME={INTERFACE} sh -c {{command}}"
_NAMESPACES = Path("/run/netns")
#: Beyond the longest frame, little passes at once: a larger burst lets small messages through unslowed.
_BURST_BYTES, _LONGEST_QUEUE = 600, "2s"
_FRAME_HEADER_BYTES = 14
_SUBNETS = range(64, 128)


@dataclass(frozen=True, kw_only=True)
class HostNetwork:
    """Hosts that reach each other.

    Args:
        hosts: Their addresses, which are their names.
        switch: The namespace in the middle.
    """

    hosts: tuple[str, ...]
    switch: str

    @property
    def connect(self) -> str:
        """As in `[cluster.torchrun] connect`."""
        return CONNECT

    def disconnect(self, host: str) -> None:
        """Takes a host's link away."""
        _ip(self.switch, f"link set port{self.hosts.index(host)} down")

    def mend(self, host: str) -> None:
        """Gives it back."""
        _ip(self.switch, f"link set port{self.hosts.index(host)} up")

    def processes(self, host: str) -> list[int]:
        """What runs on a host."""
        answer = subprocess.run(["ip", "netns", "pids", host], check=True, capture_output=True, text=True)
        return [int(word) for word in answer.stdout.split()]

    def power_off(self, host: str) -> None:
        """Kills all that runs on a host at once."""
        for process in self.processes(host):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


def reason_against_hosts() -> str | None:
    """Why there can be no such network here; None where there can."""
    missing = [name for name in ("ip", "tc", "nsenter") if shutil.which(name) is None]
    if missing:
        return f"{', '.join(missing)} (iproute2, util-linux): not here"
    try:
        with host_network(1, megabits=1.0, latency_seconds=0.001):
            return None
    except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
        words = getattr(error, "stderr", "") or str(error)
        return f"network namespaces are not permitted here: {words.strip()}"


@contextmanager
def host_network(
    num_hosts: int, *, megabits: float | None = None, latency_seconds: float = 0.0, mtu: int = 1500
) -> Iterator[HostNetwork]:
    """Hosts for as long as the context lasts; nothing of them is left afterwards.

    Args:
        num_hosts: How many, up to 200.
        megabits: What each one's link carries each way, millions of bits a second; None for no limit.
        latency_seconds: What a frame takes from one to another, beside its bits.
        mtu: Longest packet; longer ones are fewer, which a switch in user space is grateful for.
    """
    prefix = _free_prefix()
    switch, made = f"{prefix}.switch", list[str]()
    with contextlib.ExitStack() as stack:
        stack.callback(_remove, made)
        _make(switch, made)
        hosts = []
        for number in range(num_hosts):
            host = f"{prefix}.{number + 1}"
            _make(host, made)
            _join(host, switch, number, mtu, is_delayed=latency_seconds > 0)
            if megabits is not None:
                for namespace, interface in ((host, INTERFACE), (switch, f"port{number}")):
                    _slow(namespace, interface, megabits, mtu)
            hosts.append(host)
        if latency_seconds > 0:
            stack.enter_context(_delays(switch, num_hosts, latency_seconds))
        yield HostNetwork(hosts=tuple(hosts), switch=switch)


def namespaces_left(network: HostNetwork) -> list[str]:
    """Namespaces of a network that are still there."""
    return [name for name in (*network.hosts, network.switch) if (_NAMESPACES / name).exists()]


def _free_prefix() -> str:
    """The first three numbers of addresses that no namespace is called by."""
    while True:
        prefix = f"10.{secrets.choice(_SUBNETS)}.{secrets.randbelow(256)}"
        if not (_NAMESPACES / f"{prefix}.switch").exists():
            return prefix


def _join(host: str, switch: str, number: int, mtu: int, *, is_delayed: bool) -> None:
    """Connects a host to the switch: all to one bridge, or each to its own with a TAP interface."""
    bridge = f"bridge{number}" if is_delayed else "bridge"
    if is_delayed or number == 0:
        _ip(switch, f"link add {bridge} mtu {mtu} type bridge forward_delay 0 stp_state 0")
        _ip(switch, f"link set {bridge} up")
    _ip(host, f"link add {INTERFACE} mtu {mtu} type veth peer name port{number} netns {switch}")
    _ip(switch, f"link set port{number} mtu {mtu} master {bridge} up")
    _ip(host, f"address add {host}/24 dev {INTERFACE}")
    _ip(host, "link set lo up")
    _ip(host, f"link set {INTERFACE} up")
    if is_delayed:
        _ip(switch, f"tuntap add dev tap{number} mode tap")
        _ip(switch, f"link set tap{number} mtu {mtu} master {bridge} txqueuelen 10000 up")


@contextmanager
def _delays(switch: str, num_hosts: int, latency_seconds: float) -> Iterator[None]:
    taps = [f"tap{number}" for number in range(num_hosts)]
    words = [sys.executable, "-I", str(delaying_switch.__file__), str(latency_seconds), *taps]
    process = subprocess.Popen(
        ["nsenter", f"--net={_NAMESPACES / switch}", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if process.stdout.readline() != b"ready\n":
            raise RuntimeError("the delaying switch did not start")
        yield
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait()


def _make(namespace: str, made: list[str]) -> None:
    _call(["ip", "netns", "add", namespace])
    made.append(namespace)


def _remove(made: list[str]) -> None:
    for namespace in reversed(made):
        subprocess.run(["ip", "netns", "delete", namespace], check=False, capture_output=True)


def _ip(namespace: str, words: str) -> None:
    _call(["ip", "-n", namespace, *words.split()])


def _slow(namespace: str, interface: str, megabits: float, mtu: int) -> None:
    rate, burst = f"{round(1000 * megabits)}kbit", mtu + _FRAME_HEADER_BYTES + _BURST_BYTES
    words = f"qdisc add dev {interface} root tbf rate {rate} burst {burst} latency {_LONGEST_QUEUE}"
    _call(["tc", "-n", namespace, *words.split()])


def _call(words: list[str]) -> None:
    subprocess.run(words, check=True, capture_output=True, text=True)
