from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest

pytest.importorskip("fastapi", reason="needs the extra `serve`")

from fastapi.testclient import TestClient

from storage.database import Storage
from tests.tuner.server.finished_job import JOB, add_finished_job
from tuner.domain.job_queue import Quota, Role


def test_tokens_are_created_listed_and_revoked_by_administrators(
    client_of: Callable[..., TestClient],
) -> None:
    admin = client_of(Role.ADMIN)
    body = {"name": "ci", "role": "submit", "expires_in_days": 1, "quota": {"jobs": 2}}
    made = admin.post("/api/v1/tokens", json=body)
    assert made.status_code == 201
    token = made.json()
    assert (token["name"], token["quota"]) == (
        "ci",
        {
            "jobs": 2,
            "node_hours": None,
            "dollars": None,
            "stored_bytes": None,
        },
    )
    user = client_of()
    user.headers["Authorization"] = f"Bearer {token['token']}"
    assert user.get("/api/v1/me").json()["token"]["token_id"] == token["token_id"]
    assert user.get("/api/v1/tokens").status_code == 403
    assert token["token"] not in admin.get("/api/v1/tokens").text
    assert admin.delete(f"/api/v1/tokens/{token['token_id']}").json()["revoked_at"] is not None
    assert user.get("/api/v1/me").status_code == 401
    own = admin.get("/api/v1/me").json()["token"]["token_id"]
    assert admin.delete(f"/api/v1/tokens/{own}").status_code == 409
    assert admin.delete("/api/v1/tokens/99").status_code == 404


def test_what_was_done_is_in_the_audit_log(client_of: Callable[..., TestClient]) -> None:
    admin, user = client_of(Role.ADMIN), client_of()
    job_id = user.post("/api/v1/jobs", json={"job_file": JOB}).json()["job_id"]
    user.post(f"/api/v1/jobs/{job_id}/pause")
    user.post(f"/api/v1/jobs/{job_id}/pause")
    page = admin.get("/api/v1/audit?limit=1").json()
    assert [(entry["action"], entry["target"]) for entry in page["entries"]] == [
        ("job.pause", f"job {job_id}")
    ]
    assert page["entries"][0]["address"] == "testclient"
    older = admin.get(f"/api/v1/audit?before={page['next_before']}").json()
    assert [entry["action"] for entry in older["entries"]] == ["job.submit"]
    assert user.get("/api/v1/audit").status_code == 403


def test_a_worker_is_listed_and_drained(client_of: Callable[..., TestClient], store: Storage) -> None:
    add_finished_job(store)
    admin = client_of(Role.ADMIN)
    (worker,) = admin.get("/api/v1/workers").json()
    assert (worker["name"], worker["draining"], worker["slots"]) == ("host:1:ab", False, 2)
    assert client_of().post(f"/api/v1/workers/{worker['name']}/drain").status_code == 403
    assert admin.post(f"/api/v1/workers/{worker['name']}/drain").status_code == 204
    assert admin.get("/api/v1/workers").json()[0]["draining"]
    assert admin.post("/api/v1/workers/nobody/drain").status_code == 404
    assert admin.post("/api/v1/workers/a%00b/drain").status_code == 422


def test_me_says_what_the_jobs_of_the_token_count_for(client_of: Callable[..., TestClient]) -> None:
    client = client_of(Role.SUBMIT, Quota(jobs=1))
    client.post("/api/v1/jobs", json={"job_file": JOB})
    me = client.get("/api/v1/me").json()
    assert (me["jobs"], me["usage"]["seconds"], me["token"]["quota"]["jobs"]) == (1, 120.0, 1)
    refused = client.post("/api/v1/jobs", json={"job_file": JOB})
    assert (refused.status_code, refused.json()["title"]) == (403, "Quota exceeded")


def test_a_file_is_uploaded_once_and_its_content_is_checked(client_of: Callable[..., TestClient]) -> None:
    client, content = client_of(), b"x" * 2_000_000
    url = f"/api/v1/files/{hashlib.sha256(content).hexdigest()}"
    assert client.head(url).status_code == 404
    assert client.put(url, content=content).json()["num_bytes"] == len(content)
    assert client.head(url).headers["x-paceline-bytes"] == str(len(content))
    wrong = client.put(url, content=b"y")
    assert (wrong.status_code, "upload the file again" in wrong.json()["detail"]) == (422, True)
    assert client.put("/api/v1/files/abc", content=b"").status_code == 422
    assert client_of(Role.READ).put(url, content=content).status_code == 403


def test_metrics_are_those_of_prometheus(client_of: Callable[..., TestClient], store: Storage) -> None:
    client = client_of(Role.READ)
    add_finished_job(store)
    for path in ("/api/v1/jobs/1", "/api/v1/jobs/2", "/random1", "/random2"):
        client.get(path)
    client.request("STRANGE", "/api/v1/jobs")
    text = client.get("/metrics").text
    for line in (
        'paceline_http_requests_total{method="GET",route="/api/v1/jobs/{job_id}",status="200"} 1.0',
        'paceline_http_requests_total{method="GET",route="/api/v1/jobs/{job_id}",status="404"} 1.0',
        'paceline_http_requests_total{method="GET",route="other",status="404"} 2.0',
        'paceline_jobs{state="succeeded"} 1.0',
        'paceline_jobs{state="queued"} 0.0',
        "paceline_queue_age_seconds 0.0",
        "paceline_workers 1.0",
        "paceline_slots 2.0",
    ):
        assert f"\n{line}\n" in text
    assert "STRANGE" not in text
    client.headers.pop("Authorization")
    assert client.get("/metrics").status_code == 401
    assert client.get("/healthz").json() == {"status": "ok"}
