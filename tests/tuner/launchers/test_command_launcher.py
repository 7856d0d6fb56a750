"""Commands on this host: the conformance suite, a killed tuner, and what the starter alone must do."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tuner.launchers.command_conformance import (
    SAVES,
    STAYS,
    CommandConformance,
    end,
    processes_of,
    submit,
)
from tests.tuner.launchers.conformance import is_alive, wait_until
from tuner.domain.errors import ProbeError
from tuner.launchers import (
    BackendView,
    CommandLauncher,
    JobState,
    LocalLauncher,
    LocalNodes,
    NodeJob,
    node_agent,
)
from tuner.launchers.job_folder import JobFolder
from tuner.launchers.node_agent import NodeAgent


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return tmp_path


class TestLocalNodes(CommandConformance):
    @pytest.fixture
    def launcher(self) -> Iterator[CommandLauncher]:
        launcher = self.another_launcher()
        yield launcher
        launcher.close()

    def another_launcher(self) -> CommandLauncher:
        return CommandLauncher(LocalNodes())


def test_a_launcher_that_runs_no_commands_says_so(warm_ranks: LocalLauncher, work: Path) -> None:
    with pytest.raises(ProbeError, match="LocalLauncher cannot run commands"):
        submit(warm_ranks, work, "echo here")


def test_close_ends_what_runs_and_takes_no_more(work: Path) -> None:
    launcher = CommandLauncher(LocalNodes())
    submit(launcher, work, STAYS)
    processes = processes_of(work, 1)
    launcher.close()
    assert not any(is_alive(process) for process in processes)
    with pytest.raises(ProbeError, match="closed"):
        submit(launcher, work, "true")


def test_many_nodes_are_not_read_at_every_poll(work: Path) -> None:
    clock = [100.0]
    launcher = CommandLauncher(LocalNodes(), clock=lambda: clock[0])
    handle = submit(launcher, work, STAYS, num_nodes=4)
    assert launcher.poll(handle).startup_seconds is None
    processes_of(work, 4)

    def states() -> list[str]:
        return [json.loads(path.read_text())["state"] for path in work.glob("job-*/node-*.json")]

    wait_until(lambda: states() == ["running"] * 4, "all nodes tell that they run")
    clock[0] += 0.03
    assert launcher.poll(handle).startup_seconds is None, "what was read a moment ago is told again"
    clock[0] += 0.02
    assert launcher.poll(handle).startup_seconds == pytest.approx(0.05)
    launcher.cancel(handle)

    def has_ended() -> bool:
        clock[0] += 0.05
        return launcher.poll(handle).state.has_ended

    wait_until(has_ended, "the job ends")
    launcher.close()


@pytest.mark.slow
def test_a_frozen_node_is_lost(work: Path) -> None:
    launcher = CommandLauncher(LocalNodes(), silence_seconds=20.0)
    handle = submit(launcher, work, STAYS, num_nodes=2)
    processes = processes_of(work, 2)
    agent = int(json.loads(next(work.glob("job-*/node-1.json")).read_text())["process"])
    os.kill(agent, signal.SIGSTOP)
    status = end(launcher, handle)
    assert status.state is JobState.LOST
    assert "node 1" in status.failures[0].reason
    assert "20 s" in status.failures[0].reason
    assert not any(is_alive(process) for process in processes)
    launcher.close()


def test_a_node_agent_that_is_killed_is_lost_and_takes_its_processes_along(work: Path) -> None:
    launcher = CommandLauncher(LocalNodes())
    handle = submit(launcher, work, STAYS, num_nodes=2)
    processes = processes_of(work, 2)
    for path in work.glob("job-*/node-*.json"):
        os.kill(int(json.loads(path.read_text())["process"]), signal.SIGKILL)
    status = end(launcher, handle)
    assert status.state in (JobState.LOST, JobState.FAILED)
    assert "without a report" in status.failures[0].reason
    wait_until(lambda: not any(is_alive(p) for p in processes), "copies whose starter was killed end")
    launcher.close()


class LittleMemory(LocalNodes):
    """Ends jobs for want of memory, as SLURM and Ray do."""

    def poll(self, job: NodeJob, backend_id: str) -> BackendView:
        view = super().poll(job, backend_id)
        if not view.state.has_ended:
            return view
        return BackendView(state=JobState.FAILED, detail="it ran out of memory", memory_ran_out=True)


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGKILL])
def test_a_job_that_its_backend_ended_for_memory_has_failed_as_if_it_were_killed(
    work: Path, by: signal.Signals
) -> None:
    """Nodes that are taken away for another reason are LOST, and the job is tried again."""
    launcher = CommandLauncher(LittleMemory(), clock=lambda: 10 * time.monotonic())
    handle = submit(launcher, work, STAYS, num_nodes=2)
    processes_of(work, 2)
    for path in work.glob("job-*/node-*.json"):
        os.kill(int(json.loads(path.read_text())["process"]), by)
    status = end(launcher, handle)
    assert (status.state, status.failures[0].exit_code) == (JobState.FAILED, -9)
    assert "ran out of memory" in status.failures[0].reason
    launcher.close()


_TUNER = """
import sys, time
from pathlib import Path
from tuner.launchers import CommandLauncher, CommandTask, LocalNodes
work = Path(sys.argv[1])
launcher = CommandLauncher(LocalNodes())
task = CommandTask(command=sys.argv[2], working_folder=work, folder=work)
handle = launcher.submit_command(task, num_nodes=2, devices_per_node=1)
while True:
    launcher.poll(handle)
    time.sleep(0.05)
"""


def test_no_copy_survives_a_tuner_that_is_killed(work: Path) -> None:
    tuner = subprocess.Popen([sys.executable, "-c", _TUNER, str(work), SAVES])
    processes = processes_of(work, 2)
    tuner.kill()
    tuner.wait()
    wait_until(lambda: not any(is_alive(p) for p in processes), "the killed tuner's copies end")
    assert len(list(work.glob("saved-*"))) == 2, "each was given time to save"


def agent_folder(folder: Path, **more: object) -> Path:
    task = {
        "identity": "one",
        "command": STAYS,
        "one_per": "node",
        "environment": {},
        "working_folder": str(folder),
        "num_nodes": 1,
        "devices_per_node": 1,
        "grace_seconds": 1.0,
        "time_limit_seconds": None,
        "orphan_seconds": 300.0,
        **more,
    }
    (folder / "task.json").write_text(json.dumps(task))
    return folder


def run_agent(folder: Path, node_rank: int = 0) -> subprocess.Popen[bytes]:
    script = Path(sys.modules[NodeAgent.__module__].__file__ or "")
    return subprocess.Popen([sys.executable, "-I", str(script), str(folder), str(node_rank)])


def test_a_node_agent_whose_lease_nobody_touches_ends_its_processes(work: Path) -> None:
    agent = run_agent(agent_folder(work, command=SAVES, orphan_seconds=1.0))
    processes = processes_of(work, 1)
    assert agent.wait(timeout=60) == 0
    assert json.loads((work / "node-0.json").read_text())["reason"] == "orphaned"
    assert not any(is_alive(process) for process in processes)


def test_a_node_agent_that_its_scheduler_ends_says_by_which_signal(work: Path) -> None:
    agent = run_agent(agent_folder(work))
    processes = processes_of(work, 1)
    agent.send_signal(signal.SIGTERM)
    agent.wait(timeout=60)
    assert json.loads((work / "node-0.json").read_text())["reason"] == "signal SIGTERM"
    assert not any(is_alive(process) for process in processes)


def test_a_node_agent_ends_with_its_process_s_code(work: Path) -> None:
    assert run_agent(agent_folder(work, command="exit 9")).wait(timeout=60) == 9
    reported = json.loads((work / "node-0.json").read_text())
    assert (reported["state"], reported["exits"]) == ("ended", [{"copy": 0, "code": 9}])


def test_an_end_without_words_counts_only_once_none_can_be_on_their_way(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = NodeAgent(agent_folder(work), 0)
    (work / "end").touch()
    assert agent._must_end() is None
    (work / "end").write_text("nodes lost")
    assert agent._must_end() == "nodes lost"
    (work / "end").write_text("")
    monkeypatch.setattr(node_agent, "_EMPTY_END_SECONDS", 0.0)
    assert agent._must_end() == "cancelled"


def test_the_first_reason_to_end_stays(work: Path) -> None:
    for reason in ("nodes lost", "over"):
        JobFolder(work).ask_to_end(reason)
    assert [path.name for path in work.iterdir()] == ["end"]
    assert (work / "end").read_text() == "nodes lost"


def test_a_full_disk_s_end_has_no_words_and_is_there(work: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        JobFolder(work).ask_to_end("nodes lost")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in work.iterdir()] == ["end"]
    assert (work / "end").read_text() == ""


def test_a_node_that_ends_before_it_met_the_first_says_why(work: Path) -> None:
    folder = agent_folder(work, num_nodes=2)
    (folder / "end").write_text("nodes lost")
    assert run_agent(folder, node_rank=1).wait(timeout=60) == 0
    reported = json.loads((folder / "node-1.json").read_text())
    assert (reported["state"], reported["exits"], reported["reason"]) == ("ended", [], "nodes lost")
