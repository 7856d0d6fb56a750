from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from storage import open_storage
from storage.database import Storage
from tuner.domain.errors import LeaseLostError
from tuner.domain.job_queue import (
    ConflictError,
    FileKind,
    JobState,
    NewJob,
    NotFoundError,
    Quota,
    QuotaError,
    Request,
    Role,
    Usage,
    WorkerRecord,
)


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


def submit(store: Storage, name: str = "digits", **values: object) -> int:
    job, _ = store.queue.submit(NewJob(name=name, job_file="", **values))  # type: ignore[arg-type]
    return job.job_id


def claim(store: Storage, worker: str = "w", *labels: str, most_failures: int = 3):  # type: ignore[no-untyped-def]
    return store.queue.claim(worker, labels=labels, lease_seconds=60, most_failures=most_failures)


def test_jobs_are_claimed_by_priority_then_age_and_only_once(store: Storage) -> None:
    first, second, urgent = submit(store), submit(store), submit(store, priority=5)
    taken = [claim(store, f"w{i}") for i in range(3)]
    assert [lease.job_id for lease in taken] == [urgent, first, second]
    assert claim(store) is None


def test_a_worker_gets_only_jobs_whose_labels_it_has(store: Storage) -> None:
    job = submit(store, labels=("gpu", "slurm"))
    assert claim(store, "w", "gpu") is None
    assert claim(store, "w", "slurm", "x", "gpu").job_id == job


def test_a_job_whose_worker_went_silent_is_taken_over_and_the_late_worker_changes_nothing(
    store: Storage, clock: Clock
) -> None:
    job = submit(store)
    late = claim(store, "w1")
    clock.now += 61
    new = claim(store, "w2")
    assert (new.job_id, new.attempt) == (job, 2)
    for change in (
        lambda: store.queue.renew(late, lease_seconds=60),
        lambda: store.queue.finish(late, JobState.SUCCEEDED, exit_code=0, reason=""),
        lambda: store.queue.hand_back(late, JobState.QUEUED, ""),
        lambda: store.queue.set_study(late, 1),
    ):
        with pytest.raises(LeaseLostError, match="another worker has taken the job"):
            change()
    with pytest.raises(LeaseLostError), store.fenced(late):
        store.ledger.open_study("digits", "f", {})
    assert store.ledger.studies() == []
    with store.fenced(new):
        store.ledger.open_study("digits", "f", {})
    store.queue.finish(new, JobState.SUCCEEDED, exit_code=0, reason="", usage=Usage(dollars=2.0))
    ended = store.queue.job(job)
    assert (ended.state, ended.exit_code, ended.usage.dollars) == (JobState.SUCCEEDED, 0, 2.0)
    assert (ended.failures, ended.worker, ended.finished_at) == (1, "", clock.now)
    texts = [event.text for event in store.queue.events(job)]
    assert texts[-3:] == ["worker w1 went silent in attempt 1", "attempt 2 started on w2", "succeeded"]
    assert [event.number for event in store.queue.events(job)] == list(range(1, len(texts) + 1))


def test_a_job_fails_after_the_stated_number_of_silent_workers(store: Storage, clock: Clock) -> None:
    job = submit(store)
    for _ in range(2):
        assert claim(store, most_failures=2) is not None
        clock.now += 61
    assert claim(store, most_failures=2) is None
    failed = store.queue.job(job)
    assert (failed.state, failed.exit_code) == (JobState.FAILED, 1)
    assert "went silent" in failed.reason


def test_handing_back_does_not_count_as_a_failure(store: Storage) -> None:
    job = submit(store)
    for _ in range(5):
        store.queue.hand_back(claim(store, most_failures=1), JobState.QUEUED, "the worker stops")
    assert store.queue.job(job).failures == 0


def test_cancel_pause_and_resume_reach_the_worker(store: Storage, clock: Clock) -> None:
    job = submit(store)
    lease = claim(store)
    store.queue.pause(job)
    lease, request = store.queue.renew(lease, lease_seconds=60, progress={"text": "half"})
    assert request is Request.PAUSE
    store.queue.hand_back(lease, JobState.PAUSED, "paused")
    assert claim(store) is None
    store.queue.resume(job)
    lease = claim(store)
    store.queue.cancel(job, "not needed any more")
    assert store.queue.renew(lease, lease_seconds=60)[1] is Request.CANCEL
    clock.now += 61
    assert claim(store) is None
    assert store.queue.job(job).state is JobState.CANCELLED
    with pytest.raises(ConflictError, match="has ended"):
        store.queue.cancel(job, "")
    with pytest.raises(ConflictError):
        store.queue.resume(job)
    with pytest.raises(NotFoundError):
        store.queue.pause(99)


def test_a_job_whose_worker_is_silent_needs_no_worker_to_be_cancelled_or_paused(
    store: Storage, clock: Clock
) -> None:
    cancelled, paused = submit(store), submit(store)
    leases = [claim(store, name) for name in ("a", "b")]
    clock.now += 61
    store.queue.cancel(cancelled, "not needed any more")
    store.queue.pause(paused)
    assert [store.queue.job(job).state for job in (cancelled, paused)] == [
        JobState.CANCELLED,
        JobState.PAUSED,
    ]
    for lease in leases:
        with pytest.raises(LeaseLostError):
            store.queue.renew(lease, lease_seconds=60)
    store.queue.resume(paused)
    assert claim(store).attempt == 2


def test_texts_with_nul_are_stored(store: Storage) -> None:
    submit(store)
    lease = claim(store)
    store.queue.add_event(lease, "warning", "a\0b")
    store.queue.finish(lease, JobState.FAILED, exit_code=1, reason="c\0d")
    assert store.queue.job(lease.job_id).reason == "c\ufffdd"
    assert "a\ufffdb" in [event.text for event in store.queue.events(lease.job_id)]


def test_a_job_that_awaits_approval_runs_only_after_it(store: Storage) -> None:
    job = submit(store, state=JobState.AWAITING_APPROVAL)
    assert claim(store) is None
    assert store.queue.approve(job, by="ana").approved_by == "ana"
    assert claim(store).job_id == job
    with pytest.raises(ConflictError, match="does not await approval"):
        store.queue.approve(job, by="ana")


def test_a_repeated_submission_adds_no_second_job(store: Storage) -> None:
    token, _ = store.tokens.create("ci", Role.SUBMIT)
    job = NewJob(name="a", job_file="", token_id=token.token_id, idempotency_key="k", request_digest="1")
    first, is_new = store.queue.submit(job)
    again, is_new_again = store.queue.submit(job)
    assert (first.job_id, is_new, is_new_again) == (again.job_id, True, False)
    with pytest.raises(ConflictError, match="another request"):
        store.queue.submit(replace(job, request_digest="2"))


def test_quotas_count_what_jobs_may_use_and_then_what_they_used(store: Storage) -> None:
    token, _ = store.tokens.create("ci", Role.SUBMIT)
    quota = Quota(jobs=2, dollars=10.0)
    job = NewJob(name="a", job_file="", token_id=token.token_id, limit={"dollars": 6.0})
    store.queue.submit(job, quota=quota)
    with pytest.raises(QuotaError, match="10 dollars, of which 6 are used or reserved"):
        store.queue.submit(job, quota=quota)
    with pytest.raises(QuotaError, match=r"set budget\.dollars or budget\.time"):
        store.queue.submit(replace(job, limit={}), quota=quota)
    store.queue.finish(claim(store), JobState.SUCCEEDED, exit_code=0, reason="", usage=Usage(dollars=1.0))
    for dollars in (6.0, 3.0):
        store.queue.submit(replace(job, limit={"dollars": dollars}), quota=quota)
    with pytest.raises(QuotaError, match="2 jobs that have not ended"):
        store.queue.submit(replace(job, limit={"dollars": 0.0}), quota=quota)
    assert store.tokens.usage(token.token_id) == (2, Usage(dollars=10.0))


def test_files_are_stored_once_by_content_and_belong_to_jobs(store: Storage) -> None:
    digest = store.queue.put_file(b"abc")
    assert store.queue.put_file(b"abc") == digest
    assert store.queue.file(digest) == b"abc"
    job = submit(store, files={"data/a.jsonl": digest})
    store.queue.add_job_file(job, FileKind.REPORT, "report.html", b"old")
    new = store.queue.add_job_file(job, FileKind.REPORT, "report.html", b"new")
    assert store.queue.job_files(job, FileKind.WORKSPACE) == {"data/a.jsonl": digest}
    assert store.queue.job_files(job, FileKind.REPORT) == {"report.html": new}
    with pytest.raises(NotFoundError, match="was not uploaded"):
        submit(store, files={"b": "0" * 64})
    assert len(store.queue.jobs()) == 1


def test_jobs_are_listed_with_filters_and_pages(store: Storage) -> None:
    token, _ = store.tokens.create("ci", Role.SUBMIT)
    numbers = [submit(store, name) for name in ("digits", "Digits-2", "lm_100%")]
    mine = submit(store, "lm_100x", token_id=token.token_id)
    assert [job.job_id for job in store.queue.jobs(name="digits")] == numbers[1::-1]
    assert [job.job_id for job in store.queue.jobs(name="100%")] == numbers[2:]
    assert [job.job_id for job in store.queue.jobs(token_id=token.token_id)] == [mine]
    assert [job.job_id for job in store.queue.jobs(before=mine, limit=2)] == numbers[:0:-1]
    store.queue.cancel(mine, "")
    assert [job.job_id for job in store.queue.jobs(states=[JobState.CANCELLED])] == [mine]
    assert store.queue.count_jobs() == {JobState.QUEUED: 3, JobState.CANCELLED: 1}


def test_workers_report_and_can_be_drained(store: Storage, clock: Clock) -> None:
    worker = WorkerRecord(
        name="host:1",
        version="1",
        labels=("gpu",),
        slots=2,
        draining=False,
        started_at=clock.now,
        seen_at=clock.now,
        stopped_at=None,
    )
    assert not store.queue.report_worker(worker)
    submit(store)
    lease = claim(store, "host:1")
    store.queue.drain_worker("host:1")
    assert store.queue.report_worker(replace(worker, seen_at=clock.now + 1))
    (found,) = store.queue.workers()
    assert (found.draining, found.jobs, found.labels) == (True, (lease.job_id,), ("gpu",))
    assert store.queue.workers(seen_since=clock.now + 2) == []
    with pytest.raises(NotFoundError):
        store.queue.drain_worker("nobody")


def test_tokens_are_found_by_their_text_until_they_expire_or_are_revoked(
    store: Storage, clock: Clock
) -> None:
    quota = Quota(jobs=3)
    token, text = store.tokens.create("ana", Role.ADMIN, expires_at=clock.now + 10, quota=quota)
    found = store.tokens.find(text)
    assert found is not None
    assert (found.token_id, found.role, found.quota) == (token.token_id, Role.ADMIN, quota)
    for wrong in (
        text[:-1],
        text + "x",
        "",
        "paceline_1_",
        "paceline_999_x",
        "paceline_²_x",
        "\ud800",
        "a_1_b",
    ):
        assert store.tokens.find(wrong) is None
    clock.now += 11
    assert store.tokens.find(text) is None
    other, other_text = store.tokens.create("ben", Role.READ)
    assert store.tokens.find(other_text) is not None
    store.tokens.revoke(other.token_id)
    assert store.tokens.find(other_text) is None
    assert [known.name for known in store.tokens.tokens()] == ["ana", "ben"]
    with pytest.raises(NotFoundError):
        store.tokens.revoke(99)


def test_the_audit_log_is_read_newest_first(store: Storage) -> None:
    for number in range(3):
        store.tokens.audit("ana", "job.submit", f"job {number}", address="::1", detail={"n": number})
    newest = store.tokens.audit_log(limit=2)
    assert [entry.target for entry in newest] == ["job 2", "job 1"]
    assert [entry.target for entry in store.tokens.audit_log(before=newest[-1].audit_id)] == ["job 0"]


def test_the_reason_of_an_earlier_state_does_not_stay(store: Storage) -> None:
    job_id = submit(store)
    store.queue.hand_back(claim(store), JobState.QUEUED, "its worker was stopped")
    assert store.queue.job(job_id).reason == "its worker was stopped"
    claim(store)
    assert store.queue.job(job_id).reason == ""
    store.queue.cancel(job_id, "by ana")
    assert store.queue.events(job_id)[-1].text == "asked to end: by ana"


def test_a_token_may_store_a_number_of_bytes_and_equal_files_count_once(store: Storage) -> None:
    token, _ = store.tokens.create("t", Role.SUBMIT)
    own = {"token_id": token.token_id, "quota": Quota(stored_bytes=10)}
    digest = store.queue.put_file(b"12345", **own)
    assert store.queue.put_file(b"12345", **own) == digest
    other = store.queue.put_file(b"123456")
    with pytest.raises(QuotaError, match=r"would have 11 bytes; its quota is 10\. Put large data"):
        store.queue.put_file(b"abcdef", **own)
    # What was uploaded by others counts as soon as a job of the token uses it.
    job = NewJob(name="a", job_file="", files={"a": other}, token_id=token.token_id)
    with pytest.raises(QuotaError, match="would have 11 bytes"):
        store.queue.submit(job, quota=Quota(stored_bytes=10))
    assert store.queue.submit(job, quota=Quota(stored_bytes=11))[1]


def test_a_clean_up_removes_unused_files_and_files_of_old_jobs(store: Storage, clock: Clock) -> None:
    token, _ = store.tokens.create("t", Role.SUBMIT)
    unused = store.queue.put_file(b"unused", token_id=token.token_id)
    used, queued = store.queue.put_file(b"used"), store.queue.put_file(b"queued")
    ended_job = submit(store, files={"a": used})
    queued_job = submit(store, files={"a": queued})
    store.queue.cancel(ended_job, "x")
    clock.now += 100
    recent = store.queue.put_file(b"recent", token_id=token.token_id)
    removed = store.queue.clean_files(unused_before=clock.now - 50)
    assert (removed.num_files, removed.num_bytes) == (1, 6)
    with pytest.raises(NotFoundError):
        store.queue.file(unused)
    clock.now += 100
    removed = store.queue.clean_files(unused_before=clock.now - 150, ended_before=clock.now - 150)
    assert (removed.num_files, removed.num_bytes) == (1, 4)
    assert store.queue.job_files(ended_job, FileKind.WORKSPACE) == {}
    assert store.queue.job(ended_job).state is JobState.CANCELLED
    assert store.queue.file(store.queue.job_files(queued_job, FileKind.WORKSPACE)["a"]) == b"queued"
    assert store.queue.file(recent) == b"recent"
    # An upload of the same content makes a file recent again.
    clock.now += 1000
    store.queue.put_file(b"recent")
    assert store.queue.clean_files(unused_before=clock.now - 1).num_files == 0
