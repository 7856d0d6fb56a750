"""Links between the made hosts are as slow as they shall be, and nothing is left of them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from benchmarks.host_network import HostNetwork, host_network, namespaces_left
from tests.host_network import reason_against

pytestmark = pytest.mark.slow

#: Sends a byte there and back, and then so many bytes; says the seconds of both.
_ASKS = """
import json, socket, sys, time
host, size = sys.argv[1], int(sys.argv[2])
for _ in range(100):
    try:
        link = socket.create_connection((host, 5000))
        break
    except OSError:
        time.sleep(0.1)
link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
trips = []
for _ in range(20):
    began = time.perf_counter()
    link.sendall(b"x")
    link.recv(1)
    trips.append(time.perf_counter() - began)
began = time.perf_counter()
link.sendall(bytes(size))
link.shutdown(socket.SHUT_WR)
link.recv(1)
print(json.dumps([min(trips), time.perf_counter() - began]))
"""
_ANSWERS = """
import socket
link, _ = socket.create_server(("0.0.0.0", 5000)).accept()
link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
for _ in range(20):
    link.sendall(link.recv(1))
while link.recv(1 << 20):
    pass
link.sendall(b"x")
"""


def seconds(network: HostNetwork, size: int) -> tuple[float, float]:
    """Of a byte there and back at best, and of so many bytes."""
    first, second = (["nsenter", f"--net=/run/netns/{host}", sys.executable] for host in network.hosts[:2])
    answering = subprocess.Popen([*second, "-c", _ANSWERS])
    try:
        words = [*first, "-c", _ASKS, network.hosts[1], str(size)]
        reported = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    finally:
        answering.kill()
        answering.wait()
    trip, stream = json.loads(reported)
    return trip, stream


@pytest.mark.parametrize(("megabits", "latency"), [(16.0, 0.0), (None, 0.03), (16.0, 0.03)])
def test_links_are_as_slow_as_asked(megabits: float | None, latency: float) -> None:
    if reason_against() is not None:
        pytest.skip(str(reason_against()))
    size = 2_000_000
    with host_network(2, megabits=megabits, latency_seconds=latency) as network:
        trip, stream = seconds(network, size)
    # A busy machine makes them slower still: only what is too quick is a fault of the links.
    assert trip >= 2 * latency
    if megabits is not None:
        assert stream >= 0.95 * size * 8 / (megabits * 1e6)
    assert namespaces_left(network) == []
