"""Two "hosts" on this machine for tests of what reaches hosts; skipped with the reason where forbidden."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest

from benchmarks.host_network import HostNetwork, host_network, namespaces_left, reason_against_hosts


@functools.cache
def reason_against() -> str | None:
    """Why there can be no hosts here; asked once."""
    return reason_against_hosts()


@pytest.fixture(scope="session")
def two_hosts() -> Iterator[HostNetwork]:
    """Two hosts, joined by a link as fast as the machine."""
    yield from _hosts(2)


@pytest.fixture(scope="session")
def four_hosts() -> Iterator[HostNetwork]:
    """Four of them."""
    yield from _hosts(4)


def _hosts(num: int) -> Iterator[HostNetwork]:
    reason = reason_against()
    if reason is not None:
        pytest.skip(reason)
    with host_network(num) as network:
        yield network
    assert namespaces_left(network) == []
