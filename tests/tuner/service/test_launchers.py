"""Which launcher a job gets, and where what passes through files lies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.cli.workplace import Workplace
from tuner.launchers import CommandLauncher, JobState, LocalLauncher, RankTask, ray_nodes
from tuner.service.launchers import job_launcher, passing_folder
from tuner.service.opening import OpenedJob, open_job

#: Hosts that are this one.
HERE = """nodes = [1, 2]
launcher = "torchrun"
[cluster.torchrun]
hosts = ["a", "b"]
connect = "sh -c {command} {host}"
"""


def opened(folder: Path, cluster: str = "nodes = [1, 2]\n") -> OpenedJob:
    place = Workplace(folder)
    place.write_job(("nodes = [1, 2]\n", cluster))
    return open_job(place.job)


def test_each_name_has_its_launcher(tmp_path: Path) -> None:
    local = job_launcher(opened(tmp_path))
    hosts = job_launcher(opened(tmp_path, HERE))
    try:
        assert isinstance(local, LocalLauncher)
        assert isinstance(hosts, CommandLauncher)
    finally:
        local.close()
        hosts.close()


def test_what_other_hosts_shall_see_lies_beside_the_job(tmp_path: Path) -> None:
    with passing_folder(opened(tmp_path, HERE), "check") as folder:
        assert folder.parent == tmp_path
    assert not folder.exists()
    with passing_folder(opened(tmp_path), "check") as folder:
        assert folder.parent != tmp_path
    assert not folder.exists()


@pytest.mark.slow
def test_what_an_earlier_tuner_left_is_ended(tmp_path: Path) -> None:
    job = opened(tmp_path, HERE)
    (tmp_path / "probe").mkdir()
    launcher = job_launcher(job)
    task = RankTask(function="time:sleep", payload={}, folder=tmp_path / "probe")
    handle = launcher.submit(task, num_nodes=2, devices_per_node=1)
    another = job_launcher(job)
    assert len(another.end_orphans(tmp_path / "probe")) == 1
    another.close()
    assert not list(tmp_path.glob("probe/job-*/engine.json"))
    while not (status := launcher.poll(handle)).state.has_ended:
        continue
    assert status.state is not JobState.SUCCEEDED
    launcher.close()


def test_ray_is_asked_for_what_the_job_file_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    class Nodes:
        name = "ray"

        def __init__(self, address: str, **more: Any) -> None:
            asked.update(address=address, **more)

        def close(self) -> None:
            return

    monkeypatch.setattr(ray_nodes, "RayNodes", Nodes)
    cluster = """devices_per_node = 2
threads_per_rank = 3
launcher = "ray"
python = "/opt/python"
[cluster.ray]
address = "http://head:8265"
gpus_per_node = 2
resources = { a100 = 2 }
node_timeout = "5m"
"""
    launcher = job_launcher(opened(tmp_path, "nodes = [1, 2]\n" + cluster))
    assert isinstance(launcher, CommandLauncher)
    assert asked == {
        "address": "http://head:8265",
        "cpus_per_node": 6,
        "gpus_per_node": 2,
        "resources": {"a100": 2.0},
        "python": "/opt/python",
        "timeout_seconds": 300.0,
    }
    launcher.close()
