"""Values of `workload.environment` are in no launch file, and reach the command all the same."""

from __future__ import annotations

import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml

from tests.tuner.report.launch.plans import AWKWARD, environment, observed_by, plan
from tests.tuner.report.launch.test_train_job import SCHEMA
from tuner.report.launch_files import TARGETS, launch_text, secret_text
from tuner.report.launch_plan import LaunchPlan

MESSAGE = "GREETING: is not set; its value is in workload.environment"


def private(folder: Path, **changes: object) -> LaunchPlan:
    return plan(folder, environment={}, private={"GREETING": AWKWARD}, **changes)


def write(made: LaunchPlan, folder: Path, target: str) -> Path:
    """Writes launch file and secret file, and returns the path of the launch file."""
    path = folder / "launch it.sh"
    made = made.written_to(path, target)
    assert made.secret_file is not None
    made.secret_file.write_text(secret_text(made, target))
    path.write_text(launch_text(made, target))
    return path


@pytest.mark.parametrize("target", TARGETS)
def test_no_launch_file_has_the_value(target: str, folder: Path) -> None:
    for made in (private(folder), private(folder).written_to(folder / "x.sh", target)):
        text = launch_text(made, target)
        assert "two words" not in text
        assert "GREETING" in text


def test_a_script_reads_the_value_from_its_own_folder(folder: Path) -> None:
    script = write(private(folder), folder.parent, "torchrun")
    subprocess.run(["sh", str(script), "0", "host-a", "1"], check=True, cwd="/")
    assert observed_by(folder, 0)[3] == AWKWARD
    (folder.parent / "launch it.sh.secret.env").unlink()
    assert subprocess.run(["sh", str(script), "0", "host-a", "1"], capture_output=True).returncode != 0


def test_a_batch_script_reads_the_value_wherever_slurm_starts_it(folder: Path) -> None:
    made = private(folder).written_to(folder / "job.sh", "slurm")
    (folder / "job.sh.secret.env").write_text(secret_text(made, "slurm"))
    lines = launch_text(made, "slurm").splitlines()
    line = next(line for line in lines if line.startswith("set -a"))
    answer = subprocess.run(["sh", "-c", f"{line}; env"], cwd="/", capture_output=True, text=True, check=True)
    assert f"GREETING={AWKWARD}" in answer.stdout


def test_without_a_file_the_value_must_be_set_and_the_script_says_so(folder: Path) -> None:
    script = folder.parent / "launch.sh"
    script.write_text(launch_text(private(folder), "torchrun"))
    refused = subprocess.run(["sh", str(script), "0", "h", "1"], capture_output=True, text=True)
    assert refused.returncode != 0
    assert MESSAGE in refused.stderr
    subprocess.run(["sh", str(script), "0", "h", "1"], env=environment(GREETING=AWKWARD), check=True)
    assert observed_by(folder, 0)[3] == AWKWARD


def test_kubernetes_takes_the_value_from_a_secret(folder: Path) -> None:
    made = private(folder).written_to(folder / "job.yaml", "k8s")
    manifest = yaml.safe_load(launch_text(made, "k8s"))
    jsonschema.validate(manifest, SCHEMA, cls=jsonschema.Draft202012Validator)
    secret = yaml.safe_load(secret_text(made, "k8s"))
    assert (secret["kind"], secret["stringData"]) == ("Secret", {"GREETING": AWKWARD})
    (variable,) = manifest["spec"]["trainer"]["env"]
    assert variable["valueFrom"] == {"secretKeyRef": {"name": secret["metadata"]["name"], "key": "GREETING"}}


def test_skypilot_copies_the_file_to_the_nodes(folder: Path) -> None:
    made = private(folder).written_to(folder / "job.yaml", "skypilot")
    task = yaml.safe_load(launch_text(made, "skypilot"))
    ((there, here),) = task["file_mounts"].items()
    assert here == str(folder.resolve() / "job.yaml.secret.env")
    assert task["run"].startswith(f"set -a; . {there} || exit; set +a\n")
    assert yaml.safe_load(launch_text(private(folder), "skypilot"))["envs"] == {"GREETING": None}


def test_an_environment_file_names_the_file_with_the_other_values(folder: Path) -> None:
    write(private(folder), folder, "env")
    line = "set -a; . ./'launch it.sh'; . ./'launch it.sh.secret.env'; set +a"
    assert f"# Use it in a shell: {line}" in (folder / "launch it.sh").read_text()
    answer = subprocess.run(["sh", "-c", f"{line}; env"], cwd=folder, capture_output=True, text=True)
    assert f"GREETING={AWKWARD}" in answer.stdout
    assert "PACELINE_BATCH_SIZE=64" in answer.stdout
