from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.tuner.report.launch.plans import AWKWARD, environment, observed_by, plan
from tuner.launchers import OnePer
from tuner.report.launch_files import launch_text
from tuner.report.launch_plan import LaunchPlan

#: Keys and types of a task, after https://docs.skypilot.co/en/latest/reference/yaml-spec.html.
TASK = {"name": str, "workdir": str, "num_nodes": int, "resources": dict, "envs": dict, "run": str}
RESOURCES = {"cpus": str, "accelerators": str, "image_id": str}


def task(made: LaunchPlan) -> dict[str, Any]:
    data = dict(yaml.safe_load(launch_text(made, "skypilot")))
    for keys, part in ((TASK, data), (RESOURCES, data["resources"])):
        assert {key: type(value) for key, value in part.items()} == {key: keys[key] for key in part}
    return data


def run(made: LaunchPlan, node: int, folder: Path) -> None:
    """As SkyPilot would on one node."""
    data = task(made)
    place = {"SKYPILOT_NODE_RANK": str(node), "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2"}
    subprocess.run(
        ["bash", "-c", data["run"]], cwd=folder, env=environment(**place, **data.get("envs", {})), check=True
    )


def test_the_task_states_nodes_and_resources(folder: Path) -> None:
    data = task(plan(folder, devices_per_node=8, cores_per_node=8, accelerator="A100", image="org/train:1"))
    assert data["num_nodes"] == 2
    assert data["resources"] == {"cpus": "8+", "accelerators": "A100:8", "image_id": "docker:org/train:1"}
    assert data["workdir"] == str(folder)


def test_the_task_reads_as_people_write_it(folder: Path) -> None:
    assert "\nrun: |\n  export MASTER_ADDR=" in launch_text(plan(folder), "skypilot")


def test_each_node_learns_its_place(folder: Path) -> None:
    for node in (0, 1):
        run(plan(folder), node, folder)
        assert observed_by(folder, node) == [f"{node} of 2", *["10.0.0.1 29500"] * 2, AWKWARD, str(folder)]


def test_a_command_that_starts_its_nodes_is_started_on_the_first_alone(folder: Path) -> None:
    for node in (0, 1):
        run(plan(folder, one_per=OnePer.JOB), node, folder)
    assert [path.name for path in folder.iterdir()] == ["node 0.txt"]
