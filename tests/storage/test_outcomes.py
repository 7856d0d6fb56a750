"""The outcomes of recommendations, on SQLite and PostgreSQL."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from search_spaces import Configuration
from storage import open_storage
from storage.database import Storage
from tuner.domain.job_queue import NewJob, NotFoundError, Role
from tuner.domain.ledger import StudyRecord
from tuner.domain.outcomes import OutcomeRecord

CHOICE = Configuration(nodes=1, batch_size=64, learning_rate=0.1, strategy="all_reduce")


@pytest.fixture
def store(database_url: str) -> Iterator[Storage]:
    with open_storage(database_url) as store:
        yield store


@pytest.fixture
def study(store: Storage) -> StudyRecord:
    return store.ledger.open_study("digits", "f", {"workload": {"command": "python train.py"}})


def outcome(study: StudyRecord, key: str, **changes: object) -> OutcomeRecord:
    values = {
        "configuration": CHOICE,
        "reached": True,
        "seconds": 0.1 + 0.2,
        "source": "test",
        "created_at": 1.5,
    }
    return OutcomeRecord(study_id=study.study_id, report_key=key, **{**values, **changes})  # type: ignore[arg-type]


def test_outcomes_are_read_as_they_were_added_oldest_first(store: Storage, study: StudyRecord) -> None:
    added = [outcome(study, "a"), outcome(study, "b", reached=False, seconds=3.2e9, source="ü" * 255)]
    assert [store.outcomes.add(one) for one in added] == [True, True]
    assert store.outcomes.of_study(study.study_id) == added
    assert store.outcomes.of_study(study.study_id + 1) == []
    assert store.outcomes.study(study.study_id) == study
    with pytest.raises(NotFoundError, match="there is no study 99"):
        store.outcomes.study(99)


def test_a_repeated_report_is_stored_once_also_at_the_same_time(store: Storage, study: StudyRecord) -> None:
    found: list[bool] = []
    threads = [
        threading.Thread(target=lambda: found.append(store.outcomes.add(outcome(study, "a"))))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [False, False, False, True]
    assert len(store.outcomes.of_study(study.study_id)) == 1


def test_the_owners_of_a_study_are_the_tokens_of_its_jobs(store: Storage, study: StudyRecord) -> None:
    token, _ = store.tokens.create("a", Role.SUBMIT)
    store.queue.submit(NewJob(name="digits", job_file="", token_id=token.token_id))
    lease = store.queue.claim("w", labels=(), lease_seconds=60, most_failures=3)
    assert lease is not None
    assert store.outcomes.owners(study.study_id) == set()
    store.queue.set_study(lease, study.study_id)
    assert store.outcomes.owners(study.study_id) == {token.token_id}
