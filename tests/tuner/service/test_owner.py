from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.memory_ledger import MemoryLedger
from search_spaces import Configuration
from tests.tuner.search.synthetic import Clock
from tuner.domain.cluster import Cluster
from tuner.domain.errors import StorageError
from tuner.domain.ledger import StudyRecord
from tuner.domain.measurement import Outcome, Purpose
from tuner.probes.probe_folder import ProbeFolder
from tuner.search.events import SearchEvent
from tuner.search.lost_slices import probe_folder
from tuner.service.attempt import Attempt, is_dead, own_name
from tuner.service.opening import free_leases_of_the_dead
from tuner.service.views import status_rows, trial_rows

CLUSTER = Cluster(node_counts=(1,), dollars_per_node_hour=1.0)
DEAD = f"{socket.gethostname()}:{os.getpid()}:1:abc123"
HERE = Configuration(nodes=1, batch_size=32, learning_rate=0.1, strategy="all_reduce")


def started(process: int) -> str:
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]


def leased(ledger: MemoryLedger, owner: str) -> StudyRecord:
    study = ledger.open_study("job", "f", {"goal": {"metric": "loss", "target": 0.1}})
    ledger.start_probe(study.study_id, HERE, Purpose.TIMING, trial_number=0, owner=owner, lease_seconds=60)
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


def test_leases_of_the_dead_are_given_back_at_once(tmp_path: Path) -> None:
    ledger = MemoryLedger()
    study = leased(ledger, f"{socket.gethostname()}:{os.getpid()}:1:abc123")
    free_leases_of_the_dead(ledger, study, tmp_path, CLUSTER)
    probe = ledger.probes(study.study_id)[0]
    assert probe.lease is None
    assert not probe.slices


def described(
    output: Path, study: StudyRecord, *, began: float, last_written: float, probe_id: int = 1
) -> None:
    """The folder of a probe whose first slice ran, as far as its times tell."""
    folder = probe_folder(output, study, probe_id)
    folder.mkdir(parents=True)
    for name, text, seconds in (("probe.json", '{"slice": 1}', began), ("node-0.log", "", last_written)):
        (folder / name).write_text(text)
        os.utime(folder / name, (seconds, seconds))


@pytest.mark.parametrize("ran_out", [False, True])
def test_a_slice_that_was_lost_with_a_killed_tuner_is_charged_once(tmp_path: Path, ran_out: bool) -> None:
    clock = Clock(1000.0)
    ledger = MemoryLedger(clock)
    study = leased(ledger, "elsewhere" if ran_out else f"{socket.gethostname()}:{os.getpid()}:1:abc123")
    described(tmp_path, study, began=1000.0, last_written=1012.0)
    clock.now += 300.0 if ran_out else 15.0
    events: list[SearchEvent] = []
    for _ in range(2):
        free_leases_of_the_dead(ledger, study, tmp_path, CLUSTER, events.append)
    (lost,) = ledger.probes(study.study_id)[0].slices
    assert (lost.outcome, lost.samples) == (Outcome.PAUSED, 0)
    assert (lost.charged_seconds, lost.charged_dollars) == (12.0, pytest.approx(12.0 / 3600))
    (words,) = [event.text for event in events]
    assert words.startswith("trial 0: the slice was lost after about 12.0 s: Paceline was killed")


def test_a_lost_slice_is_not_charged_again_where_the_next_one_did_not_start(tmp_path: Path) -> None:
    ledger = MemoryLedger(Clock(1000.0))
    study = leased(ledger, DEAD)
    described(tmp_path, study, began=1000.0, last_written=1012.0)
    free_leases_of_the_dead(ledger, study, tmp_path, CLUSTER)
    # The tuner is killed again between taking the probe and starting its slice.
    ledger.take_probe(1, owner=DEAD, lease_seconds=60.0)
    free_leases_of_the_dead(ledger, study, tmp_path, CLUSTER)
    assert len(ledger.probes(study.study_id)[0].slices) == 1


def test_time_that_lost_slices_have_in_common_is_elapsed_once(tmp_path: Path) -> None:
    ledger = MemoryLedger(Clock(1000.0))
    study = leased(ledger, DEAD)
    ledger.start_probe(
        study.study_id, HERE, Purpose.STATISTICS, trial_number=0, owner=DEAD, lease_seconds=60.0
    )
    described(tmp_path, study, began=1000.0, last_written=1012.0)
    described(tmp_path, study, began=1004.0, last_written=1020.0, probe_id=2)
    free_leases_of_the_dead(ledger, study, tmp_path, CLUSTER)
    lost = [measurement for probe in ledger.probes(study.study_id) for measurement in probe.slices]
    assert [measurement.charged_seconds for measurement in lost] == [12.0, 16.0]
    assert sum(m.charged_seconds - m.shared_seconds for m in lost) == pytest.approx(20.0)


def test_status_says_what_was_lost_before_it_is_charged(tmp_path: Path) -> None:
    clock = Clock(1000.0)
    ledger = MemoryLedger(clock)
    study = leased(ledger, f"{socket.gethostname()}:{os.getpid()}:1:abc123")
    described(tmp_path, study, began=1000.0, last_written=1012.0)
    rows = {row["name"]: row["value"] for row in status_rows(ledger, study, tmp_path)}
    assert rows["running probes"] == 0
    assert rows["trial 0 lost"].startswith("a slice of about 12.0 s: the process was killed")
    assert trial_rows(ledger, study)[0]["outcome"] == "killed"
    free_leases_of_the_dead(ledger, study, tmp_path, CLUSTER)
    rows = {row["name"]: row["value"] for row in status_rows(ledger, study, tmp_path)}
    assert rows["charged seconds"] == 12.0
    assert "trial 0 lost" not in rows


def test_between_two_slices_nothing_is_lost(tmp_path: Path) -> None:
    ledger = MemoryLedger(Clock(1000.0))
    study = leased(ledger, f"{socket.gethostname()}:{os.getpid()}:1:abc123")
    described(tmp_path, study, began=1000.0, last_written=1012.0)
    ProbeFolder(probe_folder(tmp_path, study, 1)).end_slice(Outcome.PAUSED)
    free_leases_of_the_dead(ledger, study, tmp_path, CLUSTER)
    assert not ledger.probes(study.study_id)[0].slices


def test_a_lease_of_the_living_is_left_and_reported(tmp_path: Path) -> None:
    ledger = MemoryLedger()
    study = leased(ledger, own_name())
    expected = rf"study job is in use by {socket.gethostname()}:{os.getpid()};"
    with pytest.raises(StorageError, match=expected):
        free_leases_of_the_dead(ledger, study, tmp_path, CLUSTER)
    assert ledger.probes(study.study_id)[0].lease is not None


def attempt_at(job_id: int, number: int, **values: object) -> Attempt:
    return Attempt(job_id=job_id, number=number, study_id=1, set_study=lambda _: None, **values)  # type: ignore[arg-type]


def test_a_takeover_releases_the_leases_of_earlier_attempts_at_its_job_and_no_others(tmp_path: Path) -> None:
    living = own_name(attempt_at(7, 1))
    assert attempt_at(7, 2).is_later_than(living)
    assert not attempt_at(7, 1).is_later_than(living)
    assert not attempt_at(8, 2).is_later_than(living)
    assert not attempt_at(7, 2).is_later_than(own_name())
    assert not is_dead(living)
    ledger = MemoryLedger(Clock(1000.0))
    study = leased(ledger, living)
    with pytest.raises(StorageError, match="in use"):
        free_leases_of_the_dead(ledger, study, tmp_path, CLUSTER, attempt=attempt_at(8, 2))
    free_leases_of_the_dead(ledger, study, tmp_path, CLUSTER, attempt=attempt_at(7, 2))
    assert ledger.probes(study.study_id)[0].lease is None


@pytest.mark.parametrize("has_files", [False, True])
def test_a_slice_that_was_lost_on_another_host_is_charged_as_its_worker_reported_it(
    tmp_path: Path, has_files: bool
) -> None:
    clock = Clock(1000.0)
    ledger = MemoryLedger(clock)
    study = leased(ledger, own_name(attempt_at(7, 1)))
    if has_files:
        described(tmp_path, study, began=1000.0, last_written=1012.0)
    clock.now += 15.0
    second = attempt_at(7, 2, lost={(1, 1): (1001.0, 1009.0)})
    for _ in range(2):
        free_leases_of_the_dead(ledger, study, tmp_path, CLUSTER, attempt=second)
    (lost,) = ledger.probes(study.study_id)[0].slices
    assert lost.charged_seconds == (12.0 if has_files else 8.0)
    # A lease of another attempt than the one that reported is not charged for that report.
    ledger.take_probe(1, owner=own_name(attempt_at(7, 2)), lease_seconds=60.0)
    third = attempt_at(7, 3, lost={(1, 1): (1001.0, 1009.0)})
    free_leases_of_the_dead(ledger, study, tmp_path, CLUSTER, attempt=third)
    assert len(ledger.probes(study.study_id)[0].slices) == 1
