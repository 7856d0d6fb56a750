"""`paceline run --confirm N` as a user calls it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.recorded_grid import write_job

#: Trains nothing: the score rises with samples, the sooner the nearer the rate is to 0.05.
SCRIPT = """
import math, random, sys, time
from paceline_client import report, should_stop
rate, batch, seed = float(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
need = 100 * (1 + math.log(rate / 0.05) ** 2) * random.Random(seed).uniform(0.95, 1.05)
step = 0
while step < 10000 and not should_stop():
    time.sleep(0.01)
    step += 1
    report(step=step, samples=step * batch, value=step * batch / (step * batch + need))
"""
JOB = """
name = "curve"
[workload]
command = "{python} curve.py {{learning_rate}} {{batch_size}} {seed}"
[goal]
metric = "accuracy"
target = 0.8
trainings = 20
[space]
batch_size = [20]
learning_rate = [0.05, 0.005]
{baseline}
[budget]
time = "20s"
probes = 2
"""
BASELINE = "[baseline]\nbatch_size = 20\nlearning_rate = 0.005"


def write(folder: Path, *, seed: str = "{seed}", baseline: str = BASELINE) -> None:
    (folder / "curve.py").write_text(SCRIPT)
    text = JOB.format(python=sys.executable, seed=seed, baseline=baseline)
    (folder / "job.toml").write_text(text)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_job_without_present_settings_is_refused(folder: Path, paceline: Command) -> None:
    write(folder, baseline="")
    ended = paceline("run", "job.toml", "--confirm", 2)
    assert ended.code == 2
    assert ended.stdout == ""
    assert "job.toml: --confirm compares" in ended.stderr
    assert "[baseline] is missing" in ended.stderr


def test_a_recording_is_refused(folder: Path, paceline: Command) -> None:
    ended = paceline("run", write_job(folder), "--confirm", 2)
    assert ended.code == 2
    assert "a recording has only one run of each configuration" in ended.stderr


def test_no_seed_is_refused(folder: Path, paceline: Command) -> None:
    write(folder)
    ended = paceline("run", "job.toml", "--confirm", 0)
    assert ended.code == 2
    assert "--confirm" in ended.stderr


@pytest.mark.slow
def test_a_command_without_a_seed_is_confirmed_with_a_warning(folder: Path, paceline: Command) -> None:
    write(folder, seed="0")
    ended = paceline("run", "job.toml", "--confirm", 1, "--format", "json")
    assert ended.code == 0, ended.stderr
    found = json.loads(ended.stdout)["confirmation"]
    assert found["uses_seed"] is False
    assert found["speedup"] > 1.5
    assert "warning: --confirm: the command has no {seed}" in ended.stderr


@pytest.mark.slow
def test_a_command_is_trained_with_new_seeds(folder: Path, paceline: Command) -> None:
    write(folder)
    ended = paceline("run", "job.toml", "--confirm", 3)
    assert ended.code == 0, ended.stderr
    assert "with new seeds" in ended.stdout
    found = json.loads(Path("paceline-out/curve/recommendation.json").read_text())["confirmation"]
    assert [t["seed"] for t in found["baseline"]["trainings"]] == [1000, 2000, 3000]
    assert found["uses_seed"] is True
    assert found["is_significant"] is True
    assert found["lower"] > 1
    again = paceline("run", "job.toml", "--confirm", 3)
    assert "all 6 trainings are stored" in again.stderr
