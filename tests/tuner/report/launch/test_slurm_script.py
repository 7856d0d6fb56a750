from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.slurm_cluster import SlurmCluster
from tests.tuner.report.launch.plans import AWKWARD, check_sums, environment, observed_by, plan, summing_plan
from tuner.launchers import OnePer, SlurmSection
from tuner.report.launch_files import launch_text
from tuner.report.launch_plan import LaunchPlan


def options(made: LaunchPlan) -> list[str]:
    lines = launch_text(made, "slurm").splitlines()
    return [line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH ")]


def test_options_stand_before_everything_else(folder: Path) -> None:
    lines = launch_text(plan(folder), "slurm").splitlines()
    assert lines[0] == "#!/bin/sh"
    assert lines[1:5] == [
        "#SBATCH --job-name=digits",
        "#SBATCH --nodes=2",
        "#SBATCH --ntasks-per-node=1",
        "#SBATCH --cpus-per-task=1",
    ]
    assert lines[5].startswith("# Trains digits rm -rf x")


def test_the_job_file_s_settings_become_options(folder: Path) -> None:
    section = SlurmSection(
        partition="gpu",
        account="a team",
        gres="gpu:2",
        cpus_per_node=6,
        extra={"qos": "x", "exclusive": True, "hold": False, "mem_per_cpu": 8, "comment": "two words"},
    )
    settings = section.model_dump(exclude_none=True)
    assert options(plan(folder, settings=settings, accelerator="A100"))[3:] == [
        "--cpus-per-task=6",
        "--partition=gpu",
        "--account='a team'",
        "--gres=gpu:2",
        "--qos=x",
        "--exclusive",
        "--mem-per-cpu=8",
        "--comment='two words'",
    ]


@pytest.mark.parametrize(("longest", "minutes"), [(None, 10), (60.0, 10), (3600.0, 120)])
def test_a_limit_of_slices_is_not_that_of_a_training(
    folder: Path, longest: float | None, minutes: int
) -> None:
    made = plan(folder, settings={"time": 600.0}, longest_seconds=longest)
    assert f"--time={minutes}" in options(made)


def test_an_accelerator_is_asked_for(folder: Path) -> None:
    assert options(plan(folder, accelerator="A100", devices_per_node=4))[4:] == ["--gres=gpu:a100:4"]
    assert options(plan(folder, accelerator="gpu"))[4:] == ["--gres=gpu:1"]


def test_a_task_a_rank_shares_the_node_s_cores(folder: Path) -> None:
    made = plan(folder, one_per=OnePer.RANK, devices_per_node=2, cores_per_node=8)
    assert options(made)[2:4] == ["--ntasks-per-node=2", "--cpus-per-task=4"]


def submit(made: LaunchPlan, folder: Path, cluster: SlurmCluster) -> tuple[str, str]:
    """Submits the script as it is; how its job ended, and what it said."""
    script = folder / "job.sbatch"
    script.write_text(launch_text(made, "slurm"))
    answer = subprocess.run(
        ["sbatch", "--parsable", "--output", str(folder.parent / "said.txt"), script.name],
        cwd=folder, env=environment(**cluster.environment) | {"PATH": environment()["PATH"]},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    state = cluster.wait_for_job(answer.stdout.strip())
    return state, (folder.parent / "said.txt").read_text()


@pytest.mark.slow
def test_slurm_shows_every_node_its_place(folder: Path, slurm_cluster: SlurmCluster) -> None:
    settings = {
        "partition": "other",
        "account": "a team",
        "time": 300.0,
        "gres": "tile:1",
        "extra": {"comment": "it is ours", "exclusive": True},
    }
    state, said = submit(plan(folder, settings=settings), folder, slurm_cluster)
    assert state == "COMPLETED", said
    places = [observed_by(folder, node) for node in (0, 1)]
    address, port = places[0][1].split()
    assert address in slurm_cluster.nodes
    assert 15000 <= int(port) < 30000
    for node, place in enumerate(places):
        assert place == [f"{node} of 2", *[f"{address} {port}"] * 2, AWKWARD, str(folder)]


@pytest.mark.slow
@pytest.mark.parametrize("one_per", [OnePer.NODE, OnePer.RANK])
def test_slurm_trains_on_two_nodes(folder: Path, one_per: OnePer, slurm_cluster: SlurmCluster) -> None:
    made = summing_plan(folder, one_per=one_per, devices_per_node=2, cores_per_node=2)
    state, said = submit(made, folder, slurm_cluster)
    assert state == "COMPLETED", said
    check_sums(folder, num_ranks=4, num_nodes=2)


@pytest.mark.slow
def test_a_command_that_starts_its_nodes_is_started_once(folder: Path, slurm_cluster: SlurmCluster) -> None:
    made = plan(
        folder, one_per=OnePer.JOB, command='echo "on $PACELINE_NUM_NODES"; srun -N 2 echo told; exit 3'
    )
    state, said = submit(made, folder, slurm_cluster)
    assert state == "FAILED"
    assert sorted(said.splitlines()) == ["on 2", "told", "told"]


@pytest.mark.slow
def test_a_failing_node_fails_the_job(folder: Path, slurm_cluster: SlurmCluster) -> None:
    made = plan(folder, command='[ "$PACELINE_NODE_RANK" = 0 ] || exit 3; sleep 300')
    state, said = submit(made, folder, slurm_cluster)
    assert state == "FAILED"
    assert "Exited with exit code 3" in said
