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
