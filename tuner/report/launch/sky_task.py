"""A task of SkyPilot."""

from __future__ import annotations

import shlex
from typing import Any

from tuner.launchers import OnePer
from tuner.report.launch.node_script import node_lines
from tuner.report.launch.plan import LaunchPlan, head
from tuner.report.launch.torchrun_script import MAIN_PORT
from tuner.report.launch.yaml_text import yaml_text

_FIRST_ONLY = '[ "$SKYPILOT_NODE_RANK" = 0 ] || exit 0'


def sky_task(plan: LaunchPlan) -> str:
    """The task: SkyPilot brings the working folder to every node and runs the command there."""
    resources: dict[str, Any] = {"cpus": f"{plan.cores_per_node}+"}
    if plan.accelerator is not None:
        resources["accelerators"] = f"{plan.accelerator}:{plan.devices_per_node}"
    if plan.image is not None:
        resources["image_id"] = f"docker:{plan.image}"
    task: dict[str, Any] = {
        "name": plan.name,
        "workdir": plan.working_folder,
        "num_nodes": plan.num_nodes,
        "resources": resources,
    }
    if plan.environment:
        task["envs"] = dict(plan.environment)
    task["run"] = "\n".join(_run(plan)) + "\n"
    how = (
        "Add `setup: |` with what installs the command's needs on a fresh node",
        f"Start it: sky launch {shlex.quote(plan.file_name)}",
    )
    return "\n".join([*head(plan, *how), yaml_text(task)])


def _run(plan: LaunchPlan) -> list[str]:
    lines = node_lines(
        plan,
        node_rank='"$SKYPILOT_NODE_RANK"',
        main_address='"$(echo "$SKYPILOT_NODE_IPS" | head -n 1)"',
        main_port=str(MAIN_PORT),
    )
    if plan.one_per is OnePer.JOB and plan.num_nodes > 1:
        return ["# The command starts what it needs on the other nodes.", _FIRST_ONLY, *lines]
    return lines
