"""A launch file's training reports its real time to target, and never fails because of it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = """
import time
from paceline_client import begin, report
begin()
for step in range(1, 5):
    time.sleep(0.02)
    report(samples=64 * step, value={value})
print("trained")
"""


@pytest.fixture
def received() -> Iterator[tuple[str, list[tuple[dict[str, Any], str]]]]:
    found: list[tuple[dict[str, Any], str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.append((json.loads(body), self.headers["Authorization"]))
            self.send_response(201)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/api/v1/outcomes?study=7&target=0.5", found
    server.shutdown()
    server.server_close()


def run(script: str, url: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PYTHONPATH": str(ROOT), "PACELINE_REPORT_TO": url, "PACELINE_TOKEN": "t", **variables}
    return subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize(("value", "reached"), [("0.2 * step", True), ("0.1 * step", False)])
def test_the_end_is_reported_once(
    received: tuple[str, list[tuple[dict[str, Any], str]]], value: str, reached: bool
) -> None:
    url, found = received
    assert run(SCRIPT.format(value=value), url).stdout == "trained\n"
    ((body, authorization),) = found
    assert authorization == "Bearer t"
    assert (body["study_id"], body["reached"], body["source"]) == (7, reached, "launch file")
    assert 0.02 * (3 if reached else 4) <= body["seconds"] < 10.0


def test_a_failed_training_other_ranks_and_probes_report_nothing(
    received: tuple[str, list[tuple[dict[str, Any], str]]],
) -> None:
    url, found = received
    assert run(SCRIPT.format(value="0.1") + "1 / 0", url).returncode == 1
    assert run(SCRIPT.format(value="0.9"), url, RANK="1").returncode == 0
    assert run(SCRIPT.format(value="0.9"), url, PACELINE_STOP_FILE="/nonexistent").returncode == 0
    assert found == []


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/?study=7&target=0.5", "nonsense", "http://x/?target=x"])
def test_a_report_that_fails_does_not_fail_the_training(url: str) -> None:
    ended = run(SCRIPT.format(value="0.9"), url)
    assert (ended.returncode, ended.stdout) == (0, "trained\n")
    assert "paceline: the time to target was not reported" in ended.stderr
