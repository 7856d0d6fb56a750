from __future__ import annotations

from collections.abc import Callable

import pytest

pytest.importorskip("fastapi", reason="needs the extra `serve`")

from fastapi.testclient import TestClient

from storage.database import Storage
from tests.tuner.domain.test_recommendation import _recommendation
from tuner.domain.job_queue import NewJob, Role
from tuner.domain.ledger import RecommendationRecord

Clients = Callable[..., TestClient]


@pytest.fixture
def study_id(store: Storage, client_of: Clients) -> int:
    """The study of a job of the first token, with a recommendation."""
    client_of()
    store.queue.submit(NewJob(name="digits", job_file="", token_id=1))
    lease = store.queue.claim("w", labels=(), lease_seconds=60, most_failures=3)
    assert lease is not None
    study = store.ledger.open_study("digits", "f", {"workload": {"command": "python train.py"}})
    made = _recommendation().to_dict()
    store.ledger.add_recommendation(
        RecommendationRecord(study_id=study.study_id, created_at=1.0, recommendation=made)
    )
    store.queue.set_study(lease, study.study_id)
    return study.study_id


def client_of_first_token(client_of: Clients, store: Storage) -> TestClient:
    """A client of another token to which the job was given."""
    client = client_of()
    newest = store.tokens.tokens()[-1].token_id
    store.queue.submit(NewJob(name="mine", job_file="", token_id=newest))
    lease = store.queue.claim("w", labels=(), lease_seconds=60, most_failures=3)
    assert lease is not None
    store.queue.set_study(lease, 1)
    return client


def test_an_outcome_is_stored_once_and_listed(client_of: Clients, store: Storage, study_id: int) -> None:
    client = client_of_first_token(client_of, store)
    body = {"study_id": study_id, "seconds": 44.0, "key": "run-1", "source": "launch file"}
    made = client.post("/api/v1/outcomes", json=body)
    assert made.status_code == 201, made.text
    assert made.json()["words"] == "predicted 20 s (10 s to 30 s), real 44 s (launch file)"
    repeated = client.post("/api/v1/outcomes", json={**body, "seconds": 45.0})
    assert (repeated.status_code, repeated.json()) == (200, made.json())
    assert client.get("/api/v1/jobs/1/outcomes").json() == [made.json()]
    assert made.json()["predicted_seconds"] == 20.0


def test_outcomes_need_the_token_of_the_job(client_of: Clients, store: Storage, study_id: int) -> None:
    body = {"study_id": study_id, "seconds": 44.0}
    assert client_of().post("/api/v1/outcomes", json=body).status_code == 403
    assert client_of(Role.READ).post("/api/v1/outcomes", json=body).status_code == 403
    assert client_of(Role.ADMIN).post("/api/v1/outcomes", json=body).status_code == 201
    assert client_of().post("/api/v1/outcomes", json={**body, "study_id": 9}).status_code == 404


@pytest.mark.parametrize(
    "changes", ['"seconds": 0', '"seconds": -1', '"seconds": NaN', '"seconds": 1, "values": {"x": 1}']
)
def test_absurd_outcomes_are_refused(client_of: Clients, study_id: int, changes: str) -> None:
    text = f'{{"study_id": {study_id}, {changes}}}'
    client = client_of(Role.ADMIN)
    sent = client.post("/api/v1/outcomes", content=text, headers={"Content-Type": "application/json"})
    assert sent.status_code == 422, sent.text
