"""A short form of the soak run of the service, and its checks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.soak_postgres import postgres_folder
from benchmarks.soak_record import SoakRecord
from benchmarks.soak_service import SHORT, run_service
from benchmarks.soak_service_jobs import check_job, stable
from storage import open_storage
from tuner.domain.job_queue import JobState, NewJob


@pytest.mark.slow
@pytest.mark.timeout(1000)
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_every_job_ends_once_and_answers_as_if_undisturbed(database: str) -> None:
    if database == "postgresql" and postgres_folder() is None:
        pytest.skip("needs PostgreSQL: apt-get install postgresql, or set PG_BIN")
    record = SoakRecord(name="service", seed=1, seconds=800, report=lambda _line: None)
    run_service(record, replace(SHORT, kills=4), databases=(database,))
    assert record.broken == []
    assert record.counts[f"jobs on {database}"] == SHORT.jobs
    assert sum(count for name, count in record.counts.items() if name.startswith("kills")) >= 3


def test_a_job_that_fails_or_ends_twice_is_found(tmp_path: Path) -> None:
    with open_storage(f"sqlite:///{tmp_path}/service.db") as store:
        job, _ = store.queue.submit(NewJob(name="soak", job_file=""))
        (broken,) = check_job(store, store.queue.job(job.job_id), {})
        assert broken[0] == "every job ends in time"
        lease = store.queue.claim("w", labels=(), lease_seconds=60.0, most_failures=3)
        assert lease is not None
        store.queue.finish(lease, JobState.SUCCEEDED, exit_code=0, reason="")
        found = [invariant for invariant, _ in check_job(store, store.queue.job(job.job_id), {})]
        assert found == ["a job that succeeded has a study"]
        store.queue.add_event(job.job_id, "state", "succeeded")
        found = [invariant for invariant, _ in check_job(store, store.queue.job(job.job_id), {})]
        assert found == ["every job ends once, with its last event", "a job that succeeded has a study"]


def test_only_what_every_run_shares_is_compared() -> None:
    assert stable({"created_at": 1.0, "study_name": "a-2", "choice": {"x": 1}}) == {"choice": {"x": 1}}
