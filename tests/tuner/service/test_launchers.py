"""Which launcher a job file asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tuner.launchers import CommandLauncher, LocalLauncher
from tuner.service import launchers
from tuner.service.launchers import job_launcher
from tuner.service.opening import open_job

JOB = """
[workload]
path = "tuner.workloads.digits:Digits"
[goal]
target = 0.9
[space]
batch_size = { low = 16, high = 512 }
learning_rate = { low = 0.001, high = 1.0 }
[cluster]
devices_per_node = 2
threads_per_rank = 3
"""


def opened(folder: Path, cluster: str = "") -> Any:
    path = folder / "job.toml"
    path.write_text(JOB + cluster)
    return open_job(path)


def test_a_job_trains_on_this_host_unless_it_says_otherwise(tmp_path: Path) -> None:
    with job_launcher(opened(tmp_path)) as launcher:
        assert isinstance(launcher, LocalLauncher)


def test_ray_is_asked_for_what_the_job_file_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    class Nodes:
        name = "ray"

        def __init__(self, address: str, **more: Any) -> None:
            asked.update(address=address, **more)

        def close(self) -> None:
            return

    monkeypatch.setattr(launchers, "RayNodes", Nodes)
    cluster = """
launcher = "ray"
python = "/opt/python"
[cluster.ray]
address = "http://head:8265"
gpus_per_node = 2
resources = { a100 = 2 }
patience = "5m"
"""
    launcher = job_launcher(opened(tmp_path, cluster))
    assert isinstance(launcher, CommandLauncher)
    assert asked == {
        "address": "http://head:8265",
        "cpus_per_node": 6,
        "gpus_per_node": 2,
        "resources": {"a100": 2.0},
        "python": "/opt/python",
        "patience_seconds": 300.0,
    }
    launcher.close()
