from __future__ import annotations

from collections.abc import Callable

import pytest

pytest.importorskip("fastapi", reason="needs the extra `serve`")

from fastapi.testclient import TestClient

from tuner.domain.job_queue import Role

JOB = """
[workload]
path = "tuner.workloads.digits:Digits"
[goal]
metric = "accuracy"
target = 0.9
[space]
batch_size = [64, 128]
learning_rate = [0.1, 0.2]
[budget]
time = "2m"
"""


def test_a_job_is_submitted_listed_and_cancelled(client_of: Callable[..., TestClient]) -> None:
    client = client_of()
    made = client.post("/api/v1/jobs", json={"job_file": JOB, "name": "digits"})
    assert made.status_code == 201, made.text
    job = made.json()
    assert (job["name"], job["state"], job["limit"]["seconds"]) == ("digits", "queued", 120.0)
    assert [found["job_id"] for found in client.get("/api/v1/jobs").json()["jobs"]] == [job["job_id"]]
    cancelled = client.post(f"/api/v1/jobs/{job['job_id']}/cancel").json()
    assert cancelled["state"] == "cancelled"


def test_errors_are_problem_details_in_the_words_of_the_terminal(
    client_of: Callable[..., TestClient],
) -> None:
    client = client_of()
    missing = client.get("/api/v1/jobs/7")
    assert missing.status_code == 404
    assert missing.headers["content-type"] == "application/problem+json"
    assert missing.json()["detail"] == "there is no job 7"
    faulty = client.post("/api/v1/jobs", json={"job_file": JOB.replace("target", "targte")})
    assert faulty.status_code == 422
    assert faulty.json()["detail"].startswith("job.toml: 2 problems")
    assert "goal.targte" in faulty.json()["detail"]


def test_each_role_may_do_what_it_says(client_of: Callable[..., TestClient]) -> None:
    reader, submitter = client_of(Role.READ), client_of(Role.SUBMIT)
    assert reader.post("/api/v1/jobs", json={"job_file": JOB}).status_code == 403
    assert submitter.post("/api/v1/jobs/1/approve").status_code == 403
    reader.headers["Authorization"] = "Bearer paceline_1_wrong"
    refused = reader.get("/api/v1/jobs")
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")


def test_a_plan_submits_nothing(client_of: Callable[..., TestClient]) -> None:
    client = client_of()
    plan = client.post("/api/v1/jobs/plan", json={"job_file": JOB}).json()
    assert (plan["state"], plan["limit"]["seconds"]) == ("queued", 120.0)
    assert client.get("/api/v1/jobs").json()["jobs"] == []


def test_a_job_is_paused_resumed_and_moved(client_of: Callable[..., TestClient]) -> None:
    client = client_of()
    url = f"/api/v1/jobs/{client.post('/api/v1/jobs', json={'job_file': JOB}).json()['job_id']}"
    assert client.post(f"{url}/resume").status_code == 409
    assert client.post(f"{url}/pause").json()["state"] == "paused"
    assert client.post(f"{url}/resume").json()["state"] == "queued"
    assert client.put(f"{url}/priority", json={"priority": 5}).json()["priority"] == 5
    assert client.put(f"{url}/priority", json={"priority": 5000}).status_code == 422
    refused = client.put(f"{url}/priority", json={"priority": 11})
    assert refused.status_code == 403
    assert "priority = 11: a token with the role submit may set at most 10" in refused.json()["detail"]
    assert client.post("/api/v1/jobs", json={"job_file": JOB, "priority": 11}).status_code == 403
    assert client.put(f"{url}/priority", json={"priority": -5}).json()["priority"] == -5
    admin = client_of(Role.ADMIN)
    assert admin.put(f"{url}/priority", json={"priority": 1000}).json()["priority"] == 1000
    other = client_of()
    for action in ("cancel", "pause", "resume"):
        refused = other.post(f"{url}/{action}")
        assert (refused.status_code, "belongs to another token" in refused.text) == (403, True)
    assert other.put(f"{url}/priority", json={"priority": 1}).status_code == 403
    assert client_of(Role.ADMIN).post(f"{url}/cancel").json()["reason"] == "by a admin token"


def test_a_repeated_request_with_a_key_adds_one_job(client_of: Callable[..., TestClient]) -> None:
    client, key = client_of(), {"Idempotency-Key": "k1"}
    answers = [client.post("/api/v1/jobs", json={"job_file": JOB}, headers=key) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 200]
    assert answers[0].json()["job_id"] == answers[1].json()["job_id"]
    other = client.post("/api/v1/jobs", json={"job_file": JOB, "priority": 1}, headers=key)
    assert (other.status_code, "was used for another request" in other.text) == (409, True)
    assert client_of().post("/api/v1/jobs", json={"job_file": JOB}, headers=key).status_code == 201


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".", "a" * 65, "a\u0000", "x\n"])
def test_a_name_that_is_no_file_name_is_refused(client_of: Callable[..., TestClient], name: str) -> None:
    answer = client_of().post("/api/v1/jobs", json={"job_file": JOB, "name": name})
    assert (answer.status_code, "body.name" in answer.json()["detail"]) == (422, True)


@pytest.mark.parametrize(
    "body", [b"{", b"[" * 100_000, b'{"job_file": "\\ud800"}', b"\xff", b"null", b'{"job_file": 1e999}']
)
def test_a_body_that_cannot_be_read_is_refused(client_of: Callable[..., TestClient], body: bytes) -> None:
    answer = client_of().post("/api/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422), answer.text
