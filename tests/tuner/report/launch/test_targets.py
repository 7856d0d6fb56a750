from __future__ import annotations

import ast
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from tests.tuner.report.launch.plans import plan
from tuner.domain.errors import JobError
from tuner.report.launch_files import TARGETS, launch_text
from tuner.report.launch_plan import LaunchPlan, training_plan
from tuner.service.options import LaunchTarget


def test_the_command_line_offers_every_target() -> None:
    assert {target.value for target in LaunchTarget} == set(TARGETS)


@pytest.mark.parametrize("target", TARGETS)
def test_every_file_begins_with_what_it_is_and_how_to_start_it(target: str, folder: Path) -> None:
    lines = launch_text(plan(folder, file_name="my job"), target).splitlines()
    comments = [line for line in lines if line.startswith("# ")]
    assert comments[:2] == ["# Trains digits rm -rf x", "# Goal: accuracy >= 0.95, soonest"]
    assert any("'my job'" in line for line in comments)
    first = [line for line in lines if not line.startswith(("#!", "#SBATCH"))]
    assert first[: len(comments[:2])] == comments[:2]


@pytest.mark.parametrize("target", TARGETS)
def test_every_file_ends_with_a_line_break(target: str, folder: Path) -> None:
    text = launch_text(plan(folder), target)
    assert text.endswith("\n")
    assert not text.endswith("\n\n")


@pytest.mark.parametrize("target", ["torchrun", "slurm"])
def test_scripts_are_the_shell_s(target: str, folder: Path) -> None:
    subprocess.run(["sh", "-n"], input=launch_text(plan(folder), target), text=True, check=True)


def test_the_ray_file_is_python(folder: Path) -> None:
    ast.parse(launch_text(plan(folder), "ray"))


@pytest.mark.parametrize("target", sorted(set(TARGETS) - {"env"}))
def test_without_a_command_there_is_nothing_to_launch(target: str, folder: Path) -> None:
    with pytest.raises(JobError, match=rf"digits cannot be exported to {target}: .*--target env"):
        launch_text(plan(folder, command=""), target)


def test_a_recommendation_says_what_to_expect(builder: ModuleType, folder: Path) -> None:
    answer = replace(builder.recommendation(), command="paceline train job.toml", checkpoint="/models/x.pt")
    made = training_plan(answer, builder.job().resolved_cluster(), working_folder=str(folder))
    words = "\n".join(made.facts)
    for fact in (
        r"Trains digits as Paceline recommends: 4 nodes, batch 256, learning rate 0\.1, all_reduce",
        r"Goal: accuracy >= 0\.95, soonest",
        r"Predicted: .*90% interval .* to ",
        r"Trust: verified",
        r"The search trained it already; the trained model is /models/x\.pt",
        r"It runs on one machine: the 4 nodes are groups of processes there",
    ):
        assert re.search(fact, words), fact
    assert (made.num_nodes, made.devices_per_node, made.cores_per_node) == (1, 4, 4)
    assert made.longest_seconds == answer.choice.seconds.upper
    assert made.values["batch_size"] == "256"


def test_a_plan_without_nodes_or_with_an_impossible_variable_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="one node, one device and one core"):
        plan(folder, num_nodes=0)
    with pytest.raises(ValueError, match="'A B' is not a variable name"):
        LaunchPlan(name="x", command="y", working_folder="/", environment={"A B": "1"})
