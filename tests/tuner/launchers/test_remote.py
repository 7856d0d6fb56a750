"""The launcher for remote trainers, with slices in a database and a fake clock."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage import open_storage
from storage.database import Storage
from tuner.domain.job_queue import JobLease, NewJob
from tuner.domain.remote_slices import Answer, SliceEnd
from tuner.launchers import CommandTask, JobState
from tuner.launchers.remote import RemoteLauncher, RemoteSection


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[Storage]:
    with open_storage(f"sqlite:///{tmp_path}/service.db", clock) as store:
        yield store


@pytest.fixture
def lease(store: Storage) -> JobLease:
    store.queue.submit(NewJob(name="digits", job_file=""))
    lease = store.queue.claim("w", labels=(), lease_seconds=1e6, most_failures=3)
    assert lease is not None
    return lease


@pytest.fixture
def launcher(store: Storage, lease: JobLease, clock: Clock) -> RemoteLauncher:
    section = RemoteSection(lease=30.0, offer_timeout=100.0)
    return RemoteLauncher(store.remote_slices, lease, section, metric="value", clock=clock)


def task_in(folder: Path, *, resumed: bool = False) -> CommandTask:
    for path in (folder / "probe-1" / "checkpoints", folder / "slice"):
        path.mkdir(parents=True, exist_ok=True)
    values = {"batch_size": 64, "python": "/usr/bin/python3", "checkpoint": "here", "scored_samples": 0}
    limits = {"until_samples": 640, "until_steps": "", "until_seconds": "", "until_scores": 1}
    (folder / "slice/values.json").write_text(json.dumps(values | limits))
    paths = {
        "VALUES": folder / "slice/values.json",
        "METRICS": folder / "slice/metrics.jsonl",
        "STOP_FILE": folder / "slice/stop",
        "CHECKPOINT": folder / "probe-1/checkpoints/checkpoint",
    }
    environment = {f"PACELINE_{name}": str(path) for name, path in paths.items()}
    environment |= {"PACELINE_RESUMED": "1" if resumed else "", "PACELINE_PURPOSE": "training"}
    return CommandTask(
        command="trainer", environment=environment, working_folder=folder, folder=folder / "slice"
    )


def written(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "slice/metrics.jsonl").read_text().splitlines()]


def test_a_slice_waits_uncharged_until_a_trainer_takes_it(
    tmp_path: Path, store: Storage, launcher: RemoteLauncher, lease: JobLease, clock: Clock
) -> None:
    handle = launcher.submit_command(task_in(tmp_path), num_nodes=1, devices_per_node=1)
    clock.now += 50
    waiting = launcher.poll(handle)
    assert (waiting.state, waiting.detail, waiting.pending_seconds) == (JobState.PENDING, "a trainer", 50)
    taken = store.remote_slices.take(lease.job_id, "a")
    assert taken is not None
    assert taken.probe == "probe-1"
    assert taken.instructions["values"] == {"batch_size": 64}
    assert taken.instructions["until"] == {"samples": 640, "steps": None, "seconds": None, "scores": 1}
    clock.now += 10
    assert launcher.poll(handle).state is JobState.RUNNING
    clock.now += 10
    assert launcher.poll(handle).pending_seconds == 60


def test_reports_reach_the_metrics_file_with_their_times(
    tmp_path: Path, store: Storage, launcher: RemoteLauncher, lease: JobLease, clock: Clock
) -> None:
    handle = launcher.submit_command(task_in(tmp_path), num_nodes=1, devices_per_node=1)
    slices, number = store.remote_slices, int(handle.identity)
    slices.take(lease.job_id, "a")
    slices.report(number, 1, [{"samples": 64, "value": 0.5}])
    launcher.poll(handle)
    clock.now += 1
    slices.report(number, 2, [{"samples": 128}, {"samples": 192}], checkpoint="s3://c")
    slices.report(number, 4, [{"samples": 256, "time": 7.5, "process": "p"}])
    launcher.poll(handle)
    assert written(tmp_path) == [
        {"event": "asks"},
        {"samples": 64, "value": 0.5, "time": 1000.0, "process": "a"},
        {"samples": 128},
        {"samples": 192},
        {"samples": 256, "time": 7.5, "process": "p"},
    ]
    assert (tmp_path / "probe-1/checkpoints/checkpoint").read_text() == "s3://c"


def test_the_stop_file_asks_the_trainer_to_stop(
    tmp_path: Path, store: Storage, launcher: RemoteLauncher, lease: JobLease, clock: Clock
) -> None:
    task = task_in(tmp_path)
    handle = launcher.submit_command(task, num_nodes=1, devices_per_node=1)
    slices, number = store.remote_slices, int(handle.identity)
    slices.take(lease.job_id, "a")
    launcher.poll(handle)
    (tmp_path / "slice/stop").touch()
    clock.now += 1
    launcher.poll(handle)
    assert slices.report(number, 1, []) is Answer.STOP
    slices.finish(number, SliceEnd.PAUSED, checkpoint="c")
    clock.now += 1
    assert launcher.poll(handle).state is JobState.SUCCEEDED
    resumed = launcher.submit_command(task_in(tmp_path, resumed=True), num_nodes=1, devices_per_node=1)
    assert slices.slice(int(resumed.identity)).instructions["checkpoint"] == "c"


@pytest.mark.parametrize(
    ("end", "state", "words"),
    [
        (SliceEnd.COMPLETED, JobState.SUCCEEDED, ""),
        (SliceEnd.FAILED, JobState.FAILED, ""),
        (SliceEnd.PAUSED, JobState.LOST, "paused before the end"),
    ],
)
def test_each_end_has_a_state(
    tmp_path: Path,
    store: Storage,
    launcher: RemoteLauncher,
    lease: JobLease,
    clock: Clock,
    end: SliceEnd,
    state: JobState,
    words: str,
) -> None:
    handle = launcher.submit_command(task_in(tmp_path), num_nodes=1, devices_per_node=1)
    store.remote_slices.take(lease.job_id, "a")
    store.remote_slices.finish(int(handle.identity), end, reason="")
    for _ in range(3):
        clock.now += 2
        status = launcher.poll(handle)
    assert status.state is state
    assert words in status.detail
    assert [failure.reason for failure in status.failures] == ["the trainer gave no reason"] * (
        state is JobState.FAILED
    )


def test_a_silent_trainer_is_a_lost_job(
    tmp_path: Path, store: Storage, launcher: RemoteLauncher, lease: JobLease, clock: Clock
) -> None:
    handle = launcher.submit_command(task_in(tmp_path), num_nodes=1, devices_per_node=1)
    store.remote_slices.take(lease.job_id, "a")
    clock.now += 31
    lost = launcher.poll(handle)
    assert (lost.state, lost.detail) == (JobState.LOST, "the trainer a reported nothing for 30 s")


def test_offers_end_when_no_trainer_comes(
    tmp_path: Path, store: Storage, launcher: RemoteLauncher, lease: JobLease, clock: Clock
) -> None:
    first = launcher.submit_command(task_in(tmp_path), num_nodes=1, devices_per_node=1)
    clock.now += 99
    assert launcher.poll(first).state is JobState.PENDING
    clock.now += 2
    lost = launcher.poll(first)
    assert lost.state is JobState.LOST
    assert "no trainer took a slice for 100 s: start a trainer" in lost.detail
    assert store.remote_slices.take(lease.job_id, "a") is None
    second = launcher.submit_command(task_in(tmp_path), num_nodes=1, devices_per_node=1)
    assert launcher.poll(second).state is JobState.LOST  # the search ends soon, without further waiting


def test_a_search_that_only_waits_ends_when_its_time_budget_has_passed(
    tmp_path: Path, store: Storage, lease: JobLease, clock: Clock
) -> None:
    section = RemoteSection(lease=30.0, offer_timeout=10_000.0)
    launcher = RemoteLauncher(
        store.remote_slices, lease, section, metric="value", time_budget=100.0, clock=clock
    )
    first = launcher.submit_command(task_in(tmp_path), num_nodes=1, devices_per_node=1)
    clock.now += 1000
    assert (
        launcher.poll(first).state is JobState.PENDING
    )  # before the first slice, only `offer_timeout` counts
    store.remote_slices.take(lease.job_id, "a")
    clock.now += 1
    launcher.poll(first)
    clock.now += 20
    store.remote_slices.report(int(first.identity), 1, [{"samples": 64}])
    launcher.poll(first)
    store.remote_slices.finish(int(first.identity), SliceEnd.COMPLETED)
    clock.now += 1
    launcher.poll(first)
    second = launcher.submit_command(task_in(tmp_path), num_nodes=1, devices_per_node=1)
    clock.now += 79
    assert launcher.poll(second).state is JobState.PENDING
    clock.now += 1
    lost = launcher.poll(second)
    assert lost.state is JobState.LOST
    assert "no trainer took a slice for 80 s, and budget.time = 100 s has passed" in lost.detail


def test_a_trainer_that_is_alive_works_after_the_time_budget(
    tmp_path: Path, store: Storage, lease: JobLease, clock: Clock
) -> None:
    section = RemoteSection(lease=30.0, offer_timeout=10_000.0)
    launcher = RemoteLauncher(
        store.remote_slices, lease, section, metric="value", time_budget=10.0, clock=clock
    )
    for _ in range(3):
        handle = launcher.submit_command(task_in(tmp_path), num_nodes=1, devices_per_node=1)
        clock.now += 20
        assert launcher.poll(handle).state is JobState.PENDING
        store.remote_slices.take(lease.job_id, "a")
        clock.now += 1
        assert launcher.poll(handle).state is JobState.RUNNING
        store.remote_slices.finish(int(handle.identity), SliceEnd.COMPLETED)
        clock.now += 1
        assert launcher.poll(handle).state is JobState.SUCCEEDED


def test_a_cancelled_or_stopped_offer_is_withdrawn(
    tmp_path: Path, store: Storage, launcher: RemoteLauncher, lease: JobLease
) -> None:
    cancelled = launcher.submit_command(task_in(tmp_path), num_nodes=1, devices_per_node=1)
    launcher.cancel(cancelled)
    assert launcher.poll(cancelled).state is JobState.CANCELLED
    stopped = launcher.submit_command(task_in(tmp_path), num_nodes=1, devices_per_node=1)
    (tmp_path / "slice/stop").touch()
    assert launcher.poll(stopped).state is JobState.CANCELLED
    left = launcher.submit_command(task_in(tmp_path), num_nodes=1, devices_per_node=1)
    launcher.close()
    assert store.remote_slices.take(lease.job_id, "a") is None
    assert store.remote_slices.slice(int(left.identity)).end is SliceEnd.WITHDRAWN


def test_a_new_launcher_withdraws_what_an_earlier_worker_offered(
    tmp_path: Path, store: Storage, launcher: RemoteLauncher, lease: JobLease
) -> None:
    handle = launcher.submit_command(task_in(tmp_path), num_nodes=1, devices_per_node=1)
    store.remote_slices.take(lease.job_id, "a")
    RemoteLauncher(store.remote_slices, lease, RemoteSection(), metric="value")
    assert store.remote_slices.report(int(handle.identity), 1, []) is Answer.LOST
