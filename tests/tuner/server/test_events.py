from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable

import pytest

pytest.importorskip("fastapi", reason="needs the extra `serve`")

from fastapi.testclient import TestClient

from storage.database import Storage
from tests.tuner.server.finished_job import JOB, add_finished_job
from tuner.domain.job_queue import Role
from tuner.server import events
from tuner.server.limits import Streams


def messages(text: str) -> list[dict[str, str]]:
    """The messages of a stream of server-sent events; comments and the retry time are left out."""
    blocks = [dict(line.split(": ", 1) for line in block.splitlines()) for block in text.split("\n\n")]
    return [block for block in blocks if "event" in block]


def test_the_events_of_an_ended_job_are_a_stream_that_ends(
    client_of: Callable[..., TestClient], store: Storage
) -> None:
    client, job_id = client_of(Role.READ), add_finished_job(store)
    answer = client.get(f"/api/v1/jobs/{job_id}/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    found = messages(answer.text)
    assert [m["event"] for m in found] == ["job"] * 4
    assert [m["id"] for m in found] == ["1", "2", "3", "4"]
    decision = json.loads(found[2]["data"])
    assert (decision["text"], decision["data"]) == ("trains 2 nodes\nnext line", {"seconds": None})
    later = client.get(f"/api/v1/jobs/{job_id}/events", headers={"Last-Event-ID": "3"})
    assert [m["id"] for m in messages(later.text)] == ["4"]


def test_events_are_a_list_where_the_client_does_not_wait(
    client_of: Callable[..., TestClient], store: Storage
) -> None:
    client, job_id = client_of(Role.READ), add_finished_job(store)
    page = client.get(f"/api/v1/jobs/{job_id}/events?wait=false&after=1&limit=2").json()
    assert [event["number"] for event in page["events"]] == [2, 3]
    assert not page["has_ended"]
    assert client.get(f"/api/v1/jobs/{job_id}/events?wait=false&after=3").json()["has_ended"]


def test_a_stream_waits_for_new_events_and_sends_comments(
    client_of: Callable[..., TestClient], store: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(events, "_HEARTBEAT_SECONDS", 0.02)
    client = client_of()
    job_id = client.post("/api/v1/jobs", json={"job_file": JOB}).json()["job_id"]

    def later() -> None:
        time.sleep(0.5)
        store.queue.cancel(job_id, "enough")

    thread = threading.Thread(target=later)
    thread.start()
    text = client.get(f"/api/v1/jobs/{job_id}/events").text
    thread.join()
    assert ": no new events\n\n" in text
    assert [m["event"] for m in messages(text)] == ["job", "job"]


def test_a_stream_ends_after_some_time_so_that_the_token_is_checked_again(
    client_of: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(events, "_LONGEST_SECONDS", 0.05)
    client = client_of()
    job_id = client.post("/api/v1/jobs", json={"job_file": JOB}).json()["job_id"]
    found = messages(client.get(f"/api/v1/jobs/{job_id}/events").text)
    assert [m["event"] for m in found] == ["job"]


def test_a_stream_ends_soon_after_its_token_was_revoked(
    client_of: Callable[..., TestClient], store: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(events, "_CHECK_SECONDS", 0.05)
    client = client_of()
    job_id = client.post("/api/v1/jobs", json={"job_file": JOB}).json()["job_id"]
    (token,) = store.tokens.tokens()
    thread = threading.Timer(0.1, store.tokens.revoke, [token.token_id])
    thread.start()
    found = messages(client.get(f"/api/v1/jobs/{job_id}/events").text)  # does not end without the check
    thread.join()
    assert [m["event"] for m in found] == ["job"]
    assert client.get(f"/api/v1/jobs/{job_id}/events").status_code == 401


def test_a_token_has_a_limited_number_of_streams(
    client_of: Callable[..., TestClient], store: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Streams, "MOST", 0)
    answer = client_of(Role.READ).get(f"/api/v1/jobs/{add_finished_job(store)}/events")
    assert answer.status_code == 429


def test_a_strange_event_id_or_job_is_refused(client_of: Callable[..., TestClient], store: Storage) -> None:
    client, job_id = client_of(Role.READ), add_finished_job(store)
    assert client.get("/api/v1/jobs/99/events").status_code == 404
    for value in ("x", "-1", "99999999999999999999"):
        answer = client.get(f"/api/v1/jobs/{job_id}/events", headers={"Last-Event-ID": value})
        assert answer.status_code == 422
