"""`paceline serve` and `paceline token`."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.cli.workplace import PACELINE
from tuner.service.remote import RemoteService

pytest.importorskip("fastapi", reason="needs the extra `serve`")


def test_tokens_are_created_listed_and_revoked(
    paceline: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PACELINE_STORAGE", f"sqlite:///{tmp_path}/service.db")
    made = paceline(
        "token", "create", "ana", "--role", "admin", "--expires", "2h", "--max-jobs", "3", "-f", "json"
    )
    token = json.loads(made.stdout)
    assert (token["number"], token["role"], token["max_jobs"]) == (1, "admin", 3)
    assert re.fullmatch(r"paceline_1_[\w-]{43}", token["token"])
    assert paceline("token", "revoke", "1").stdout == "token 1 of ana is revoked\n"
    (listed,) = json.loads(paceline("token", "list", "-f", "json").stdout)
    assert listed["revoked"] is not None
    assert "token" not in listed
    missing = paceline("token", "revoke", "7")
    assert missing.code == 2
    assert "paceline: there is no token 7; `paceline token list` shows all tokens\n" in missing.stderr
    wrong = paceline("token", "create", "ana", "--expires", "soon")
    assert wrong.code == 2
    assert "--expires: 'soon' is not a duration" in wrong.stderr


def test_a_settings_file_with_an_unknown_key_is_refused(paceline: Command, tmp_path: Path) -> None:
    path = tmp_path / "serve.toml"
    path.write_text("[limits]\nrequests = 3\n")
    ended = paceline("serve", "--settings", str(path), "--storage", f"sqlite:///{tmp_path}/s.db")
    assert ended.code == 2
    assert (
        f"{path}: unknown key 'limits.requests'; did you mean 'request_bytes'? Allowed there: "
        in ended.stderr
    )
    path.write_text("[limits]\nuploads = 0\n[approve]\ndollars = 1\n")
    ended = paceline("serve", "--settings", str(path), "--storage", f"sqlite:///{tmp_path}/s.db")
    assert "limits.uploads = 0: Input should be greater than 0" in ended.stderr
    assert "unknown key 'approve'; did you mean 'approval'? Allowed there: allow, limits" in ended.stderr
    missing = paceline("serve", "--settings", str(tmp_path / "no.toml"))
    assert missing.code == 2
    assert "give an existing file with --settings" in missing.stderr


def test_a_used_port_and_wrong_values_of_options_are_named(paceline: Command, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as used:
        port = str(used.getsockname()[1])
        ended = paceline("serve", "--port", port, "--storage", f"sqlite:///{tmp_path}/s.db")
    assert ended.code == 2
    assert f"cannot listen on 127.0.0.1, port {port}: Address already in use; choose" in ended.stderr
    ended = paceline("token", "create", "ana", "--role", "king")
    assert "Invalid value for '--role': 'king' is not one of" in ended.stderr
    ended = paceline("jobs", "--token", "x", "--state", "queued,runing")
    assert ended.code == 2
    assert "--state runing: allowed is awaiting_approval, queued" in ended.stderr


@pytest.mark.slow
def test_the_server_answers_and_stops_cleanly(tmp_path: Path) -> None:
    command = [
        PACELINE,
        "serve",
        "--port",
        "0",
        "--host",
        "127.0.0.1",
        "--storage",
        f"sqlite:///{tmp_path}/s.db",
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        lines = [server.stderr.readline(), server.stderr.readline()]
        found = re.search(r"http://127\.0\.0\.1:\d+", lines[1])
        assert "there are no tokens yet" in lines[0]
        assert found is not None, lines
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{found[0]}/api/v1/jobs")
        with refused.value as answer:
            assert answer.code == 401
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 0
        assert "the server has stopped" in server.stderr.read()


@pytest.mark.slow
def test_the_example_starts_a_service_with_a_job_and_stops_it(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = Path(__file__).parents[2] / "examples" / "service.sh"
    environment = {**os.environ, "PACELINE": str(PACELINE), "PORT": str(port)}
    command = ["sh", str(script), str(tmp_path / "service")]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as example:
        assert example.stdout is not None
        said = ""
        while "token: " not in said:
            line = example.stdout.readline()
            assert line, said
            said += line
        assert f"page:  http://127.0.0.1:{port}" in said
        service = RemoteService(f"http://127.0.0.1:{port}", said.rpartition("token: ")[2].strip())
        (job,) = service.get("/jobs")["jobs"]
        assert (job["name"], job["state"] in ("queued", "running")) == ("digits", True)
        example.send_signal(signal.SIGINT)
        said += example.stdout.read()
        assert example.wait(60) == 130
    assert "the server has stopped" in said
    assert "the worker has stopped" in said
