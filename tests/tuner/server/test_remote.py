"""The client of the command line against a real server."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import uvicorn

from storage.database import Storage
from tuner.domain.job_queue import Role
from tuner.server.app import create_app
from tuner.server.settings import ServerSettings
from tuner.service import remote
from tuner.service.remote import RemoteService, ServiceError, UnreachableError


@pytest.fixture
def url(store: Storage, settings: ServerSettings) -> Iterator[str]:
    config = uvicorn.Config(create_app(store, settings), port=0, log_level="error")
    with config.bind_socket() as listening:
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture
def service(url: str, store: Storage) -> RemoteService:
    return RemoteService(url, store.tokens.create("ci", Role.SUBMIT)[1])


def test_errors_have_the_words_and_the_exit_code_of_the_server(service: RemoteService) -> None:
    with pytest.raises(ServiceError, match="there is no job 7") as missing:
        service.get("/jobs/7")
    assert (missing.value.status, missing.value.exit_code) == (404, 2)
    with pytest.raises(ServiceError, match=r"job\.toml: .* problems") as faulty:
        service.submit({"job_file": "[goal]"})
    assert faulty.value.exit_code == 2


def test_a_wrong_token_is_named(service: RemoteService) -> None:
    wrong = RemoteService(service._url, "paceline_1_x")
    with pytest.raises(ServiceError, match="the access token is unknown, expired or revoked; set PACELINE"):
        wrong.get("/jobs")


def test_a_repeated_submission_with_a_key_is_one_job(service: RemoteService) -> None:
    body = {"job_file": JOB}
    first = service.submit(body, "k")
    assert service.submit(body, "k")["job_id"] == first["job_id"]
    assert service.submit(body)["job_id"] != first["job_id"]
    assert len(service.get("/jobs", name="job", limit=1)["jobs"]) == 1


@pytest.mark.parametrize("url", ["ftp://x", "localhost:8080", "", "http://"])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ServiceError, match="is not the URL of a service"):
        RemoteService(url, "t")


@pytest.mark.parametrize("token", ["a b", "a\nX-Other: 1", "ü"])
def test_a_token_that_would_break_the_header_is_refused(token: str) -> None:
    with pytest.raises(ServiceError, match="characters that no token has"):
        RemoteService("http://127.0.0.1:1", token)


def test_a_server_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_RETRY_SECONDS", 0.0)
    with pytest.raises(UnreachableError, match=r"http://127\.0\.0\.1:9 cannot be reached") as error:
        RemoteService("http://127.0.0.1:9", "t").get("/jobs")
    assert error.value.exit_code == 6


def test_the_token_does_not_follow_a_redirect() -> None:
    seen = []

    class Redirecting(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.path)
            self.send_response(302)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Redirecting) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        with pytest.raises(ServiceError, match="it answered 302"):
            RemoteService(f"http://127.0.0.1:{server.server_port}", "t").get("/jobs")
        thread.join()
    assert seen == ["/api/v1/jobs"]


JOB = """
[workload]
path = "tuner.workloads.digits:Digits"
[goal]
metric = "accuracy"
target = 0.9
[space]
batch_size = [64]
learning_rate = [0.1]
"""
