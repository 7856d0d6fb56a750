"""Workloads that go wrong while they train: the run ends with its code and the workload's own words."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Command
from tests.cli.workplace import Ended, Workplace


def last_line(ended: Ended) -> str:
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr
    return ended.messages[-1]


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        ("raise", 5, "ArithmeticError: the workload's own words"),
        pytest.param("not a scalar", 5, "doesn't match the broadcast shape [3]", marks=pytest.mark.slow),
        pytest.param("per cent", 5, "accuracy must lie between 0 and 1", marks=pytest.mark.slow),
        pytest.param("nan", 3, "the target is out of reach", marks=pytest.mark.slow),
    ],
)
def test_a_workload_that_breaks_ends_the_run_with_its_own_words(
    workplace: Workplace, paceline: Command, fault: str, code: int, words: str
) -> None:
    workplace.write_job(fault=fault)
    ended = paceline("run", "job.toml")
    assert ended.code == code, ended.stderr
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("paceline: ")]
    assert words in line
    if code == 5:
        number = line.split("`paceline explain job.toml ")[1].split("`")[0]
        assert words in paceline("explain", "job.toml", number).stdout
    assert not workplace.processes()


@pytest.mark.slow
def test_check_finds_a_score_in_another_unit_before_a_run_does(
    workplace: Workplace, paceline: Command
) -> None:
    workplace.write_job(fault="per cent")
    ended = paceline("check", "job.toml")
    assert ended.code == 5
    assert ended.stdout == ""
    assert "accuracy must lie between 0 and 1" in ended.stderr


@pytest.mark.slow
def test_check_shows_what_a_few_steps_took_and_leaves_nothing_behind(
    workplace: Workplace, paceline: Command
) -> None:
    before = set(workplace.folder.iterdir())
    ended = paceline("check", "job.toml", "--format", "csv")
    assert ended.code == 0, ended.stderr
    facts = dict(line.split(",", 1) for line in ended.stdout.strip().splitlines())
    assert facts["job"] == "tiny"
    assert float(facts["step milliseconds"]) > 0
    assert float(facts["samples per second"]) > 0
    assert facts["parameter bytes"] == "72"
    assert {path.name for path in set(workplace.folder.iterdir()) - before} <= {"__pycache__"}
    assert not workplace.processes()


@pytest.mark.slow
def test_nothing_is_recommended_where_no_score_ever_improves(workplace: Workplace, paceline: Command) -> None:
    workplace.write_job(fault="never better")
    ended = paceline("run", "job.toml", "--budget", "25s")
    assert ended.code == 3, ended.stderr
    assert ended.stdout == ""
    assert "target 0.97" in last_line(ended)
    assert "the best value was 0.5" in last_line(ended)
    assert "lower goal.target" in last_line(ended)


@pytest.mark.slow
def test_training_a_configuration_of_one_s_own_gives_the_model(
    workplace: Workplace, paceline: Command
) -> None:
    axes = ["--nodes", 2, "--batch-size", 24, "--learning-rate", 0.05]
    ended = paceline("train", "job.toml", *axes)
    assert ended.code == 0, ended.stderr
    assert "model.pt" in ended.stdout
    again = paceline("train", "job.toml", *axes)
    assert again.stdout == ended.stdout
    assert "decision" not in again.stderr
    workplace.write_job(fault="raise")
    failed = paceline("train", "job.toml", *axes)
    assert failed.code == 5
    assert "the workload's own words" in last_line(failed)
