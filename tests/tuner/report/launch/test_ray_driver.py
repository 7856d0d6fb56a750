from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.ray_cluster import RayCluster
from tests.tuner.report.launch.plans import AWKWARD, environment, observed_by, plan
from tuner.launchers.ray_nodes import RaySection
from tuner.report.launch_files import launch_text
from tuner.report.launch_plan import LaunchPlan


def assigned(made: LaunchPlan) -> dict[str, object]:
    """What the file's upper-case names are."""
    found = {}
    for node in ast.parse(launch_text(made, "ray")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = ast.literal_eval(node.value)
    return found


def test_a_bundle_is_what_the_job_file_says_of_a_node(folder: Path) -> None:
    assert assigned(plan(folder, cores_per_node=8))["RESOURCES"] == {"CPU": 8}
    made = plan(folder, accelerator="A100", devices_per_node=4, cores_per_node=8)
    assert assigned(made)["RESOURCES"] == {"CPU": 8, "GPU": 4}
    section = RaySection(cpus_per_node=6, gpus_per_node=2, resources={"a100": 2.0}, address="http://ray:1")
    stated = plan(folder, settings=section.model_dump(exclude_none=True))
    assert assigned(stated)["RESOURCES"] == {"CPU": 6, "GPU": 2, "a100": 2.0}
    assert "ray job submit --address http://ray:1 " in launch_text(stated, "ray")


def test_the_script_survives_as_a_python_text(folder: Path) -> None:
    made = plan(folder, command=f"echo {AWKWARD!r} \\\n  '{{x}}'\n")
    assert made.command in str(assigned(made)["SCRIPT"])
    assert assigned(made)["NUM_NODES"] == 2


def submitted(folder: Path, cluster: RayCluster, out: Path) -> subprocess.CompletedProcess[str]:
    """Runs a folder's `job.py` as a job, as its head says."""
    ray = shutil.which("ray", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert ray is not None
    return subprocess.run(
        [
            ray, "job", "submit", "--address", cluster.address, "--working-dir", str(folder),
            "--runtime-env-json", json.dumps({"env_vars": {"OUT": str(out)}}), "--", sys.executable, "job.py",
        ],
        capture_output=True, text=True, env=environment(),
    )  # fmt: skip


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.slow
def test_ray_shows_every_node_its_place(folder: Path, tmp_path: Path, ray_cluster: RayCluster) -> None:
    (folder / "job.py").write_text(launch_text(plan(folder), "ray"))
    ended = submitted(folder, ray_cluster, tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    places = [observed_by(tmp_path, node) for node in (0, 1)]
    for node, place in enumerate(places):
        assert place[0] == f"{node} of 2"
        assert place[1] == place[2] == places[0][1]
        assert place[3] == AWKWARD


@pytest.mark.slow
def test_a_failing_node_ends_the_others_and_the_job(
    folder: Path, tmp_path: Path, ray_cluster: RayCluster
) -> None:
    waits = 'echo $$ > "$OUT/process"; sleep 300; :'
    fails = 'until [ -s "$OUT/process" ]; do sleep 0.1; done; exit 3'
    made = plan(folder, command=f'if [ "$PACELINE_NODE_RANK" = 0 ]; then {waits}; else {fails}; fi')
    (folder / "job.py").write_text(launch_text(made, "ray"))
    ended = submitted(folder, ray_cluster, tmp_path)
    assert ended.returncode != 0
    assert "the script on node 1 ended with exit code 3" in ended.stdout + ended.stderr
    process = int((tmp_path / "process").read_text())
    end = time.monotonic() + 60
    while alive(process):
        assert time.monotonic() < end, "what the other node runs goes on"
        time.sleep(0.1)
