"""The supervisor of a worker, with fake processes and a fake clock."""

from __future__ import annotations

import errno
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from storage import open_storage
from storage.database import Storage
from tuner.domain.errors import DatabaseUnavailableError, StorageError
from tuner.domain.job_queue import JobState, NewJob
from tuner.service.leased_run import LOST, Order
from tuner.service.worker import Worker, WorkerSettings


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class FakeProcess:
    order: Order
    code: int | None = None
    signals: list[int] = field(default_factory=list)
    pid: int = 1

    def poll(self) -> int | None:
        return self.code

    def send_signal(self, number: int) -> None:
        self.signals.append(number)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[Storage]:
    with open_storage(f"sqlite:///{tmp_path}/service.db", clock) as store:
        yield store


@dataclass
class Desk:
    store: Storage
    clock: Clock
    folder: Path
    processes: list[FakeProcess] = field(default_factory=list)

    def worker(self, **settings: object) -> Worker:
        def start(order: Order) -> FakeProcess:
            Path(order.log).parent.mkdir(parents=True, exist_ok=True)
            Path(order.log).write_text("what the process wrote\n")
            self.processes.append(FakeProcess(order))
            return self.processes[-1]

        return Worker(
            store=self.store,
            settings=WorkerSettings(storage="sqlite:///x", local=self.folder, **settings),  # type: ignore[arg-type]
            start=start,
            clock=self.clock,
        )

    def submit(self, count: int = 1, **values: object) -> list[int]:
        new = [self.store.queue.submit(NewJob(name="j", job_file="", **values)) for _ in range(count)]  # type: ignore[arg-type]
        return [job.job_id for job, _ in new]

    def finish(self, process: FakeProcess) -> None:
        lease = process.order.lease
        self.store.queue.finish(lease, JobState.SUCCEEDED, exit_code=0, reason="")
        process.code = 0

    def later(self, worker: Worker, seconds: float = 1.0) -> bool:
        self.clock.now += seconds
        return worker.round()


@pytest.fixture
def desk(store: Storage, clock: Clock, tmp_path: Path) -> Desk:
    return Desk(store, clock, tmp_path)


def test_a_worker_fills_its_slots_and_takes_another_job_when_one_ends(desk: Desk) -> None:
    desk.submit(3)
    worker = desk.worker(slots=2)
    for _ in range(3):
        desk.later(worker)
    assert [process.order.lease.job_id for process in desk.processes] == [1, 2]
    desk.finish(desk.processes[0])
    desk.later(worker)
    assert desk.processes[-1].order.lease.job_id == 3
    (record,) = desk.store.queue.workers()
    assert (record.name, record.slots, set(record.jobs)) == (worker.name, 2, {2, 3})


def test_a_job_whose_process_was_killed_is_taken_over_at_once_and_its_log_is_stored(desk: Desk) -> None:
    (job_id,) = desk.submit()
    worker = desk.worker()
    desk.later(worker)
    desk.processes[0].code = -9
    desk.later(worker)
    assert [process.order.lease.attempt for process in desk.processes] == [1, 2]
    texts = [event.text for event in desk.store.queue.events(job_id)]
    assert "the process of attempt 1 was killed by signal 9" in texts
    assert desk.store.queue.job(job_id).failures == 1
    (digest,) = desk.store.queue.job_files(job_id, "log").values()  # type: ignore[arg-type]
    assert desk.store.queue.file(digest) == b"what the process wrote\n"


def test_a_job_fails_with_its_history_after_the_given_number_of_attempts(desk: Desk) -> None:
    (job_id,) = desk.submit()
    worker = desk.worker(attempts=2)
    for _ in range(2):
        desk.later(worker)
        desk.processes[-1].code = 1
    desk.later(worker)
    desk.later(worker)
    job = desk.store.queue.job(job_id)
    assert (job.state, job.exit_code, len(desk.processes)) == (JobState.FAILED, 1, 2)
    assert "2 attempts went silent" in job.reason


def test_a_process_that_lost_its_lease_changes_nothing(desk: Desk) -> None:
    (job_id,) = desk.submit()
    worker, other = desk.worker(), desk.worker()
    desk.later(worker)
    desk.later(other, 61.0)
    assert [process.order.lease.attempt for process in desk.processes] == [1, 2]
    before = desk.store.queue.job(job_id)
    desk.processes[0].code = LOST
    desk.later(worker)
    assert desk.store.queue.job(job_id) == before


def test_a_process_whose_job_was_taken_over_is_killed(desk: Desk) -> None:
    desk.submit()
    worker, other = desk.worker(), desk.worker()
    desk.later(worker)
    desk.later(other, 61.0)
    desk.later(worker)
    assert [process.signals for process in desk.processes] == [[signal.SIGKILL], []]


def test_a_drained_worker_ends_after_its_last_job(desk: Desk) -> None:
    desk.submit(2)
    worker = desk.worker()
    desk.later(worker)
    desk.store.queue.drain_worker(worker.name)
    assert desk.later(worker, 6.0)
    desk.finish(desk.processes[0])
    assert not desk.later(worker)
    assert len(desk.processes) == 1
    assert desk.store.queue.workers()[0].draining


def test_a_worker_ends_after_the_number_of_jobs_it_was_given(desk: Desk) -> None:
    desk.submit(2)
    worker = desk.worker(drain_after=1)
    desk.later(worker)
    desk.finish(desk.processes[0])
    assert not desk.later(worker)
    assert len(desk.processes) == 1


def test_a_stopped_worker_lets_its_processes_hand_back_and_takes_no_job(desk: Desk) -> None:
    desk.submit(2)
    worker = desk.worker(slots=2)
    desk.later(worker)
    worker.stop()
    assert desk.later(worker)
    assert [process.signals for process in desk.processes] == [[signal.SIGTERM]]
    worker.stop()
    assert not desk.later(worker)


def test_a_worker_survives_an_outage_of_the_database(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.submit()
    worker = desk.worker()

    def refused(*_: object, **__: object) -> None:
        raise StorageError("the database cannot be reached")

    with monkeypatch.context() as broken:
        broken.setattr(desk.store.queue, "claim", refused)
        assert desk.later(worker)
    assert desk.later(worker)
    assert not desk.processes
    desk.later(worker, 5.0)
    assert len(desk.processes) == 1


def test_the_lease_of_a_process_that_starts_slowly_is_renewed(desk: Desk) -> None:
    desk.submit()
    worker, other, third = (desk.worker(silent_seconds=600.0) for _ in range(3))
    desk.later(worker)
    for _ in range(4):
        desk.later(worker, 40.0)
        desk.later(other, 1.0)
    assert len(desk.processes) == 1
    # From its first renewal on, the process is responsible itself.
    desk.store.queue.renew(desk.processes[0].order.lease, lease_seconds=60.0)
    desk.later(worker, 40.0)
    desk.later(other, 21.0)
    assert len(desk.processes) == 2
    # A process that never starts loses its job.
    for _ in range(14):
        desk.later(other, 50.0)
    desk.later(third, 50.0)
    assert len(desk.processes) == 3


def test_after_an_outage_no_healthy_job_is_taken_over(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    (job_id,) = desk.submit()
    worker, other = desk.worker(), desk.worker()
    desk.later(worker)
    lease = desk.processes[0].order.lease

    def without_answer(*_: object, **__: object) -> None:
        # The lease expires meanwhile, since nobody can renew it.
        desk.clock.now += 90.0
        raise DatabaseUnavailableError("the database cannot be reached")

    with monkeypatch.context() as broken:
        broken.setattr(desk.store.queue, "claim", without_answer)
        desk.later(other)
    desk.later(other, 6.0)
    assert len(desk.processes) == 1
    desk.store.queue.renew(lease, lease_seconds=60.0)
    desk.later(other, 50.0)
    assert (len(desk.processes), desk.store.queue.job(job_id).failures) == (1, 0)
    # A worker that stays silent for a whole lease after the outage loses its job.
    desk.later(other, 11.0)
    assert len(desk.processes) == 2


def test_a_job_that_was_claimed_while_the_worker_was_stopped_is_handed_back(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job_id,) = desk.submit()
    worker = desk.worker()
    claim = desk.store.queue.claim

    def stopped_meanwhile(*arguments: Any, **options: Any) -> object:
        worker.stop()
        return claim(*arguments, **options)

    monkeypatch.setattr(desk.store.queue, "claim", stopped_meanwhile)
    assert not desk.later(worker)
    job = desk.store.queue.job(job_id)
    assert (job.state, job.failures, desk.processes) == (JobState.QUEUED, 0, [])


def test_a_process_that_is_stopped_while_it_starts_does_not_count_as_failed(desk: Desk) -> None:
    (job_id,) = desk.submit()
    worker = desk.worker()
    desk.later(worker)
    worker.stop()
    desk.processes[0].code = -signal.SIGTERM
    assert not desk.later(worker)
    job = desk.store.queue.job(job_id)
    assert (job.state, job.failures) == (JobState.QUEUED, 0)


def test_a_process_that_cannot_be_started_ends_no_other_job(desk: Desk) -> None:
    desk.submit()
    worker = desk.worker(slots=2)
    desk.later(worker)
    (second,) = desk.submit()
    start = worker.start

    def refused(_order: Order) -> FakeProcess:
        raise OSError(errno.ENOSPC, "No space left on device")

    worker.start = refused
    assert desk.later(worker, 5.0)
    job = desk.store.queue.job(second)
    assert (job.state, job.failures) == (JobState.QUEUED, 0)
    assert "could not start its process: No space left on device" in job.reason
    worker.start = start
    desk.later(worker)
    assert len(desk.processes) == 1
    desk.later(worker, 5.0)
    assert [process.order.lease.job_id for process in desk.processes] == [1, second]
