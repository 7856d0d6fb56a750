"""Shared memory does what the contract says."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tuner.transport.conformance import (
    ConformanceInOneProcess,
    answer_with,
    reply_of,
    request_of,
    things_open,
)
from tests.tuner.transport.many_ranks import all_opened, filled, ranks
from tests.tuner.transport.process_conformance import ConformanceOfProcesses
from tuner.domain.errors import StorageError, TunerError
from tuner.transport import shared_memory, shared_memory_is_safe


class TestSharedMemoryInOneProcess(ConformanceInOneProcess):
    kind = "shared_memory"


class TestSharedMemoryBetweenProcesses(ConformanceOfProcesses):
    kind = "shared_memory"


@pytest.mark.slow  # needs the system's libatomic
class TestSharedMemoryWithFences(ConformanceInOneProcess):
    """As on a machine whose stores become visible in any order."""

    kind = "shared_memory"

    @pytest.fixture(autouse=True)
    def with_fences(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        monkeypatch.setattr(shared_memory, "ORDERED_MACHINES", frozenset())
        shared_memory.memory_fence.cache_clear()
        if not shared_memory_is_safe():
            pytest.skip("this host has no libatomic")
        yield
        shared_memory.memory_fence.cache_clear()


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_full_memory_is_reported_to_all_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "posix_fallocate", full)
    before = things_open()
    with pytest.raises(StorageError, match="no memory left"):
        all_opened("shared_memory", 3)
    assert things_open() == before


def test_memory_that_fills_up_later_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    with ranks("shared_memory", 2) as two:
        two[0].publish(0, filled(1), 1)
        monkeypatch.setattr(os, "posix_fallocate", full)
        two[0].publish(0, filled(2), 2)
        with pytest.raises(StorageError, match="use fewer ranks"):
            two[0].push(1, filled(1), 1)
        assert two[1].take_pushed() == []
        assert two[1].fetch(0, 0, filled(0)) == 2


def test_memory_that_cannot_be_opened_is_reported_to_all_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(path: str, *_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("tuner.transport.shared_file.os.open", closed)
    with pytest.raises(StorageError, match="one user"):
        all_opened("shared_memory", 2)


def test_memory_without_an_order_of_stores_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuner.transport.shared_memory.memory_fence", lambda: None)
    with pytest.raises(TunerError, match="libatomic"):
        all_opened("shared_memory", 1)


def test_vectors_that_nobody_sends_take_no_memory() -> None:
    with ranks("shared_memory", 2, num_elements=1_000_000) as two:
        file = two[0]._file
        assert os.fstat(file._descriptor).st_blocks * 512 < 100_000
        two[0].push(1, filled(1, num_elements=1_000_000), 1)
        assert 8_000_000 <= os.fstat(file._descriptor).st_blocks * 512 < 8_100_000


def test_without_memory_files_a_temporary_one_serves_and_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "memfd_create")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with ranks("shared_memory", 2) as two:
        assert list(tmp_path.iterdir()) == []
        two[0].push(1, filled(1), 1)
        assert two[1].take_pushed()[0].vector.eq(1).all()


def test_without_abstract_names_wake_up_sockets_have_paths_and_those_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuner.transport.shared_memory.sys.platform", "darwin")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with ranks("shared_memory", 2) as two:
        assert list(tmp_path.iterdir()) == []
        assert two[0].ask(1, filled(1), 1)
        answer_with(two[1], request_of(two[1]), 2)
        assert reply_of(two[0], 1).vector.eq(2).all()


def test_more_askers_than_the_socket_s_queue_holds_lose_no_question() -> None:
    num_ranks = 24
    with ranks("shared_memory", num_ranks, num_elements=10) as all_ranks:
        vector = torch.ones(10)
        left = [rank for rank in range(1, num_ranks) if not all_ranks[rank].ask(0, vector, rank)]
        served = []
        while (request := all_ranks[0].next_request()) is not None:
            served.append(request.sender)
            answer_with(all_ranks[0], request, request.sender)
            left = [rank for rank in left if not all_ranks[rank].ask(0, vector, rank)]
        assert sorted(served) == list(range(1, num_ranks))
        for rank in range(1, num_ranks):
            assert reply_of(all_ranks[rank], 0).vector.eq(rank).all()


def test_more_answers_than_the_socket_s_queue_holds_are_all_found() -> None:
    num_ranks = 24
    with ranks("shared_memory", num_ranks, num_elements=10) as all_ranks:
        for rank in range(1, num_ranks):
            assert all_ranks[0].ask(rank, torch.ones(10), rank)
            answer_with(all_ranks[rank], request_of(all_ranks[rank]), rank)
        for rank in reversed(range(1, num_ranks)):
            assert reply_of(all_ranks[0], rank).vector.eq(rank).all()


def test_a_question_to_one_that_closed_does_not_go_out() -> None:
    with ranks("shared_memory", 2) as two:
        two[1].close()
        assert not two[0].ask(1, filled(1), 1)
        assert not two[0].is_asked(1)
        assert two[0].moved_bytes == 0


def test_a_vector_that_somebody_holds_survives_the_transport() -> None:
    with ranks("shared_memory", 2) as two:
        two[0].ask(1, filled(6), 1)
        request = request_of(two[1])
    assert request.vector.eq(6).all()


def test_a_stranger_s_ring_is_not_heard() -> None:
    with ranks("shared_memory", 2) as two:
        assert two[0]._requests.ring(1, 1)
        assert two[0]._requests.ring(1, -3)
        assert two[1].next_request() is None
        assert two[0].ask(1, filled(1), 4)
        assert two[0]._requests.ring(1, 1)
        assert request_of(two[1]).tag == 4
        assert two[1].next_request() is None
