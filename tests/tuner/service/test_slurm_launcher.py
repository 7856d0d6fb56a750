"""What SLURM is asked for is what the job file says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuner.domain.errors import JobError
from tuner.launchers import SlurmRequest
from tuner.launchers.registry import ClusterSettings
from tuner.launchers.slurm_nodes import SlurmSection, slurm_request
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


def test_slurm_is_asked_for_what_the_job_file_says(tmp_path: Path) -> None:
    section = open_job(written(tmp_path, SLURM)).job.cluster.launcher_section
    assert isinstance(section, SlurmSection)
    settings = ClusterSettings(devices_per_node=2, threads_per_rank=3, python=None, runs_command=False)
    assert slurm_request(section, settings) == SlurmRequest(
        partition="main",
        account="lab",
        time_seconds=7200.0,
        gres="gpu:2",
        cpus_per_node=6,
        extra={"constraint": "a100", "exclusive": True},
    )


def test_a_host_without_slurm_learns_what_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_job(written(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(JobError, match=r"(?s)cluster.launcher = 'slurm' needs.*sbatch"):
        job_launcher(opened)
    ((_, value, advice),) = [row for row in doctor_rows() if row[0] == "slurm"]
    assert "sbatch" in value
    assert "slurm-client" in advice
