from __future__ import annotations

import time
from collections.abc import Callable

import pytest

pytest.importorskip("fastapi", reason="needs the extra `serve`")

from fastapi.testclient import TestClient

from storage.database import Storage
from tuner.domain.job_queue import JobLease, JobState, WorkerRecord
from tuner.server import api_trainers

JOB = """
[workload]
command = "our own trainer"
[cluster]
launcher = "remote"
[goal]
metric = "accuracy"
target = 0.9
[space]
batch_size = [64, 128]
learning_rate = [0.1, 0.2]
[budget]
time = "2m"
"""
Clients = Callable[..., TestClient]
INSTRUCTIONS = {
    "values": {"batch_size": 64, "learning_rate": 0.1},
    "purpose": "training",
    "metric": "value",
    "checkpoint": None,
    "until": {"samples": None, "steps": None, "seconds": None, "scores": 1},
    "scored_samples": 0,
}


def offered(store: Storage) -> tuple[JobLease, int]:
    lease = store.queue.claim("w", labels=(), lease_seconds=60, most_failures=3)
    assert lease is not None
    return lease, store.remote_slices.offer(lease, "probe-1", INSTRUCTIONS, lease_seconds=30)


def test_a_trainer_opens_a_study_and_is_asked_to_wait_for_a_worker(client_of: Clients) -> None:
    client = client_of()
    job = client.post("/api/v1/studies", json={"job_file": JOB, "name": "remote"}).json()
    answer = client.post(f"/api/v1/jobs/{job['job_id']}/ask", json={"trainer": "a"})
    assert answer.headers["retry-after"] == "1"
    assert (answer.json()["state"], answer.json()["job_state"]) == ("wait", "queued")
    assert answer.json()["reason"].endswith("start one with: paceline worker")


def test_a_trainer_hears_that_all_slots_are_in_use(client_of: Clients, store: Storage) -> None:
    client, now = client_of(), time.time()
    others = [client.post("/api/v1/studies", json={"job_file": JOB}).json()["job_id"] for _ in range(2)]
    worker = WorkerRecord(
        name="w",
        version="1",
        labels=(),
        slots=1,
        draining=False,
        started_at=now,
        seen_at=now,
        stopped_at=None,
    )
    store.queue.report_worker(worker)

    def reason() -> str:
        return str(client.post(f"/api/v1/jobs/{others[1]}/ask", json={"trainer": "a"}).json()["reason"])

    assert reason() == "a worker is about to start the search"
    offered(store)
    assert reason().startswith("the slots of all workers (1) are in use by other jobs")
    store.queue.drain_worker("w")
    assert reason().endswith("start one with: paceline worker")


def test_a_trainer_runs_a_slice(client_of: Clients, store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_trainers, "_DECISION_SECONDS", 0.0)
    client = client_of()
    job_id = client.post("/api/v1/studies", json={"job_file": JOB}).json()["job_id"]
    lease, number = offered(store)
    found = client.post(f"/api/v1/jobs/{job_id}/ask", json={"trainer": "a"}).json()["slice"]
    assert found["slice_id"] == number
    assert found["values"] == {"batch_size": 64, "learning_rate": 0.1}
    assert (found["run"], found["checkpoint"], found["until"]["scores"]) == ("probe-1", None, 1)
    lines = [{"samples": 64, "value": 0.5}]
    body = {"number": found["next_number"], "lines": lines}
    reported = client.post(f"/api/v1/slices/{number}/reports", json=body)
    assert reported.json() == {"answer": "continue"}, reported.text
    store.remote_slices.follow(number, after=1, num_read=1, stop=True)
    again = client.post(f"/api/v1/jobs/{job_id}/ask", json={"trainer": "a"}).json()["slice"]
    assert (again["slice_id"], again["next_number"]) == (number, 2)
    assert client.post(f"/api/v1/slices/{number}/reports", json={}).json() == {"answer": "stop"}
    finish = {"end": "paused", "checkpoint": "disk:/run-1.pt"}
    assert client.post(f"/api/v1/slices/{number}/finish", json=finish).json() == {"answer": "continue"}
    assert client.post(f"/api/v1/slices/{number}/reports", json={}).json() == {"answer": "lost"}
    store.queue.finish(lease, JobState.FAILED, exit_code=3, reason="no gain")
    ended = client.post(f"/api/v1/jobs/{job_id}/ask", json={"trainer": "a"}).json()
    assert (ended["state"], ended["reason"], ended["recommendation"]) == ("ended", "no gain", None)


def test_the_answer_to_a_score_waits_for_the_search(client_of: Clients, store: Storage) -> None:
    client = client_of()
    job_id = client.post("/api/v1/studies", json={"job_file": JOB}).json()["job_id"]
    _, number = offered(store)
    client.post(f"/api/v1/jobs/{job_id}/ask", json={"trainer": "a"})
    store.remote_slices.follow(number, after=0, num_read=1, stop=False)  # the search knows line 1 already
    body = {"number": 1, "lines": [{"samples": 64, "value": 0.5}]}
    assert client.post(f"/api/v1/slices/{number}/reports", json=body).json() == {"answer": "continue"}


def test_diverged_values_are_accepted(client_of: Clients, store: Storage) -> None:
    client = client_of()
    job_id = client.post("/api/v1/studies", json={"job_file": JOB}).json()["job_id"]
    _, number = offered(store)
    client.post(f"/api/v1/jobs/{job_id}/ask", json={"trainer": "a"})
    text = '{"number": 1, "lines": [{"samples": 64, "loss": NaN}]}'
    sent = client.post(
        f"/api/v1/slices/{number}/reports", content=text, headers={"Content-Type": "application/json"}
    )
    assert sent.status_code == 200, sent.text
    _, lines = store.remote_slices.follow(number, after=0, num_read=0, stop=False)
    assert lines[0].data["loss"] != lines[0].data["loss"]


def test_a_trainer_sees_only_the_jobs_of_its_token(client_of: Clients, store: Storage) -> None:
    owner, other = client_of(), client_of()
    job_id = owner.post("/api/v1/studies", json={"job_file": JOB}).json()["job_id"]
    _, number = offered(store)
    assert other.post(f"/api/v1/jobs/{job_id}/ask", json={"trainer": "a"}).status_code == 403
    assert other.post(f"/api/v1/slices/{number}/reports", json={}).status_code == 403
    assert other.post(f"/api/v1/slices/{number}/finish", json={"end": "paused"}).status_code == 403
    assert owner.post("/api/v1/slices/99/reports", json={}).status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {"number": 0},
        {"lines": [{"samples": [1]}]},
        {"lines": [{}] * 1001},
        {"checkpoint": "a\nb"},
        {"lines": [{"text": "\0"}]},
    ],
)
def test_reports_that_are_not_valid_are_refused(client_of: Clients, body: object) -> None:
    assert client_of().post("/api/v1/slices/1/reports", json=body).status_code == 422


def test_a_job_with_another_launcher_is_refused(client_of: Clients) -> None:
    client = client_of()
    local = JOB.replace('launcher = "remote"', "")
    refused = client.post("/api/v1/studies", json={"job_file": local})
    assert (refused.status_code, "launcher = 'remote'" in refused.json()["detail"]) == (409, True)
