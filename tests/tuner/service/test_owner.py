from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from search_spaces import Configuration
from tuner.domain.errors import StorageError
from tuner.domain.measurement import Purpose
from tuner.ledger import MemoryLedger, StudyRecord
from tuner.service.opening import free_leases_of_the_dead, is_dead, own_name

HERE = Configuration(nodes=1, batch_size=32, learning_rate=0.1, strategy="all_reduce")


def started(process: int) -> str:
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]


def leased(ledger: MemoryLedger, owner: str) -> StudyRecord:
    study = ledger.open_study("job", "f", {})
    ledger.start_probe(study.study_id, HERE, Purpose.TIMING, trial_number=None, owner=owner, lease_seconds=60)
    return study


def test_this_process_lives_and_never_bears_one_name_twice() -> None:
    assert not is_dead(own_name())
    assert own_name() != own_name()


def test_a_process_that_ended_is_dead() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owner = f"{socket.gethostname()}:{process.pid}:{started(process.pid)}:abc123"
    assert not is_dead(owner)
    process.communicate(b"\n")
    assert is_dead(owner)


def test_a_killed_process_that_nobody_has_waited_for_is_dead() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owner = f"{socket.gethostname()}:{process.pid}:{started(process.pid)}:abc123"
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert is_dead(owner)
    process.communicate()


def test_another_process_with_the_number_of_a_dead_one_is_not_mistaken_for_it() -> None:
    host, process, start, _ = own_name().rsplit(":", 3)
    assert is_dead(f"{host}:{process}:{int(start) - 1}:abc123")


def test_of_other_hosts_nothing_is_known() -> None:
    assert not is_dead("somewhere-else:1:1:abc123")


def test_a_host_name_with_colons_is_taken_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "fe80::1:2")
    assert not is_dead(own_name())
    assert is_dead(f"fe80::1:2:{os.getpid()}:1:abc123")


def test_an_owner_that_no_tuner_named_counts_as_living() -> None:
    assert not is_dead("worker")
    assert not is_dead(f"{socket.gethostname()}:first:second:third")


def test_leases_of_the_dead_are_given_back_at_once() -> None:
    ledger = MemoryLedger()
    study = leased(ledger, f"{socket.gethostname()}:{os.getpid()}:1:abc123")
    free_leases_of_the_dead(ledger, study)
    assert ledger.probes(study.study_id)[0].lease is None


def test_a_lease_of_the_living_is_left_and_reported() -> None:
    ledger = MemoryLedger()
    study = leased(ledger, own_name())
    expected = rf"study job is being worked on by {socket.gethostname()}:{os.getpid()};"
    with pytest.raises(StorageError, match=expected):
        free_leases_of_the_dead(ledger, study)
    assert ledger.probes(study.study_id)[0].lease is not None
