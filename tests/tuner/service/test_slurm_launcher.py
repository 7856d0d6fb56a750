"""What SLURM is asked for is what the job file says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuner.domain.errors import JobError
from tuner.launchers import NodeJob, SlurmSection, slurm_nodes
from tuner.service.doctor import doctor_rows
from tuner.service.launchers import job_launcher
from tuner.service.opening import open_job

JOB = """
[workload]
path = "tuner.workloads.digits:Digits"
[goal]
target = 0.9
[space]
batch_size = [32, 64]
learning_rate = [0.01, 0.1]
[cluster]
launcher = "slurm"
devices_per_node = 2
threads_per_rank = 3
"""

SLURM = """
[cluster.slurm]
partition = "main"
account = "lab"
time = "2h"
gres = "gpu:2"
extra = { constraint = "a100", exclusive = true }
"""


def written(folder: Path, more: str = "") -> Path:
    path = folder / "job.toml"
    path.write_text(JOB + more)
    return path


def test_slurm_is_asked_for_what_the_job_file_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[SlurmSection] = []

    class Nodes:
        name = "slurm"

        def __init__(self, request: SlurmSection, *, python: str) -> None:
            asked.append(request)

        def close(self) -> None:
            return

    monkeypatch.setattr(slurm_nodes, "SlurmNodes", Nodes)
    job_launcher(open_job(written(tmp_path, SLURM))).close()
    (request,) = asked
    assert (
        request.limit_minutes(NodeJob(identity="x", folder=tmp_path, num_nodes=1, devices_per_node=1)) == 120
    )
    assert request.options() == {
        "partition": "main",
        "account": "lab",
        "gres": "gpu:2",
        "cpus-per-task": 6,
        "constraint": "a100",
        "exclusive": True,
    }


def test_an_option_that_paceline_sets_is_refused_in_the_job_file(tmp_path: Path) -> None:
    extra = "[cluster.slurm]\nextra = { nodes = 3 }\n"
    with pytest.raises(JobError, match="'nodes' cannot be set in this table"):
        open_job(written(tmp_path, extra))


def test_a_host_without_slurm_learns_what_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_job(written(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(JobError, match=r"(?s)cluster.launcher = 'slurm' needs.*sbatch"):
        job_launcher(opened)
    ((_, value, advice),) = [row for row in doctor_rows() if row[0] == "slurm"]
    assert "sbatch" in value
    assert "slurm-client" in advice
