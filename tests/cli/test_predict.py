"""`paceline predict` and `paceline compare` on a recorded job, as a user calls them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.recorded_grid import write_job


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_job(tmp_path, ("[budget]", "[budget]\nprobes = 3"))


@pytest.mark.slow
def test_a_recorded_study_answers_for_any_configuration(paceline: Command, job: Path) -> None:
    assert paceline("predict", job).code == 2
    assert paceline("run", job).code == 0
    ended = paceline("predict", job, "--set", "learning_rate=0.03", "--nodes", 1, "--format", "json")
    assert ended.code == 0, ended.stderr
    data = json.loads(ended.stdout)
    assert (data["configuration"]["learning_rate"], data["configuration"]["nodes"]) == (0.03, 1)
    assert data["seconds"]["lower"] < data["seconds"]["upper"]
    table = paceline("predict", job, "--set", "machine=large").stdout
    assert "predicted price" in table
    assert "rests on" in table
    assert "allowed is one of small, large" in paceline("predict", job, "--set", "machine=huge").stderr
    assert "write KEY=VALUE" in paceline("predict", job, "--set", "machine").stderr
    compared = paceline("compare", job, "--a", "learning_rate=0.1", "--b", "learning_rate=0.03")
    assert compared.code == 0, compared.stderr
    assert "What decides" in compared.stdout or "Nothing decides" in compared.stdout
    assert "Next: paceline" in compared.stderr
    csv = paceline("compare", job, "--a", "nodes=1", "--b", "nodes=2", "--format", "csv").stdout
    assert csv.splitlines()[0] == "name,A,B,B / A"
    assert paceline("compare", "replay", "1").code == 2
    assert "two studies by number or name" in paceline("compare", "replay").stderr
