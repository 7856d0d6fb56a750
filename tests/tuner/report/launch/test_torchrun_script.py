from __future__ import annotations

import shlex
import socket
import subprocess
from pathlib import Path

import pytest

from tests.tuner.report.launch.plans import (
    AWKWARD,
    check_sums,
    environment,
    observed_by,
    plan,
    summing_plan,
)
from tuner.launchers import OnePer
from tuner.report.launch_files import launch_text
from tuner.report.launch_plan import LaunchPlan


def write(plan: LaunchPlan, folder: Path) -> str:
    path = folder.parent / "launch it.sh"
    path.write_text(launch_text(plan, "torchrun"))
    return str(path)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_a_command_on_one_machine_stands_alone(folder: Path) -> None:
    only = plan(
        folder, num_nodes=1, command="python train.py --lr 0.1", one_per=OnePer.JOB, reads_place=False,
        environment={}, file_name="launch.sh",
    )  # fmt: skip
    lines = launch_text(only, "torchrun").splitlines()
    assert lines[0] == "#!/bin/sh"
    assert "# Start it on one machine: sh launch.sh" in lines
    code = [shlex.split(line) for line in lines if line and not line.startswith("#")]
    assert code == [["cd", str(folder), "||", "exit"], ["python", "train.py", "--lr", "0.1"]]


def test_each_node_learns_its_place(folder: Path) -> None:
    script = write(plan(folder), folder)
    for node in (0, 1):
        subprocess.run(["sh", script, str(node), "host-a", "1234"], check=True)
        place = ["host-a 1234"] * 2
        assert observed_by(folder, node) == [f"{node} of 2", *place, AWKWARD, str(folder)]


def test_one_node_needs_no_words(folder: Path) -> None:
    subprocess.run(["sh", write(plan(folder, num_nodes=1), folder)], check=True)
    assert observed_by(folder, 0)[:2] == ["0 of 1", "127.0.0.1 29500"]


def test_a_node_without_its_place_says_what_it_needs(folder: Path) -> None:
    answer = subprocess.run(["sh", write(plan(folder), folder), "0"], capture_output=True, text=True)
    assert answer.returncode == 2
    assert "RANK MAIN_ADDRESS [MAIN_PORT]   (RANK: 0 to 1)" in answer.stderr


def test_the_script_ends_as_its_command_does(folder: Path) -> None:
    failing = plan(folder, num_nodes=1, command="exit 7")
    assert subprocess.run(["sh", write(failing, folder)]).returncode == 7


def test_nothing_runs_where_the_folder_is_not(folder: Path) -> None:
    lost = plan(folder / "gone", num_nodes=1, command=f"touch {shlex.quote(str(folder / 'here'))}")
    answer = subprocess.run(["sh", write(lost, folder)], capture_output=True)
    assert answer.returncode != 0
    assert not (folder / "here").exists()


@pytest.mark.slow
@pytest.mark.parametrize("one_per", [OnePer.NODE, OnePer.RANK])
def test_one_node_trains_by_torchrun(folder: Path, one_per: OnePer) -> None:
    script = write(summing_plan(folder, one_per=one_per, num_nodes=1, devices_per_node=2), folder)
    subprocess.run(["sh", script, str(free_port())], check=True, env=environment(), timeout=120)
    check_sums(folder, num_ranks=2, num_nodes=1)


@pytest.mark.slow
def test_two_nodes_train_by_torchrun(folder: Path) -> None:
    script, port = write(summing_plan(folder), folder), str(free_port())
    nodes = [
        subprocess.Popen(["sh", script, rank, "127.0.0.1", port], env=environment()) for rank in ("0", "1")
    ]
    assert [node.wait(120) for node in nodes] == [0, 0]
    check_sums(folder, num_ranks=2, num_nodes=2)
