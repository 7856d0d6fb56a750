from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy.exc import OperationalError

from storage import open_storage
from storage.database import Storage
from tuner.domain.errors import LeaseLostError
from tuner.domain.job_queue import JobLease, NewJob, NotFoundError
from tuner.domain.remote_slices import Answer, SliceEnd, SliceState


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(database_url: str, clock: Clock) -> Iterator[Storage]:
    with open_storage(database_url, clock) as store:
        yield store


@pytest.fixture
def lease(store: Storage) -> JobLease:
    store.queue.submit(NewJob(name="digits", job_file=""))
    lease = store.queue.claim("w", labels=(), lease_seconds=60, most_failures=3)
    assert lease is not None
    return lease


def offer(store: Storage, lease: JobLease, probe: str = "probe-1") -> int:
    return store.remote_slices.offer(lease, probe, {"metric": "value"}, lease_seconds=30)


def test_a_slice_is_offered_taken_reported_and_finished(store: Storage, lease: JobLease) -> None:
    slices = store.remote_slices
    assert slices.take(lease.job_id, "a") is None
    number = offer(store, lease)
    taken = slices.take(lease.job_id, "a")
    assert taken is not None
    assert (taken.slice_id, taken.state, taken.trainer) == (number, SliceState.LEASED, "a")
    assert slices.take(lease.job_id, "b") is None
    assert slices.report(number, 1, [{"samples": 64}, {"samples": 128, "value": float("nan")}]) == "continue"
    found, lines = slices.follow(number, after=0, num_read=0, stop=False)
    assert [line.number for line in lines] == [1, 2]
    assert lines[0].data == {"samples": 64}
    slices.follow(number, after=2, num_read=2, stop=True)
    assert slices.report(number, 3, []) is Answer.STOP
    assert slices.finish(number, SliceEnd.PAUSED, checkpoint="s3://a/1") is Answer.CONTINUE
    found, lines = slices.follow(number, after=2, num_read=2, stop=True)
    assert (found.end, found.checkpoint, lines) == (SliceEnd.PAUSED, "s3://a/1", [])


def test_a_repeated_request_changes_nothing(store: Storage, lease: JobLease) -> None:
    slices, number = store.remote_slices, offer(store, lease)
    first = slices.take(lease.job_id, "a")
    assert slices.take(lease.job_id, "a") == first
    for value in (0.1, 0.2):
        slices.report(number, 1, [{"value": value}])
    _, lines = slices.follow(number, after=0, num_read=0, stop=False)
    assert [line.data for line in lines] == [{"value": 0.1}]
    assert [slices.finish(number, SliceEnd.PAUSED) for _ in range(2)] == [Answer.CONTINUE] * 2
    assert slices.finish(number, SliceEnd.FAILED) is Answer.LOST


def test_a_silent_trainer_loses_its_slice(store: Storage, lease: JobLease, clock: Clock) -> None:
    slices, number = store.remote_slices, offer(store, lease)
    slices.take(lease.job_id, "a")
    clock.now += 20
    slices.report(number, 1, [], checkpoint="c1")
    clock.now += 29
    assert slices.follow(number, after=0, num_read=0, stop=False)[0].state is SliceState.LEASED
    clock.now += 2
    found, _ = slices.follow(number, after=0, num_read=0, stop=False)
    assert (found.end, found.checkpoint) == (SliceEnd.LOST, "c1")
    assert found.reason == "the trainer a reported nothing for 30 s"
    assert slices.report(number, 1, [{"value": 0.9}]) is Answer.LOST
    assert slices.finish(number, SliceEnd.COMPLETED) is Answer.LOST


def test_only_the_newest_attempt_of_a_job_offers_slices(
    store: Storage, lease: JobLease, clock: Clock
) -> None:
    slices, number = store.remote_slices, offer(store, lease)
    slices.take(lease.job_id, "a")
    clock.now += 61
    newer = store.queue.claim("v", labels=(), lease_seconds=60, most_failures=3)
    assert newer is not None
    with pytest.raises(LeaseLostError, match="another worker has taken the job"):
        offer(store, lease)
    with pytest.raises(LeaseLostError, match="another worker has taken the job"):
        slices.withdraw_all(lease)
    assert slices.withdraw_all(newer) == 1
    assert slices.report(number, 1, []) is Answer.LOST
    second = offer(store, newer)
    slices.withdraw(second)
    slices.withdraw(second)
    assert slices.take(lease.job_id, "a") is None


def test_an_unknown_slice_is_not_found(store: Storage) -> None:
    with pytest.raises(NotFoundError, match="there is no slice 7"):
        store.remote_slices.report(7, 1, [])


def test_after_an_outage_a_trainer_has_time_to_report_again(
    store: Storage, lease: JobLease, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    slices, number = store.remote_slices, offer(store, lease)
    slices.take(lease.job_id, "a")
    clock.now += 31
    read, failures = slices._read_lines, [OperationalError("SELECT", {}, RuntimeError("connection failed"))]

    def without_answer(*arguments: int) -> object:
        if failures:
            raise failures.pop()
        return read(*arguments)

    monkeypatch.setattr(slices, "_read_lines", without_answer)
    slices.follow(number, after=0, num_read=1, stop=False)
    clock.now += 29
    found, _ = slices.follow(number, after=0, num_read=1, stop=False)
    assert found.state is SliceState.LEASED
    clock.now += 2
    found, _ = slices.follow(number, after=0, num_read=1, stop=False)
    assert found.end is SliceEnd.LOST
