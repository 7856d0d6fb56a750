"""The process that runs one job of a worker: endings, requests, and what a lost lease prevents."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage import open_storage
from storage.database import Storage
from tests.recorded_grid import write_job
from tuner.domain.errors import DatabaseUnavailableError, LeaseLostError, StorageError
from tuner.domain.job_queue import FileKind, JobState, NewJob
from tuner.service.leased_run import ENDED, LOST, Order, run_leased


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Storage]:
    with open_storage(f"sqlite:///{tmp_path}/service.db") as store:
        yield store


@pytest.fixture(autouse=True)
def _handler() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def submit(store: Storage, folder: Path, *changes: tuple[str, str], **options: object) -> int:
    folder.mkdir(exist_ok=True)
    path = write_job(folder, *changes)
    digest = store.queue.put_file((folder / "grid.jsonl.gz").read_bytes())
    files = {"grid.jsonl.gz": digest}
    new = NewJob(name="replay", job_file=path.read_text(), files=files, options=options)
    return store.queue.submit(new)[0].job_id


def claimed(store: Storage, folder: Path, *, lease_seconds: float = 60.0) -> Order:
    lease = store.queue.claim("w", labels=(), lease_seconds=lease_seconds, most_failures=3)
    assert lease is not None
    out = folder / "jobs" / str(lease.job_id)
    out.mkdir(exist_ok=True, parents=True)
    log = out / f"attempt-{lease.attempt}.log"
    log.write_text("a line\n")
    return Order(
        storage="",
        lease=lease,
        lease_seconds=lease_seconds,
        silent_seconds=900.0,
        artifacts=None,
        local=str(folder),
        log=str(log),
        parent=os.getpid(),
    )


@pytest.mark.slow
def test_a_job_ends_with_its_report_log_events_progress_and_usage(store: Storage, tmp_path: Path) -> None:
    job_id = submit(store, tmp_path / "from", sampler="random")
    order = claimed(store, tmp_path)
    assert json.loads(json.dumps(order.to_dict())) == order.to_dict()
    assert run_leased(store, Order.of(order.to_dict())) == ENDED
    job = store.queue.job(job_id)
    assert (job.state, job.exit_code, job.reason) == (JobState.SUCCEEDED, 0, "")
    assert set(store.queue.job_files(job_id, FileKind.REPORT)) >= {"report.html", "recommendation.json"}
    (log,) = store.queue.job_files(job_id, FileKind.LOG).values()
    assert store.queue.file(log) == b"a line\n"
    assert job.study_id is not None
    probes = store.ledger.probes(job.study_id)
    slices = [measured for probe in probes for measured in probe.slices]
    assert job.usage.seconds == pytest.approx(sum(m.charged_seconds - m.shared_seconds for m in slices))
    assert job.usage.dollars == pytest.approx(sum(m.charged_dollars for m in slices))
    assert job.progress["num_probes"] == len(probes)
    assert job.progress["slices"] == []
    assert job.progress["budget"][0]["limit"] == 600.0
    kinds = [event.kind for event in store.queue.events(job_id)]
    assert {"plan", "decision", "slice", "end", "state"} == set(kinds)
    assert kinds[-1] == "state"


def test_a_broken_job_fails_with_the_words_and_code_of_the_command_line(
    store: Storage, tmp_path: Path
) -> None:
    job_id = submit(store, tmp_path / "from", ("recorded", "no such kind"))
    assert run_leased(store, claimed(store, tmp_path)) == ENDED
    job = store.queue.job(job_id)
    assert (job.state, job.exit_code) == (JobState.FAILED, 2)
    assert "probe.kind" in job.reason


def test_an_internal_error_has_its_traceback_only_in_the_log(
    store: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a secret path")

    monkeypatch.setattr("tuner.service.leased_run.run_job", broken)
    job_id = submit(store, tmp_path / "from")
    assert run_leased(store, claimed(store, tmp_path)) == ENDED
    job = store.queue.job(job_id)
    assert (job.state, job.exit_code) == (JobState.FAILED, 1)
    assert "ZeroDivisionError" in job.reason
    assert "secret" not in job.reason
    assert "a secret path" in capsys.readouterr().err


@pytest.mark.parametrize("kind", [DatabaseUnavailableError, LeaseLostError])
def test_a_job_that_could_not_store_its_progress_does_not_fail(
    store: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[StorageError]
) -> None:
    def searching(*_: object, **__: object) -> None:
        raise kind("not now")

    monkeypatch.setattr("tuner.service.leased_run.run_job", searching)
    monkeypatch.setattr("tuner.service.leased_run._PAUSE_SECONDS", 0.0)
    job_id = submit(store, tmp_path / "from")
    assert run_leased(store, claimed(store, tmp_path)) == ENDED
    job = store.queue.job(job_id)
    assert (job.state, job.failures) == (JobState.QUEUED, 0)
    assert job.reason == "not now. The job has no fault: the next attempt continues it"


@pytest.mark.parametrize(
    ("request_words", "state"),
    [("pause", JobState.PAUSED), ("cancel", JobState.CANCELLED), ("stop", JobState.QUEUED)],
)
def test_a_request_or_a_signal_stops_the_search(
    store: Storage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request_words: str,
    state: JobState,
) -> None:
    job_id = submit(store, tmp_path / "from")

    def searching(*_: object, **__: object) -> None:
        if request_words == "pause":
            store.queue.pause(job_id)
        elif request_words == "cancel":
            store.queue.cancel(job_id, "not needed")
        else:
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(20)

    monkeypatch.setattr("tuner.service.leased_run.run_job", searching)
    assert run_leased(store, claimed(store, tmp_path, lease_seconds=2.0)) == ENDED
    job = store.queue.job(job_id)
    assert (job.state, job.failures) == (state, 0)
    if state is JobState.CANCELLED:
        assert (job.reason, job.exit_code) == ("not needed", 130)


def test_a_process_that_lost_its_lease_stops_and_stores_nothing(
    store: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = submit(store, tmp_path / "from")
    order = claimed(store, tmp_path, lease_seconds=0.2)

    def searching(*_: object, **__: object) -> None:
        store.queue.renew(order.lease, lease_seconds=0.0)
        assert store.queue.claim("other", labels=(), lease_seconds=60.0, most_failures=3) is not None
        time.sleep(20)

    monkeypatch.setattr("tuner.service.leased_run.run_job", searching)
    assert run_leased(store, order) == LOST
    job = store.queue.job(job_id)
    assert (job.state, job.worker, job.attempt) == (JobState.RUNNING, "other", 2)
    assert not store.queue.job_files(job_id, FileKind.LOG)


def test_a_search_that_hangs_gives_its_job_up(
    store: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    submit(store, tmp_path / "from")
    monkeypatch.setattr("tuner.service.leased_run.run_job", lambda *_, **__: time.sleep(20))
    order = replace(claimed(store, tmp_path, lease_seconds=0.2), silent_seconds=0.1)
    assert run_leased(store, order) == LOST
    time.sleep(0.2)
    assert store.queue.claim("other", labels=(), lease_seconds=60.0, most_failures=3) is not None
