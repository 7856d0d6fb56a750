"""Which transport is opened where."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.distributed as dist

from tests.tuner.transport.many_ranks import eventually
from tuner.transport import MessageTransport, SharedMemoryTransport, open_transport, shared_memory


@pytest.mark.parametrize(
    ("one_host", "is_safe", "expected"),
    [
        (True, True, SharedMemoryTransport),
        (True, False, MessageTransport),
        (False, True, MessageTransport),
    ],
)
def test_memory_is_shared_on_one_host_where_that_is_safe(
    monkeypatch: pytest.MonkeyPatch, one_host: bool, is_safe: bool, expected: type
) -> None:
    monkeypatch.setattr("tuner.transport.zmq_transport.shared_memory_is_safe", lambda: is_safe)
    store = dist.HashStore()

    def opened(rank: int) -> object:
        return open_transport(
            store, rank=rank, num_ranks=2, num_elements=10, dtype=torch.float32, one_host=one_host
        )

    with ThreadPoolExecutor(2) as pool:
        two = list(pool.map(opened, range(2)))
    try:
        assert [type(transport) for transport in two] == [expected] * 2
        two[0].push(1, torch.ones(10), 1)
        assert eventually(two[1].take_pushed, "the push is here")[0].vector.eq(1).all()
    finally:
        for transport in two:
            transport.close()


@pytest.mark.parametrize(("machine", "is_safe"), [("x86_64", True), ("s390x", True), ("aarch64", False)])
def test_stores_in_order_make_shared_memory_safe_without_a_fence(
    monkeypatch: pytest.MonkeyPatch, machine: str, is_safe: bool
) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr(shared_memory.ctypes, "CDLL", missing)
    shared_memory.memory_fence.cache_clear()
    try:
        assert shared_memory.shared_memory_is_safe() is is_safe
    finally:
        shared_memory.memory_fence.cache_clear()
