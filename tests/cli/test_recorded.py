"""A recorded job from the command line: checked, run, shown, recorded again, and refused where it must be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Command
from tests.cli.workplace import Ended
from tests.recorded_grid import grid, write_job

ONE_TRAINING = ("trainings = 3", "trainings = 1")


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_job(tmp_path, ONE_TRAINING)


def rows_of(ended: Ended) -> dict[str, Any]:
    assert ended.code == 0, ended.stderr
    return {row["name"]: row["value"] for row in json.loads(ended.stdout)}


def test_check_shows_what_is_replayed(job: Path, paceline: Command) -> None:
    rows = rows_of(paceline("check", job, "--format", "json"))
    assert (rows["recording"], rows["configurations"]) == ("grid", 24)
    assert rows["step milliseconds"] > 0
    assert "seconds per epoch" not in rows
    assert "peak bytes of a rank" not in rows


def test_run_answers_and_goes_on_and_every_view_shows_it(job: Path, paceline: Command) -> None:
    ran = paceline("run", job)
    assert ran.code == 0, ran.stderr
    assert "there is no trained model" in " ".join(ran.stdout.split())
    assert "paceline train" not in ran.stdout
    assert "trained model  " not in ran.stdout
    assert "replay: recording grid" in ran.stderr
    again = paceline("run", job, "--format", "json")
    assert again.code == 0, again.stderr
    assert json.loads(again.stdout)["tuning"]["seconds"] > 0
    status = rows_of(paceline("status", job, "--format", "json"))
    assert status["charged dollars"] > 0
    trials = paceline("trials", job, "--format", "json")
    assert {row["machine"] for row in json.loads(trials.stdout)} <= {"small", "large"}
    assert paceline("explain", job, 0).code == 0
    assert "recommendation.json" in paceline("report", job).stdout


def test_record_writes_a_recording_that_can_be_run(job: Path, paceline: Command) -> None:
    assert paceline("run", job, "--sampler", "random").code == 0
    rows = rows_of(paceline("record", job, "--format", "json"))
    assert rows["recording"] == "replay.jsonl.gz"
    assert rows["reached the target"] == 1
    assert "gradient noise" in rows["left out"]
    # What is there is not replaced, least of all the recording that is replayed.
    refused = paceline("record", job, "--output", "grid.jsonl.gz")
    assert (refused.code, "already exists" in refused.stderr) == (2, True)
    other = Path("other.toml")
    other.write_text(job.read_text().replace("grid.jsonl.gz", "replay.jsonl.gz"))
    replayed = paceline("run", other, "--sampler", "random", "--format", "json")
    assert replayed.code == 0, replayed.stderr
    assert json.loads(replayed.stdout)["choice"]["measured_seconds"] > 0


def test_record_before_any_run_is_a_usage_error(job: Path, paceline: Command) -> None:
    ended = paceline("record", job)
    assert ended.code == 2
    assert "there is no study of this job here yet" in ended.stderr


def test_record_into_a_place_that_cannot_be_written_is_a_storage_error(job: Path, paceline: Command) -> None:
    assert paceline("run", job, "--sampler", "random").code == 0
    Path("file").write_text("")
    assert paceline("record", job, "--output", "file/runs.jsonl.gz").code == 6


def test_train_says_plainly_that_nothing_can_be_trained(job: Path, paceline: Command) -> None:
    what = grid().configurations()[0]
    flags = ["--nodes", what.nodes, "--batch-size", what.batch_size, "--learning-rate", what.learning_rate]
    ended = paceline("train", job, *flags, "--strategy", "sync")
    assert ended.code == 2
    assert "a recorded job replays measured runs and cannot train" in ended.stderr


@pytest.mark.slow
def test_a_target_that_no_run_shows_is_unreachable(tmp_path: Path, paceline: Command) -> None:
    slow = tuple(run for run in grid().runs if run.configuration.learning_rate == 0.001)
    job = write_job(tmp_path, ONE_TRAINING, runs=slow)
    ended = paceline("run", job, "--sampler", "random", "--budget", "10h")
    assert ended.code == 3, ended.stderr
    assert "the target is out of reach: every recorded configuration was tried" in ended.stderr
