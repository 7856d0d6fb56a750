"""A `TrainJob` of Kubeflow Trainer v2, for `kubectl`."""

from __future__ import annotations

import re
import shlex
from typing import Any

from tuner.launchers import OnePer
from tuner.report.launch.node_script import node_lines
from tuner.report.launch.plan import LaunchPlan, head
from tuner.report.launch.yaml_text import yaml_text

#: The runtime that Kubeflow Trainer brings for PyTorch; it sets torchrun's PET_ variables on every node.
RUNTIME = "torch-distributed"
_LONGEST_NAME = 63


def train_job(plan: LaunchPlan) -> str:
    """The manifest: one pod a node, which runs the command in the image's own working folder.

    Raises:
        ValueError: The command starts its nodes itself.
    """
    if plan.one_per is OnePer.JOB and plan.num_nodes > 1:
        raise ValueError(
            "a TrainJob starts its command on every node, but this command is started once and starts the "
            "nodes itself: use a command that is started once per node"
        )
    # Each pod knows its place; the names are torchrun's own.
    lines = node_lines(
        plan,
        node_rank='"${PET_NODE_RANK:-0}"',
        main_address='"${PET_MASTER_ADDR:-127.0.0.1}"',
        main_port='"${PET_MASTER_PORT:-29400}"',
    )
    trainer: dict[str, Any] = {"image": plan.image} if plan.image else {}
    trainer |= {
        "numNodes": plan.num_nodes,
        "numProcPerNode": plan.devices_per_node,
        "command": ["/bin/sh", "-c", _unexpanded("\n".join(lines))],
    }
    if plan.environment:
        trainer["env"] = [
            {"name": name, "value": _unexpanded(value)} for name, value in plan.environment.items()
        ]
    trainer["resourcesPerNode"] = _resources(plan)
    manifest = {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {"name": label(plan.name)},
        "spec": {"runtimeRef": {"name": RUNTIME}, "trainer": trainer},
    }
    image = f"The image {plan.image}" if plan.image else "The runtime's image, or spec.trainer.image,"
    how = (
        f"{image} must hold what the command needs, in its working folder",
        f"Needs Kubeflow Trainer v2 with its runtime {RUNTIME}",
        f"Start it: kubectl apply -f {shlex.quote(plan.file_name)}",
    )
    return "\n".join([*head(plan, *how), yaml_text(manifest)])


def label(name: str) -> str:
    """A name as Kubernetes allows one here: lower case, digits and hyphens, starting with a letter."""
    words = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    found = words if words[:1].isalpha() else f"job-{words}"
    return found[:_LONGEST_NAME].strip("-")


def _resources(plan: LaunchPlan) -> dict[str, Any]:
    resources: dict[str, Any] = {"requests": {"cpu": str(plan.cores_per_node)}}
    if plan.accelerator is not None:
        resources["limits"] = {"nvidia.com/gpu": str(plan.devices_per_node)}
    return resources


def _unexpanded(text: str) -> str:
    """A text that Kubernetes leaves as it is: it takes `$(NAME)` for a variable and `$$` for a dollar."""
    return re.sub(r"\$(?=[$(])", "$$", text)
