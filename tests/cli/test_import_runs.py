"""`paceline import-runs` as a user calls it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.cli.workplace import PACELINE, TIMEOUT_SECONDS
from tests.recorded_grid import write_job

JOB = """
[workload]
command = "{python} train.py {learning_rate} {batch_size}"
[goal]
metric = "accuracy"
target = 0.8
[space]
batch_size = [16, 64]
learning_rate = [0.01, 0.1]
"""
TABLE = (
    "run,batch_size,lr,step,accuracy\na,32,0.1,10,0.5\na,32,0.1,20,0.9\nb,48,0.02,10,0.4\nb,48,0.02,20,0.6\n"
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text("")
    (tmp_path / "job.toml").write_text(JOB)
    (tmp_path / "runs.csv").write_text(TABLE)
    return tmp_path


def test_each_run_is_a_row_and_the_same_runs_are_not_imported_twice(folder: Path, paceline: Command) -> None:
    ended = paceline("import-runs", "job.toml", "--from", "runs.csv", "--format", "json")
    assert ended.code == 0
    rows = json.loads(ended.stdout)
    assert [(row["run"], row["status"]) for row in rows] == [
        ("runs.csv a", "imported"),
        ("runs.csv b", "imported"),
    ]
    assert (rows[0]["samples to target"], rows[1]["samples to target"]) == (560, None)
    assert 'metric = "accuracy"' in ended.stderr
    assert "runs: 2 imported" in ended.stderr
    again = paceline("import-runs", "job.toml", "--from", ".", "--format", "json")
    assert {row["status"] for row in json.loads(again.stdout)} == {"already imported"}


def test_a_dry_run_makes_no_database(folder: Path, paceline: Command) -> None:
    ended = paceline("import-runs", "job.toml", "--from", "runs.csv", "--dry-run")
    assert ended.code == 0
    assert "runs: 2 would be imported" in ended.stderr
    assert not list(folder.glob("*.db"))


def test_no_other_command_takes_imported_runs_for_a_study(folder: Path, paceline: Command) -> None:
    paceline("import-runs", "job.toml", "--from", "runs.csv")
    for arguments in (
        ("status", "job.toml"),
        ("trials", "job.toml"),
        ("explain", "job.toml", 0),
        ("report", "job.toml"),
        ("record", "job.toml"),
        ("export", "job.toml", "--target", "env"),
    ):
        ended = paceline(*arguments)
        assert ended.code == 2, arguments
        assert "there is no study of this job here yet" in ended.stderr, arguments


def test_what_is_not_mapped_ends_with_exit_code_2_off_a_terminal(folder: Path, paceline: Command) -> None:
    (folder / "runs.csv").write_text("n,rate,tick,score\n64,0.1,10,0.5\n64,0.1,20,0.6\n")
    ended = paceline("import-runs", "job.toml", "--from", "runs.csv")
    assert ended.code == 2
    assert ended.stdout == ""
    for words in (
        "  metric: candidates are",
        "  step, samples or epoch: candidates are",
        "  batch_size: ",
        "  learning_rate: ",
    ):
        assert words in ended.stderr
    assert "# learning_rate = ..." in ended.stderr


def test_a_mapping_file_may_be_wrong(folder: Path, paceline: Command) -> None:
    (folder / "mapping.toml").write_text("batch = 3\n")
    ended = paceline("import-runs", "job.toml", "--from", "runs.csv", "--mapping", "mapping.toml")
    assert ended.code == 2
    assert "batch is not a key of a mapping" in ended.stderr


def test_nothing_is_imported_for_a_recording_or_from_nowhere(folder: Path, paceline: Command) -> None:
    ended = paceline("import-runs", write_job(folder), "--from", "runs.csv")
    assert ended.code == 2
    assert "a job that replays a recording cannot import runs" in ended.stderr
    ended = paceline("import-runs", "job.toml", "--from", "nowhere")
    assert ended.code == 2
    assert "there is no such file or folder" in ended.stderr
    assert paceline("import-runs", "job.toml").code == 2


@pytest.mark.slow
def test_on_a_terminal_it_asks(folder: Path) -> None:
    (folder / "runs.csv").write_text("n,rate,step,score\n64,0.1,10,0.5\n64,0.1,20,0.6\n")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [PACELINE, "import-runs", "job.toml", "--from", "runs.csv", "--dry-run", "--format", "json"],
        stdin=theirs,
        stderr=theirs,
        stdout=subprocess.PIPE,
        cwd=folder,
        text=True,
    )
    # The metric by its place among the candidates, the batch by its name, the rate as a number.
    os.write(ours, b"3\nn\n0.1\n")
    stdout, _ = process.communicate(timeout=TIMEOUT_SECONDS)
    asked = os.read(ours, 65536).decode()
    for descriptor in (ours, theirs):
        os.close(descriptor)
    assert process.returncode == 0
    assert "Which column is the metric of the job?" in asked
    (row,) = json.loads(stdout)
    assert row["configuration"] == "nodes=1 batch_size=64 learning_rate=0.1 strategy=all_reduce"
    assert row["best"] == 0.6
