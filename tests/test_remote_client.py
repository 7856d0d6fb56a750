"""The client for trainers that Paceline cannot start, against a made-up server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import paceline_client
import paceline_remote
import pytest

SLICE = {
    "slice_id": 5,
    "job_id": 1,
    "run": "0001",
    "values": {"batch_size": 64},
    "purpose": "training",
    "metric": "accuracy",
    "checkpoint": None,
    "until": {"scores": 1},
    "lease_seconds": 600.0,
    "next_number": 1,
}


class Made:
    """A server whose answers are stated in advance; the last answer of a path is repeated."""

    def __init__(self) -> None:
        self.answers: dict[str, list[tuple[int, dict[str, Any]]]] = {}
        self.requests: list[tuple[str, dict[str, Any], dict[str, str]]] = []
        made = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                made.requests.append((self.path, body, dict(self.headers)))
                stated = made.answers[self.path]
                status, answer = stated.pop(0) if len(stated) > 1 else stated[0]
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "/api/v1/elsewhere")
                self.end_headers()
                self.wfile.write(json.dumps(answer).encode())

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def bodies(self, path: str) -> list[dict[str, Any]]:
        return [body for requested, body, _ in self.requests if requested.endswith(path)]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[Made]:
    monkeypatch.setattr(paceline_remote, "_FIRST_PAUSE", 0.001)
    made = Made()
    made.answers["/api/v1/jobs/1/ask"] = [
        (200, {"state": "wait", "retry_seconds": 0.0, "job_state": "queued", "reason": "no worker is there"}),
        (200, {"state": "slice", "slice": SLICE, "job_state": "running", "reason": ""}),
        (200, {"state": "ended", "job_state": "succeeded", "reason": "", "recommendation": {"a": 1}}),
    ]
    made.answers["/api/v1/slices/5/reports"] = [(200, {"answer": "continue"})]
    made.answers["/api/v1/slices/5/finish"] = [(200, {"answer": "continue"})]
    yield made
    made.close()


def study_of(made: Made) -> paceline_remote.Study:
    return paceline_client.connect(made.url, "secret").study(1)


def test_a_study_is_opened_with_a_key_and_a_token(made: Made, tmp_path: Path) -> None:
    made.answers["/api/v1/studies"] = [(503, {}), (201, {"job_id": 7})]
    path = tmp_path / "digits.toml"
    path.write_text("text")
    study = paceline_client.connect(f"{made.url}/", "secret").open(path, parallel=2)
    assert study.job_id == 7
    bodies = made.bodies("/studies")
    assert bodies[0] == {"job_file": "text", "name": "digits", "options": {"parallel": 2}}
    # The request was repeated with the same key, so that it adds no second job.
    keys = [headers["Idempotency-Key"] for _, _, headers in made.requests]
    assert (len(keys), len(set(keys))) == (2, 1)
    assert made.requests[0][2]["Authorization"] == "Bearer secret"


def test_a_trainer_reports_until_it_is_asked_to_stop(made: Made, caplog: pytest.LogCaptureFixture) -> None:
    made.answers["/api/v1/slices/5/reports"] = [(200, {"answer": "continue"}), (200, {"answer": "stop"})]
    study = study_of(made)
    for work in study.slices("me"):
        work.begin()
        goes_on = [work.report(samples=64)]
        goes_on += [work.report(samples=64 * n, value=0.1 * n) for n in (2, 3)]
        work.finish(checkpoint="s3://c")
    assert (goes_on, study.state, study.recommendation) == ([True, True, False], "succeeded", {"a": 1})
    assert caplog.messages == ["job 1 is queued: no worker is there"]
    first, second = made.bodies("/reports")
    # Lines without a score wait for the next line with one.
    assert [line.get("samples") for line in first["lines"]] == [0, 64, 128]
    assert first["lines"][2]["accuracy"] == 0.2
    assert (first["number"], second["number"]) == (1, 4)
    assert [line["process"] for line in first["lines"]] == ["me/5/1"] * 3
    assert made.bodies("/finish") == [{"end": "paused", "checkpoint": "s3://c"}]
    assert made.bodies("/ask") == [{"trainer": "me"}] * 3


def test_waiting_for_the_server_is_no_training(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(paceline_remote.time, "monotonic", lambda: now[0])
    work = paceline_remote.Slice(paceline_client.connect(made.url, "secret"), SLICE, "me")
    send = work._send

    def slow_send(*arguments: Any) -> None:
        send(*arguments)
        now[0] += 5.0

    monkeypatch.setattr(work, "_send", slow_send)
    for number in (1, 2, 3):
        now[0] += 1.0
        work.report(samples=number, value=0.5)
    work.finish()
    times = [line["time"] for body in made.bodies("/reports") for line in body["lines"]]
    assert times == [101.0, 102.0, 103.0]


def test_a_line_does_not_wait_for_the_thread_that_keeps_the_lease(made: Made) -> None:
    work = paceline_remote.Slice(paceline_client.connect(made.url, "secret"), SLICE, "me")
    with work._lock:
        # As if that thread waited for the server.
        reported = threading.Thread(target=work.report, kwargs={"samples": 1}, daemon=True)
        reported.start()
        reported.join(10.0)
        assert not reported.is_alive()
    work.finish()
    assert [line["samples"] for body in made.bodies("/reports") for line in body["lines"]] == [1]


def test_a_lost_slice_ends_without_further_requests(made: Made) -> None:
    made.answers["/api/v1/slices/5/reports"] = [(200, {"answer": "lost"})]
    for work in study_of(made).slices("me"):
        assert not work.report(samples=64, value=0.5)
        assert work.is_lost
        assert not work.report(samples=128, value=0.6)
    assert len(made.bodies("/reports")) == 1
    assert made.bodies("/finish") == []


def test_a_slice_that_is_not_finished_is_paused_and_a_failed_one_says_why(made: Made) -> None:
    for work in study_of(made).slices("me"):
        work.report(samples=64)
    assert made.bodies("/finish") == [{"end": "paused", "checkpoint": None}]
    work = paceline_remote.Slice(paceline_client.connect(made.url, "secret"), SLICE, "me")
    work.fail("out of memory\0")
    assert made.bodies("/finish")[1:] == [{"end": "failed", "reason": "out of memory"}]


def test_a_thread_renews_the_lease(made: Made) -> None:
    found = {**SLICE, "lease_seconds": 0.0}
    work = paceline_remote.Slice(paceline_client.connect(made.url, "secret"), found, "me")
    while not made.bodies("/reports"):
        pass
    work.finish()
    assert made.bodies("/reports")[0]["lines"] == []


@pytest.mark.parametrize("status", [403, 302])
def test_a_refusal_is_an_error_in_the_words_of_the_server(made: Made, status: int) -> None:
    made.answers["/api/v1/jobs/1/ask"] = [(status, {"detail": "job 1 belongs to another token"})]
    with pytest.raises(
        paceline_remote.ServerError, match=rf"/jobs/1/ask: {status}: job 1 belongs to another"
    ):
        next(study_of(made).slices())


def test_a_server_that_cannot_be_reached_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paceline_remote, "_RETRY_SECONDS", 0.0)
    server = paceline_client.connect("http://127.0.0.1:1", "secret")
    with pytest.raises(paceline_remote.ServerError, match=r"the server cannot be reached: .*refused"):
        next(server.study(1).slices())


def test_an_address_and_a_token_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PACELINE_TOKEN", raising=False)
    with pytest.raises(paceline_remote.ServerError, match="set PACELINE_TOKEN"):
        paceline_client.connect("http://127.0.0.1:1")
    with pytest.raises(paceline_remote.ServerError, match="is not an address of a server"):
        paceline_client.connect("example.org", "secret")
