"""Commands on a Ray cluster: the conformance suite over a real one, nodes that die, wait and never come."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ray_cluster import CPUS_PER_NODE, NUM_NODES, RayCluster
from tests.tuner.launchers.command_conformance import (
    SAVES,
    STAYS,
    CommandConformance,
    end,
    processes_of,
    submit,
)
from tests.tuner.launchers.conformance import Watch, is_alive, wait_until
from tests.tuner.launchers.conformance import submit as submit_function
from tuner.launchers import CommandLauncher, JobState, RayNodes

pytestmark = pytest.mark.slow


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def launcher(ray_cluster: RayCluster) -> Iterator[CommandLauncher]:
    launcher = CommandLauncher(RayNodes(ray_cluster.address))
    yield launcher
    launcher.close()


class TestRayNodes(CommandConformance):
    @pytest.fixture(autouse=True)
    def cluster(self, ray_cluster: RayCluster) -> None:
        self._address = ray_cluster.address

    def another_launcher(self) -> CommandLauncher:
        return CommandLauncher(RayNodes(self._address))


def test_ranks_that_run_a_function_meet_on_two_nodes(launcher: CommandLauncher, work: Path) -> None:
    handle = submit_function(launcher, work, "sum_of_ranks", num_nodes=2)
    status = end(launcher, handle)
    assert status.state is JobState.SUCCEEDED, status
    assert {rank: result["sum"] for rank, result in status.results.items()} == {0: 3.0, 1: 3.0}


def agents(work: Path) -> dict[int, int]:
    """The process of each node's starter."""
    reported = (json.loads(path.read_text()) for path in work.glob("job-*/node-*.json"))
    return {node["node"]: node["process"] for node in reported}


def worker_of(agent: int) -> int:
    """The Ray worker that holds a starter's input open."""
    pipe = Path(f"/proc/{agent}/fd/0").readlink()
    for folder in Path("/proc").glob("[0-9]*"):
        if folder.name != str(agent):
            try:
                if any(link.readlink() == pipe for link in (folder / "fd").iterdir()):
                    return int(folder.name)
            except OSError:
                continue
    raise AssertionError("nobody holds the starter's input open")


def test_a_node_that_dies_is_lost_in_ray_s_words_and_ends_the_others(
    ray_cluster: RayCluster, work: Path
) -> None:
    number = ray_cluster.add_node(pair=1)
    other = ray_cluster.add_node(pair=1)
    launcher = CommandLauncher(RayNodes(ray_cluster.address, resources={"pair": 1}))
    try:
        # Whoever is left fails as soon as its peer is gone, as a collective would: not what happened.
        command = (
            "touch rank-$PACELINE_NODE_RANK.$$; "
            "until ls rank-$((1 - PACELINE_NODE_RANK)).* > /dev/null 2>&1; do sleep 0.1; done; "
            "peer=$(ls rank-$((1 - PACELINE_NODE_RANK)).*); "
            "touch process-$$; while kill -0 ${peer##*.}; do sleep 0.1; done; exit 3"
        )
        handle = submit(launcher, work, command, num_nodes=2)
        processes = processes_of(work, 2)
        ray_cluster.remove_node(number)
        status = end(launcher, handle)
    finally:
        launcher.close()
        ray_cluster.remove_node(other)
    assert status.state is JobState.LOST, status
    assert re.search(r"node [01]: .*(actor|node)", status.failures[0].reason), status.failures
    wait_until(lambda: not any(is_alive(process) for process in processes), "all copies end")


def test_a_worker_that_is_killed_is_lost_and_its_copy_has_time_to_save(
    launcher: CommandLauncher, work: Path
) -> None:
    handle = submit(launcher, work, SAVES, num_nodes=2)
    processes = processes_of(work, 2)
    os.kill(worker_of(agents(work)[1]), signal.SIGKILL)
    status = end(launcher, handle)
    assert status.state is JobState.LOST, status
    assert "node 1" in status.failures[0].reason
    assert "worker" in status.failures[0].reason
    wait_until(lambda: not any(is_alive(process) for process in processes), "all copies end")
    assert sorted(path.name for path in work.glob("saved-*")) == ["saved-0", "saved-1"]


def test_a_node_agent_that_is_killed_leaves_no_copy(launcher: CommandLauncher, work: Path) -> None:
    handle = submit(launcher, work, STAYS, num_nodes=2)
    processes = processes_of(work, 2)
    os.kill(agents(work)[1], signal.SIGKILL)
    status = end(launcher, handle)
    assert status.state in (JobState.LOST, JobState.FAILED)
    assert "without a report" in status.failures[0].reason
    wait_until(lambda: not any(is_alive(process) for process in processes), "all copies end")


def test_a_job_waits_for_busy_nodes_and_says_so(launcher: CommandLauncher, work: Path) -> None:
    first = submit(launcher, work, STAYS, num_nodes=NUM_NODES, devices_per_node=CPUS_PER_NODE)
    processes_of(work, NUM_NODES)
    waiting, doomed = (submit(launcher, work, "echo here", num_nodes=2) for _ in range(2))
    watch = Watch(launcher, waiting)
    status = watch.until(lambda seen: " free " in seen.status.detail, "it says what it waits for")
    assert status.state is JobState.PENDING
    assert "2 nodes with 1 CPU each" in status.detail
    assert f"0 of {NUM_NODES * CPUS_PER_NODE} CPU free" in status.detail
    assert status.pending_seconds > 0
    assert status.startup_seconds is None
    launcher.cancel(doomed)
    assert end(launcher, doomed).state is JobState.CANCELLED
    launcher.cancel(first)
    assert end(launcher, first).state is JobState.CANCELLED
    ended = watch.end()
    assert ended.state is JobState.SUCCEEDED
    assert ended.pending_seconds >= status.pending_seconds
    assert ended.startup_seconds is not None
    assert launcher.logs(waiting) == {0: "here\n", 1: "here\n"}


def test_what_the_cluster_can_never_give_fails_with_what_is_there(
    ray_cluster: RayCluster, work: Path
) -> None:
    nodes = RayNodes(
        ray_cluster.address, cpus_per_node=1, gpus_per_node=1, resources={"tpu": 2}, timeout_seconds=4.0
    )
    launcher = CommandLauncher(nodes)
    try:
        watch = Watch(launcher, submit(launcher, work, "true", num_nodes=2))
        watch.until(lambda seen: "too small for the job" in seen.status.detail, "it says so while it waits")
        assert watch.status.state is JobState.PENDING
        status = watch.end()
    finally:
        launcher.close()
    assert status.state is JobState.FAILED
    assert "2 nodes with 1 CPU, 1 GPU, 2 tpu each" in status.failures[0].reason
    assert "0 of them with these resources" in status.failures[0].reason
    assert "waited 4 s" in status.failures[0].reason


_TUNER = """
import sys, time
from pathlib import Path
from tuner.launchers import CommandLauncher, CommandTask, RayNodes
work, num_nodes = Path(sys.argv[1]), int(sys.argv[4])
launcher = CommandLauncher(RayNodes(sys.argv[3], timeout_seconds=1000), orphan_seconds=float(sys.argv[5]))
task = CommandTask(command=sys.argv[2], working_folder=work, folder=work)
handle = launcher.submit_command(task, num_nodes=num_nodes, devices_per_node=1)
while True:
    print(launcher.poll(handle).detail, flush=True)
    time.sleep(0.2)
"""


def killed_tuner(ray_cluster: RayCluster, work: Path, *, num_nodes: int, orphan_seconds: float) -> None:
    """Starts a tuner with a job, and kills it once the job runs, or waits for nodes that never come."""
    tuner = subprocess.Popen(
        [
            *(sys.executable, "-c", _TUNER, str(work), SAVES, ray_cluster.address),
            *(str(num_nodes), str(orphan_seconds)),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        if num_nodes <= NUM_NODES:
            processes_of(work, num_nodes)
        else:
            assert tuner.stdout is not None
            assert any("too small for the job" in line for line in tuner.stdout)
    finally:
        tuner.kill()
        tuner.communicate()


def test_a_later_process_ends_what_a_killed_tuner_left_running_and_waiting(
    ray_cluster: RayCluster, launcher: CommandLauncher, work: Path
) -> None:
    killed_tuner(ray_cluster, work, num_nodes=2, orphan_seconds=300)
    killed_tuner(ray_cluster, work, num_nodes=NUM_NODES + 1, orphan_seconds=300)
    processes = processes_of(work, 2)
    assert len(launcher.end_orphans(work)) == 2
    assert launcher.end_orphans(work) == []
    wait_until(lambda: not any(is_alive(process) for process in processes), "the orphans have ended")
    assert len(list(work.glob("saved-*"))) == 2
    wait_until(lambda: living_jobs(ray_cluster) == [], "Ray has no job left")
    # And all nodes are free again.
    assert end(launcher, submit(launcher, work, "true", num_nodes=NUM_NODES, devices_per_node=2)).state is (
        JobState.SUCCEEDED
    )


def test_jobs_of_a_killed_tuner_end_by_themselves_when_their_lease_runs_out(
    ray_cluster: RayCluster, work: Path
) -> None:
    killed_tuner(ray_cluster, work, num_nodes=NUM_NODES + 1, orphan_seconds=3)
    wait_until(lambda: living_jobs(ray_cluster) == [], "Ray has no job left")


def test_a_job_that_somebody_stops_through_ray_is_lost_and_saves(
    ray_cluster: RayCluster, launcher: CommandLauncher, work: Path
) -> None:
    from ray.job_submission import JobSubmissionClient

    # Longer than the 3 s after which Ray kills by itself.
    command = SAVES.replace("echo", "sleep 5; echo")
    handle = submit(launcher, work, command, num_nodes=2)
    processes = processes_of(work, 2)
    JobSubmissionClient(ray_cluster.address).stop_job(f"paceline-{handle.identity}")
    status = end(launcher, handle)
    assert status.state is JobState.LOST
    assert "Ray was asked to stop the job" in status.failures[0].reason
    assert not any(is_alive(process) for process in processes)
    assert len(list(work.glob("saved-*"))) == 2


def test_another_python_runs_the_node_agents_and_its_absence_is_reported(
    ray_cluster: RayCluster, work: Path
) -> None:
    launcher = CommandLauncher(RayNodes(ray_cluster.address, python="/no/such/python"))
    try:
        status = end(launcher, submit(launcher, work, "true"))
    finally:
        launcher.close()
    assert status.state is JobState.FAILED
    assert "/no/such/python" in status.failures[0].reason


def test_processes_find_the_environment_their_node_was_started_with(
    launcher: CommandLauncher, work: Path
) -> None:
    command = (
        "echo threads=$OMP_NUM_THREADS; echo breakpoint=$PYTHONBREAKPOINT; echo $RAY_JOB_STOP_WAIT_TIME_S"
    )
    handle = submit(launcher, work, command, devices_per_node=2)
    assert end(launcher, handle).state is JobState.SUCCEEDED
    threads = os.environ.get("OMP_NUM_THREADS", "")
    assert launcher.logs(handle)[0].splitlines() == [f"threads={threads}", "breakpoint=", ""]


def living_jobs(ray_cluster: RayCluster) -> list[str]:
    from ray.job_submission import JobSubmissionClient

    jobs = JobSubmissionClient(ray_cluster.address).list_jobs()
    time.sleep(0.2)
    return [str(job.submission_id) for job in jobs if job.submission_id and not job.status.is_terminal()]
