from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier
from typing import Any

import pytest

from storage import open_storage
from storage.database import Storage
from tuner.domain.job_queue import JobRecord, NewJob, Quota, QuotaError, Role

NUM_CLIENTS = 8


@pytest.fixture
def store(database_url: str) -> Iterator[Storage]:
    with open_storage(database_url) as store:
        yield store


def at_once(action: Callable[[int], Any]) -> list[Any]:
    """What the action returns, or the error that it raises, for several clients at the same moment."""
    barrier = Barrier(NUM_CLIENTS)

    def act(client: int) -> Any:
        barrier.wait()
        try:
            return action(client)
        except QuotaError as error:
            return error

    with ThreadPoolExecutor(NUM_CLIENTS) as pool:
        return list(pool.map(act, range(NUM_CLIENTS)))


def test_simultaneous_requests_with_one_key_add_one_job(store: Storage) -> None:
    token, _ = store.tokens.create("ci", Role.SUBMIT)
    job = NewJob(name="a", job_file="", token_id=token.token_id, idempotency_key="k", request_digest="1")
    answers: list[tuple[JobRecord, bool]] = at_once(lambda _: store.queue.submit(job))
    assert len({record.job_id for record, _ in answers}) == 1
    assert sorted(is_new for _, is_new in answers) == [False] * (NUM_CLIENTS - 1) + [True]
    assert len(store.queue.jobs()) == 1
    # Another token may use the same key.
    other, _ = store.tokens.create("other", Role.SUBMIT)
    assert store.queue.submit(replace(job, token_id=other.token_id))[1]


def test_simultaneous_requests_do_not_exceed_a_quota(store: Storage) -> None:
    token, _ = store.tokens.create("ci", Role.SUBMIT)
    job = NewJob(name="a", job_file="", token_id=token.token_id, limit={"dollars": 2.0})
    answers = at_once(lambda _: store.queue.submit(job, quota=Quota(dollars=7.0)))
    assert sum(isinstance(answer, QuotaError) for answer in answers) == NUM_CLIENTS - 3
    assert store.tokens.usage(token.token_id)[1].dollars == 6.0
