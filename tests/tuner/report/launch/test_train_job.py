from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.tuner.report.launch.plans import AWKWARD, environment, observed_by, plan
from tuner.domain.errors import JobError
from tuner.launchers import OnePer
from tuner.report.launch_files import launch_text
from tuner.report.launch_plan import LaunchPlan

SCHEMA = json.loads((Path(__file__).parent / "train_job_schema.json").read_text())


def manifest(made: LaunchPlan) -> dict[str, Any]:
    data = yaml.safe_load(launch_text(made, "k8s"))
    jsonschema.validate(data, SCHEMA, cls=jsonschema.Draft202012Validator)
    return dict(data)


def expanded(text: str, variables: dict[str, str]) -> str:
    """A container's text as Kubernetes hands it over: `$(NAME)` is replaced where known, `$$` is a dollar."""

    def one(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        return variables.get(found[1], found[0])

    return re.sub(r"\$\$|\$\(([^)]*)\)", one, text)


def test_the_schema_is_a_schema_and_refuses_what_the_cluster_would() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    with pytest.raises(jsonschema.ValidationError, match="'numNode' was unexpected"):
        jsonschema.validate(
            {
                "apiVersion": "trainer.kubeflow.org/v1alpha1",
                "kind": "TrainJob",
                "metadata": {"name": "digits"},
                "spec": {"runtimeRef": {"name": "torch-distributed"}, "trainer": {"numNode": 2}},
            },
            SCHEMA,
        )


def test_the_manifest_states_nodes_processes_and_resources(folder: Path) -> None:
    made = plan(folder, devices_per_node=4, cores_per_node=8, accelerator="A100", image="org/train:1")
    trainer = manifest(made)["spec"]["trainer"]
    assert (trainer["numNodes"], trainer["numProcPerNode"], trainer["image"]) == (2, 4, "org/train:1")
    assert trainer["resourcesPerNode"] == {
        "requests": {"cpu": "8"},
        "limits": {"nvidia.com/gpu": "4"},
    }
    assert "limits" not in manifest(plan(folder))["spec"]["trainer"]["resourcesPerNode"]


def test_a_pod_runs_the_command_with_its_place(folder: Path) -> None:
    trainer = manifest(plan(folder))["spec"]["trainer"]
    for node in (0, 1):
        place = {
            "PET_NODE_RANK": str(node),
            "PET_MASTER_ADDR": "digits-node-0-0.digits",
            "PET_MASTER_PORT": "1",
        }
        given = place | {item["name"]: expanded(item["value"], place) for item in trainer["env"]}
        # Even a variable of the container by the name of a command leaves the command alone.
        known = {**given, "pwd": "not this", "id": "nor this"}
        command = [expanded(word, known) for word in trainer["command"]]
        subprocess.run(command, cwd=folder, env=environment(**given), check=True)
        reported = ["digits-node-0-0.digits 1"] * 2
        assert observed_by(folder, node) == [f"{node} of 2", *reported, AWKWARD, str(folder)]


@pytest.mark.parametrize("text", ["$$", "$(A)", "$$(A)", "$$$", "a$", "$", "$A ${A} $$$$(A)$", "%$(%"])
def test_kubernetes_leaves_a_text_alone(folder: Path, text: str) -> None:
    trainer = manifest(plan(folder, command=f": '{text}'", environment={"X": text}))["spec"]["trainer"]
    assert expanded(trainer["env"][0]["value"], {"A": "wrong"}) == text
    assert expanded(trainer["command"][2], {"A": "wrong"}).endswith(f": '{text}'")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("digits", "digits"),
        ("My_Job.v2", "my-job-v2"),
        ("2024", "job-2024"),
        ("a" * 70, "a" * 63),
        ("a" * 62 + "-b", "a" * 62),
    ],
)
def test_a_name_becomes_a_label(name: str, expected: str, folder: Path) -> None:
    assert manifest(plan(folder, name=name))["metadata"]["name"] == expected


def test_a_command_that_starts_its_nodes_itself_is_refused(folder: Path) -> None:
    with pytest.raises(JobError, match=r"to k8s: .*use a command that is started once per node"):
        launch_text(plan(folder, one_per=OnePer.JOB), "k8s")
    assert manifest(plan(folder, one_per=OnePer.JOB, num_nodes=1))
