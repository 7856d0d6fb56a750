from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests.tuner.report.launch.plans import AWKWARD, plan
from tuner.domain.errors import JobError
from tuner.report.launch_files import launch_text


def sourced(text: str, folder: Path) -> dict[str, str]:
    (folder / "job.env").write_text(text)
    words = subprocess.run(
        ["sh", "-c", "set -a; . ./job.env; set +a; exec env -0"],
        cwd=folder, env={}, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    pairs = [line.split("=", 1) for line in words.split("\0") if line]
    return {name: value for name, value in pairs if name != "PWD"}


def read_by_docker(text: str) -> dict[str, str]:
    """Docker takes what stands after the first `=` as it is; lines that begin with # are comments."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


CHOSEN = {"PACELINE_NODES": "2", "PACELINE_BATCH_SIZE": "64", "PACELINE_LEARNING_RATE": "0.05"}


def test_the_shell_and_docker_read_plain_values_alike(folder: Path) -> None:
    text = launch_text(plan(folder, environment={"CACHE": "/data/a-b_c,d:e@f", "EMPTY": ""}), "env")
    expected = {**CHOSEN, "CACHE": "/data/a-b_c,d:e@f", "EMPTY": ""}
    assert sourced(text, folder) == read_by_docker(text) == expected
    assert "docker run --env-file FILE" in text


def test_a_value_that_wants_quotes_is_for_the_shell_alone_and_says_so(folder: Path) -> None:
    text = launch_text(plan(folder), "env")
    assert sourced(text, folder) == {**CHOSEN, "GREETING": AWKWARD}
    assert "# Not for docker --env-file, which would keep the quotes of GREETING" in text


def test_a_value_of_several_lines_is_refused(folder: Path) -> None:
    with pytest.raises(JobError, match="exported to env: the value of GREETING has several lines"):
        launch_text(plan(folder, environment={"GREETING": "a\nb"}), "env")


def test_a_folder_that_the_values_name_is_to_be_made_first(folder: Path) -> None:
    made = replace(plan(folder), preparation=("mkdir -p output",))
    text = launch_text(made, "env")
    assert "# First, in the folder of the script: mkdir -p output" in text
    assert sourced(text, folder) == {**CHOSEN, "GREETING": AWKWARD}


def test_values_are_reported_where_nothing_can_be_launched(folder: Path) -> None:
    assert "PACELINE_BATCH_SIZE=64" in launch_text(plan(folder, command=""), "env")
