"""How Ray's dashboard is asked: one that does not answer for a moment, for long, or never was there."""

from __future__ import annotations

import importlib.metadata
import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.ray_cluster import missing_ray
from tests.tuner.launchers.command_conformance import submit
from tests.tuner.launchers.conformance import wait_until
from tuner.domain.errors import ProbeError
from tuner.launchers import CommandLauncher, RayNodes
from tuner.launchers.ray_dashboard import RayDashboard, RayJob

#: Its import takes seconds.
needs_ray = [pytest.mark.slow, pytest.mark.skipif(missing_ray() is not None, reason=str(missing_ray()))]


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Answering:
    """Answers as a dashboard does, or not."""

    def __init__(self) -> None:
        self.status = "RUNNING"
        self.code = 200
        self.offered: list[tuple[int, str]] = []
        """What the next submissions are answered."""
        self.may_answer = threading.Event()
        self.may_answer.set()
        answering = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/api/version":
                    return self.answer(200, {"ray_version": "2.60.0", "version": "4"})
                answering.may_answer.wait(60)
                job = {"type": "SUBMISSION", "status": answering.status, "entrypoint": "", "message": "words"}
                return self.answer(answering.code, job)

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                code, text = answering.offered.pop(0)
                return self.answer(code, {"job_id": text, "submission_id": text})

            def answer(self, code: int, value: object) -> None:
                body = json.dumps(value).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self.may_answer.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(autouse=True)
def no_address_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)


@pytest.fixture
def answering() -> Iterator[Answering]:
    answering = Answering()
    yield answering
    answering.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def dashboard(answering: Answering, clock: Clock) -> RayDashboard:
    return RayDashboard(answering.address, clock=clock)


def poll_until(dashboard: RayDashboard, clock: Clock, status: str) -> RayJob:
    """Looks, a second apart by its clock, until it tells a status."""
    found: list[RayJob] = []

    def poll() -> bool:
        job = dashboard.poll("one")
        found.extend([job] if job is not None and job.status == status else [])
        clock.now += 0.0 if found else 0.01
        return bool(found)

    wait_until(poll, f"the dashboard tells {status}")
    return found[-1]


def poll_for_ever(dashboard: RayDashboard, clock: Clock) -> None:
    while True:
        clock.now += 2.0
        dashboard.poll("one")
        time.sleep(0.01)


class TestWithRay:
    pytestmark = needs_ray

    def test_what_a_dashboard_says_of_a_job_comes_a_moment_later(
        self, dashboard: RayDashboard, clock: Clock, answering: Answering
    ) -> None:
        assert dashboard.poll("one") is None
        assert poll_until(dashboard, clock, "RUNNING") == RayJob(
            status="RUNNING", message="words", exit_code=None
        )
        answering.status = "FAILED"
        poll_until(dashboard, clock, "FAILED")

    def test_a_dashboard_that_hangs_holds_up_nobody(
        self, dashboard: RayDashboard, clock: Clock, answering: Answering
    ) -> None:
        poll_until(dashboard, clock, "RUNNING")
        answering.may_answer.clear()
        for _ in range(50):
            clock.now += 1.0
            known = dashboard.poll("one")
            assert known is not None
            assert known.status == "RUNNING"
        clock.now += 30.0
        with pytest.raises(ProbeError, match="no answer, for"):
            dashboard.poll("one")

    def test_an_error_for_a_moment_is_none_and_for_long_is(
        self, dashboard: RayDashboard, clock: Clock, answering: Answering
    ) -> None:
        poll_until(dashboard, clock, "RUNNING")
        answering.code = 500
        for _ in range(20):
            clock.now += 2.0
            assert dashboard.poll("one") is not None
        answering.code, answering.status = 200, "SUCCEEDED"
        poll_until(dashboard, clock, "SUCCEEDED")
        answering.code = 503

        with pytest.raises(ProbeError, match="503"):
            poll_for_ever(dashboard, clock)

    def test_silence_that_nobody_heard_does_not_count(
        self, dashboard: RayDashboard, clock: Clock, answering: Answering
    ) -> None:
        poll_until(dashboard, clock, "RUNNING")
        answering.may_answer.clear()
        clock.now += 2.0
        dashboard.poll("one")
        clock.now += 1000.0
        assert dashboard.poll("one") is not None

    def test_a_job_that_ray_does_not_know_is_reported(
        self, dashboard: RayDashboard, clock: Clock, answering: Answering
    ) -> None:
        answering.code = 404
        assert "does not know" in poll_until(dashboard, clock, "UNKNOWN").message

    @pytest.mark.parametrize("last", [(200, "one"), (500, "Job with submission_id one already exists")])
    def test_a_job_is_offered_again_to_a_dashboard_that_just_starts(
        self, dashboard: RayDashboard, answering: Answering, last: tuple[int, str]
    ) -> None:
        answering.offered = [(500, "No available agent to submit job"), last]
        dashboard.submit("one", "true", {})
        assert answering.offered == []

    def test_a_job_that_is_refused_is_a_clear_error(
        self, dashboard: RayDashboard, answering: Answering
    ) -> None:
        answering.offered = [(400, "no such runtime environment")]
        with pytest.raises(ProbeError, match="no such runtime environment"):
            dashboard.submit("one", "true", {})

    def test_an_address_where_nobody_listens_is_a_clear_error(self, tmp_path: Path) -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            address = f"http://127.0.0.1:{listener.getsockname()[1]}"
            launcher = CommandLauncher(RayNodes(address))
            with pytest.raises(
                ProbeError, match=rf"cluster at {address} cannot be used.*cluster\.ray\.address"
            ):
                submit(launcher, tmp_path, "true")
            launcher.close()
        # Whatever reached the cluster all the same finds that it is not wanted.
        assert [path.read_text() for path in tmp_path.glob("job-*/end")] == ["never begun"]


def test_where_ray_is_missing_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    with pytest.raises(ProbeError, match=r"pip install 'paceline\[ray\]'"):
        RayNodes("http://127.0.0.1:8265")
