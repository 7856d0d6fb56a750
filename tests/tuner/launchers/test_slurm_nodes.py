"""Commands on a real SLURM of four nodes: the conformance suite, and all the ways SLURM ends a job."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm_cluster import SlurmCluster
from tests.tuner.launchers.command_conformance import (
    SAVES,
    STAYS,
    CommandConformance,
    end,
    processes_of,
    submit,
)
from tests.tuner.launchers.conformance import Watch, is_alive, wait_until
from tuner.domain.errors import ProbeError
from tuner.launchers import CommandLauncher, JobHandle, JobState, SlurmNodes, SlurmSection
from tuner.launchers.slurm_submission import missing_parts

pytestmark = pytest.mark.slow

MOST_NODES = 4


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def slurm(slurm_cluster: SlurmCluster, monkeypatch: pytest.MonkeyPatch) -> SlurmCluster:
    """The cluster, as the environment of this process names it; skips where submitit is missing."""
    for name in ("PATH", "SLURM_CONF"):
        monkeypatch.setenv(name, slurm_cluster.environment[name])
    missing = missing_parts()
    if missing:
        pytest.skip("; ".join(f"{what} is not here: {remedy}" for what, remedy in missing))
    return slurm_cluster


@pytest.fixture
def launcher(slurm: SlurmCluster) -> Iterator[CommandLauncher]:
    launcher = CommandLauncher(SlurmNodes())
    yield launcher
    launcher.close()
    slurm.wait_until(lambda: queued(slurm) == [], "an empty queue")


def queued(slurm: SlurmCluster) -> list[str]:
    """The states of all jobs that SLURM still has on its hands."""
    return slurm.run("squeue", "--noheader", "--format=%j %T").splitlines()


def number_of(slurm: SlurmCluster, handle: JobHandle) -> str:
    """SLURM's number of a job."""
    name = f"paceline-{handle.identity}"
    found = slurm.run("squeue", "--noheader", "--states=all", f"--name={name}", "--format=%i").split()
    assert len(found) == 1, f"{name} is there {len(found)} times"
    return found[0]


class TestSlurmNodes(CommandConformance):
    def another_launcher(self) -> CommandLauncher:
        return CommandLauncher(SlurmNodes())


def test_slurm_s_books_show_how_a_job_ended(
    slurm: SlurmCluster, launcher: CommandLauncher, work: Path
) -> None:
    good, bad = submit(launcher, work, "true", num_nodes=2), submit(launcher, work, "exit 3", num_nodes=2)
    assert end(launcher, good).state is JobState.SUCCEEDED
    assert end(launcher, bad).failures[0].exit_code == 3
    assert slurm.wait_for_job(number_of(slurm, good)) == "COMPLETED"
    assert slurm.wait_for_job(number_of(slurm, bad)) == "FAILED"


def test_a_node_that_dies_loses_the_job_and_leaves_no_copy(
    slurm: SlurmCluster, launcher: CommandLauncher, work: Path
) -> None:
    handle = submit(launcher, work, STAYS, num_nodes=2, grace_seconds=1.0)
    processes = processes_of(work, 2)
    number = number_of(slurm, handle)
    node = slurm.run("squeue", "--noheader", f"--jobs={number}", "--format=%B").strip()
    dying = next(n for n in slurm.nodes if n != node and n in hosts_of(slurm, number))
    slurm.stop_node(dying)
    try:
        status = end(launcher, handle)
        assert status.state is JobState.LOST
        assert "NODE_FAIL" in status.failures[0].reason, status.failures
        assert "died" in status.failures[0].reason
        wait_until(lambda: not any(is_alive(p) for p in processes), "copies on the other node end")
        assert launcher.poll(handle).state is JobState.LOST
    finally:
        slurm.start_node(dying)
        slurm.wait_until_idle()


def hosts_of(slurm: SlurmCluster, number: str) -> list[str]:
    nodes = slurm.run("squeue", "--noheader", f"--jobs={number}", "--format=%N").strip()
    return slurm.run("scontrol", "show", "hostnames", nodes).split()


def test_a_node_s_daemon_that_dies_alone_leaves_no_copy(
    slurm: SlurmCluster, launcher: CommandLauncher, work: Path
) -> None:
    """SLURM thinks the node dead while the copy on it lives: the job's folder still reaches it."""
    handle = submit(launcher, work, STAYS, num_nodes=1, grace_seconds=1.0)
    processes = processes_of(work, 1)
    (node,) = hosts_of(slurm, number_of(slurm, handle))
    slurm.stop_daemon(node)
    try:
        status = end(launcher, handle)
        assert status.state is JobState.LOST
        assert "NODE_FAIL" in status.failures[0].reason, status.failures
        wait_until(lambda: not any(is_alive(p) for p in processes), "the copy on the lost node ends")
    finally:
        slurm.start_node(node)
        slurm.wait_until_idle()


def test_a_job_that_waits_says_why_and_can_be_cancelled(
    slurm: SlurmCluster, launcher: CommandLauncher, work: Path
) -> None:
    first = submit(launcher, work, STAYS, num_nodes=MOST_NODES)
    processes_of(work, MOST_NODES)
    second = submit(launcher, work, "true", num_nodes=2)
    watch = Watch(launcher, second)
    status = watch.until(lambda w: "Resources" in w.status.detail, "SLURM says why it waits")
    assert (status.state, status.startup_seconds) == (JobState.PENDING, None)
    assert status.pending_seconds > 0
    launcher.cancel(second)
    assert end(launcher, second).state is JobState.CANCELLED
    slurm.wait_until(lambda: slurm.job_state(number_of(slurm, second)) == "CANCELLED", "its cancellation")
    assert launcher.poll(first).state is JobState.RUNNING
    launcher.cancel(first)
    assert end(launcher, first).state is JobState.CANCELLED


def test_waiting_is_not_start_up(launcher: CommandLauncher, slurm: SlurmCluster, work: Path) -> None:
    until_released = "touch process-$$; while ! [ -e go ]; do sleep 0.1; done"
    blocking = submit(launcher, work, until_released, num_nodes=MOST_NODES)
    processes_of(work, MOST_NODES)
    waiting = submit(launcher, work, "true", num_nodes=1)
    submitted_at = time.monotonic()
    watches = [Watch(launcher, blocking), Watch(launcher, waiting)]
    watches[1].until(lambda w: "Resources" in w.status.detail, "SLURM says why it waits")
    time.sleep(2)  # long enough to be told from a start
    released_at = time.monotonic()
    assert watches[1].poll().state is JobState.PENDING
    (work / "go").touch()
    wait_until(lambda: not [w for w in watches if not w.poll().state.has_ended], "both jobs end")
    status = launcher.poll(waiting)
    assert status.state is JobState.SUCCEEDED
    assert status.pending_seconds >= released_at - submitted_at
    assert status.startup_seconds is not None
    assert 0 < status.startup_seconds <= time.monotonic() - released_at


def test_slurm_s_time_limit_is_a_time_out_with_time_to_save(
    slurm: SlurmCluster, launcher: CommandLauncher, work: Path
) -> None:
    handle = submit(launcher, work, SAVES, num_nodes=2)
    processes_of(work, 2)
    # SLURM's limits are whole minutes; this one is used up in seconds. It refuses a time that has passed.
    slurm.run("scontrol", "update", f"JobId={number_of(slurm, handle)}", "EndTime=now+5")
    status = Watch(launcher, handle).end()
    assert status.state is JobState.TIMED_OUT, status
    assert sorted(path.name for path in work.glob("saved-*")) == ["saved-0", "saved-1"]


def test_a_job_that_somebody_else_cancels_is_lost(
    slurm: SlurmCluster, launcher: CommandLauncher, work: Path
) -> None:
    handle = submit(launcher, work, SAVES, num_nodes=2)
    processes_of(work, 2)
    slurm.run("scancel", number_of(slurm, handle))
    status = end(launcher, handle)
    assert status.state is JobState.LOST
    assert "CANCELLED" in status.failures[0].reason
    assert "another user" in status.failures[0].reason
    assert sorted(path.name for path in work.glob("saved-*")) == ["saved-0", "saved-1"]


def test_a_waiting_job_that_somebody_else_cancels_is_lost(
    slurm: SlurmCluster, launcher: CommandLauncher, work: Path
) -> None:
    blocking = submit(launcher, work, STAYS, num_nodes=MOST_NODES)
    processes_of(work, MOST_NODES)
    waiting = submit(launcher, work, "true")
    slurm.run("scancel", number_of(slurm, waiting))
    status = end(launcher, waiting)
    assert status.state is JobState.LOST
    assert "no node started" in status.failures[0].reason
    assert "CANCELLED" in status.failures[0].reason
    launcher.cancel(blocking)
    end(launcher, blocking)


def test_a_preempted_job_is_lost_and_not_run_again(
    slurm: SlurmCluster, launcher: CommandLauncher, work: Path
) -> None:
    handle = submit(launcher, work, SAVES, num_nodes=MOST_NODES)
    processes_of(work, MOST_NODES)
    slurm.run("srun", "--partition=urgent", "--nodes=4", "true")
    status = end(launcher, handle)
    assert status.state is JobState.LOST
    assert "PREEMPTED" in status.failures[0].reason, status.failures
    assert "higher priority" in status.failures[0].reason
    assert len(list(work.glob("saved-*"))) == MOST_NODES
    assert slurm.job_state(number_of(slurm, handle)) == "PREEMPTED"


_TUNER = """
import sys, time
from pathlib import Path
from tuner.launchers import CommandLauncher, CommandTask, SlurmNodes
work = Path(sys.argv[1])
launcher = CommandLauncher(SlurmNodes())
for _ in range(2):
    task = CommandTask(command=sys.argv[2], working_folder=work, folder=work)
    handle = launcher.submit_command(task, num_nodes=3, devices_per_node=1)
while True:
    launcher.poll(handle)
    time.sleep(0.05)
"""


def test_a_tuner_started_again_ends_what_a_killed_one_left_running_and_waiting(
    slurm: SlurmCluster, work: Path
) -> None:
    tuner = subprocess.Popen([sys.executable, "-c", _TUNER, str(work), SAVES])
    processes = processes_of(work, 3)
    slurm.wait_until(lambda: len(queued(slurm)) == 2, "a second job that waits")
    tuner.send_signal(signal.SIGKILL)
    tuner.wait()
    launcher = CommandLauncher(SlurmNodes())
    try:
        assert len(launcher.end_orphans(work)) == 2
    finally:
        launcher.close()
    slurm.wait_until(lambda: queued(slurm) == [], "an empty queue")
    assert len(list(work.glob("saved-*"))) == 3, "each was given time to save"
    assert not any(is_alive(process) for process in processes)


def test_a_job_whose_number_was_never_learnt_is_ended_by_its_name(slurm: SlurmCluster, work: Path) -> None:
    killed = CommandLauncher(SlurmNodes())
    handle = submit(killed, work, STAYS)
    processes_of(work, 1)
    record = next(work.glob("job-*/engine.json"))
    record.write_text(record.read_text().replace(f'"{number_of(slurm, handle)}"', "null"))
    again = CommandLauncher(SlurmNodes())
    assert again.end_orphans(work) == [""]
    again.close()
    slurm.wait_until(lambda: queued(slurm) == [], "an empty queue")
    end(killed, handle)
    killed.close()


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (SlurmSection(partition="nope"), "invalid partition specified: nope"),
        (SlurmSection(extra={"no_such_option": 1}), "unrecognized option '--no-such-option"),
        (SlurmSection(extra={"constraint": "a100"}), "Invalid feature"),
        (SlurmSection(gres="gpu:4"), "gres"),
        (SlurmSection(extra={"mem": "900G"}), "Memory specification"),
    ],
)
def test_what_slurm_refuses_is_an_error_with_its_words(
    slurm: SlurmCluster, work: Path, request_: SlurmSection, words: str
) -> None:
    launcher = CommandLauncher(SlurmNodes(request_))
    with pytest.raises(ProbeError, match=words):
        submit(launcher, work, "true")
    launcher.close()
    assert queued(slurm) == []


@pytest.mark.parametrize(
    ("request_", "num_nodes", "words"),
    [
        (SlurmSection(), MOST_NODES + 1, "PartitionNodeLimit"),
        (SlurmSection(time=100 * 3600), 1, "PartitionTimeLimit"),
        (SlurmSection(cpus_per_node=1000), 1, "PartitionConfig"),
    ],
)
def test_a_job_that_can_never_start_fails_with_the_reason(
    slurm: SlurmCluster, work: Path, request_: SlurmSection, num_nodes: int, words: str
) -> None:
    launcher = CommandLauncher(SlurmNodes(request_))
    status = end(launcher, submit(launcher, work, "true", num_nodes=num_nodes))
    assert status.state is JobState.FAILED
    assert f"can never start (PENDING, {words})" in status.failures[0].reason
    launcher.close()
    slurm.wait_until(lambda: queued(slurm) == [], "an empty queue")


def test_what_is_asked_for_arrives_at_slurm(slurm: SlurmCluster, work: Path) -> None:
    request_ = SlurmSection(
        partition="other",
        account="someone",
        time=90.0,
        gres="tile:2",
        cpus_per_node=2,
        extra={"exclusive": True, "comment": "it's ours", "nice": False},
    )
    launcher = CommandLauncher(SlurmNodes(request_))
    handle = submit(launcher, work, STAYS)
    processes_of(work, 1)
    said = slurm.run("scontrol", "show", "job", "-o", number_of(slurm, handle))
    for pair in (
        "Partition=other",
        "Account=someone",
        "TimeLimit=00:02:00",
        "TresPerNode=gres:tile:2",
        "CPUs/Task=2",
        "Requeue=0",
        "Comment=it's ours",
    ):
        assert f" {pair} " in said, said
    launcher.cancel(handle)
    end(launcher, handle)
    launcher.close()


def test_a_job_s_own_limit_is_slurm_s_with_room(slurm: SlurmCluster, work: Path) -> None:
    launcher = CommandLauncher(SlurmNodes(SlurmSection(time=1800.0)))
    handle = submit(launcher, work, "true", time_limit_seconds=100.0, grace_seconds=20.0)
    assert " TimeLimit=00:04:00 " in slurm.run("scontrol", "show", "job", "-o", number_of(slurm, handle))
    end(launcher, handle)
    launcher.close()


def test_a_python_that_nodes_do_not_have_is_said(slurm: SlurmCluster, work: Path) -> None:
    launcher = CommandLauncher(SlurmNodes(python="/opt/no/python"))
    status = end(launcher, submit(launcher, work, "true", num_nodes=2))
    assert status.state is JobState.FAILED
    assert "/opt/no/python" in status.failures[0].reason
    launcher.close()


def test_a_folder_with_signs_that_slurm_reads_as_its_own(
    slurm: SlurmCluster, launcher: CommandLauncher, work: Path
) -> None:
    folder = work / "it's 100 %j here"
    folder.mkdir()
    handle = submit(launcher, folder, "echo $PWD", num_nodes=2)
    assert end(launcher, handle).state is JobState.SUCCEEDED
    assert launcher.logs(handle)[1].strip() == str(folder)


def test_a_controller_that_restarts_amid_a_job_is_no_matter(
    slurm: SlurmCluster, launcher: CommandLauncher, work: Path
) -> None:
    handle = submit(launcher, work, "touch process-$$; while ! [ -e go ]; do sleep 0.1; done", num_nodes=2)
    processes_of(work, 2)
    watch = Watch(launcher, handle)
    slurm.stop_controller()
    try:
        for _ in range(3):
            assert watch.poll().state is JobState.RUNNING
        time.sleep(3)
        assert watch.poll().state is JobState.RUNNING
    finally:
        slurm.start_controller()
    slurm.wait_until(lambda: slurm.job_state(number_of(slurm, handle)) == "RUNNING", "an answer")
    (work / "go").touch()
    assert watch.end().state is JobState.SUCCEEDED


def test_a_tuner_inside_a_job_submits_as_one_outside(
    slurm: SlurmCluster, launcher: CommandLauncher, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("SLURM_JOB_ID", "1"), ("SLURM_NTASKS", "7"), ("SLURM_MEM_PER_CPU", "999999")):
        monkeypatch.setenv(name, value)
    handle = submit(launcher, work, "echo $SLURM_JOB_ID", num_nodes=2)
    assert end(launcher, handle).state is JobState.SUCCEEDED
    assert launcher.logs(handle)[0].strip() == number_of(slurm, handle)


def test_sixteen_jobs_at_once_all_end(slurm: SlurmCluster, launcher: CommandLauncher, work: Path) -> None:
    handles = [submit(launcher, work, "true") for _ in range(16)]
    watches = [Watch(launcher, handle) for handle in handles]
    wait_until(lambda: not [w for w in watches if not w.poll().state.has_ended], "all jobs end")
    assert {w.status.state for w in watches} == {JobState.SUCCEEDED}
