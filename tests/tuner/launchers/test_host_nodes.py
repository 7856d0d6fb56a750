"""Commands and ranks on a list of hosts, reached through network namespaces: real processes, real links."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.host_network import HostNetwork
from tests.tuner.launchers.command_conformance import (
    SAVES,
    STAYS,
    CommandConformance,
    end,
    processes_of,
    submit,
)
from tests.tuner.launchers.conformance import LauncherConformance, Watch, is_alive, wait_until
from tests.tuner.launchers.conformance import submit as submit_ranks
from tuner.domain.errors import ProbeError
from tuner.launchers import CommandLauncher, HostNodes, JobState, NodeJob, OnePer
from tuner.launchers.host_nodes import connect_line

#: Hosts that are this one: what an engine does with its list needs no network.
HERE = "sh -c {command} {host}"


def launcher_of(hosts: tuple[str, ...], connect: str, **options: Any) -> CommandLauncher:
    return CommandLauncher(HostNodes(hosts, connect, end_seconds=5.0), **options)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return tmp_path


@pytest.mark.slow
class TestHostNodes(CommandConformance):
    @pytest.fixture
    def launcher(self, two_hosts: HostNetwork) -> Iterator[CommandLauncher]:
        self.network = two_hosts
        launcher = self.another_launcher()
        yield launcher
        launcher.close()
        assert not any(two_hosts.processes(host) for host in two_hosts.hosts)

    def another_launcher(self) -> CommandLauncher:
        return launcher_of(self.network.hosts, self.network.connect, uses_torchrun=True)


@pytest.mark.slow
class TestRanksOnHosts(LauncherConformance):
    @pytest.fixture
    def launcher(self, four_hosts: HostNetwork) -> Iterator[CommandLauncher]:
        # Some of these jobs want three nodes.
        launcher = launcher_of(four_hosts.hosts, four_hosts.connect, uses_torchrun=True)
        yield launcher
        launcher.close()


@pytest.fixture
def hosts(two_hosts: HostNetwork) -> Iterator[tuple[HostNetwork, CommandLauncher]]:
    launcher = launcher_of(two_hosts.hosts, two_hosts.connect, uses_torchrun=True)
    yield two_hosts, launcher
    launcher.close()


@pytest.mark.slow
def test_ranks_of_torch_s_agent_know_their_place(
    hosts: tuple[HostNetwork, CommandLauncher], work: Path
) -> None:
    network, launcher = hosts
    command = 'echo "$RANK $LOCAL_RANK $WORLD_SIZE $MASTER_ADDR $TORCHELASTIC_MAX_RESTARTS"'
    handle = submit(launcher, work, command, num_nodes=2, devices_per_node=2, one_per=OnePer.RANK)
    status = end(launcher, handle)
    assert status.state is JobState.SUCCEEDED, status
    main = network.hosts[0]
    assert launcher.logs(handle) == {rank: f"{rank} {rank % 2} 4 {main} 0\n" for rank in range(4)}


@pytest.mark.slow
def test_a_rank_that_fails_under_torch_s_agent_is_reported_by_its_own_code_and_log(
    hosts: tuple[HostNetwork, CommandLauncher], work: Path
) -> None:
    _, launcher = hosts
    command = (
        'echo "rank $RANK is here"; if [ "$RANK" = 2 ]; then echo "no such data"; exit 7; fi; sleep 1000'
    )
    handle = submit(launcher, work, command, num_nodes=2, devices_per_node=2, one_per=OnePer.RANK)
    status = end(launcher, handle)
    assert status.state is JobState.FAILED
    assert (status.failures[0].rank, status.failures[0].exit_code) == (2, 7)
    assert "rank 2 ended with exit code 7" in status.failures[0].reason
    assert "no such data" in status.failures[0].reason
    assert launcher.logs(handle)[3] == "rank 3 is here\n"


@pytest.mark.slow
def test_an_interpreter_without_torch_is_reported_by_the_agent_s_words(
    hosts: tuple[HostNetwork, CommandLauncher], work: Path
) -> None:
    network, _ = hosts
    bare = work / "python"
    bare.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -S "$@"\n')
    bare.chmod(0o755)
    launcher = launcher_of(network.hosts, network.connect, uses_torchrun=True, python=str(bare))
    status = end(launcher, submit(launcher, work, "true", num_nodes=2, one_per=OnePer.RANK))
    launcher.close()
    assert status.state is JobState.FAILED
    assert "torch" in status.failures[0].reason


@pytest.mark.slow
def test_a_host_that_dies_loses_the_job_and_the_others_save(
    hosts: tuple[HostNetwork, CommandLauncher], work: Path
) -> None:
    network, launcher = hosts
    handle = submit(launcher, work, SAVES, num_nodes=2)
    processes = processes_of(work, 2)
    network.power_off(network.hosts[1])
    status = end(launcher, handle)
    assert status.state is JobState.LOST
    assert "node 1" in status.failures[0].reason
    assert f"the connection to {network.hosts[1]} broke" in status.failures[0].reason
    assert (work / "saved-0").exists()
    wait_until(lambda: not any(is_alive(process) for process in processes), "both hosts are empty")


@pytest.mark.slow
def test_ranks_that_cannot_reach_each_other_fall_silent_and_are_ended(
    hosts: tuple[HostNetwork, CommandLauncher], work: Path
) -> None:
    network, launcher = hosts
    watch = Watch(launcher, submit_ranks(launcher, work, "hang", num_nodes=2, frozen=True))
    processes = watch.processes(2)
    network.disconnect(network.hosts[1])
    try:
        before = watch.poll().seconds_since_progress
        time.sleep(0.2)
        assert watch.poll().seconds_since_progress > before
        launcher.cancel(watch.handle)
    finally:
        network.mend(network.hosts[1])
    assert watch.poll().state is JobState.CANCELLED
    wait_until(lambda: not any(is_alive(process) for process in processes), "no rank is left")


@pytest.mark.slow
def test_a_host_that_is_not_there_is_named(hosts: tuple[HostNetwork, CommandLauncher], work: Path) -> None:
    network, _ = hosts
    launcher = launcher_of((network.hosts[0], "10.0.0.0"), network.connect)
    status = end(launcher, submit(launcher, work, STAYS, num_nodes=2))
    launcher.close()
    assert status.state is JobState.FAILED
    assert (
        "the program that starts the processes of a job could not run on 10.0.0.0 (exit code 1"
        in status.failures[0].reason
    )
    assert "No such file or directory" in status.failures[0].reason
    assert not network.processes(network.hosts[0])


#: A tuner of its own process: work, connect, command, hosts.
_TUNER = """
import sys, time
from pathlib import Path
from typing import Any
from tuner.launchers import CommandLauncher, CommandTask, HostNodes
work, connect, command, *hosts = sys.argv[1:]
launcher = CommandLauncher(HostNodes(hosts, connect))
task = CommandTask(command=command, working_folder=Path(work), folder=Path(work))
handle = launcher.submit_command(task, num_nodes=2, devices_per_node=1)
while True:
    launcher.poll(handle)
    time.sleep(0.05)
"""


@pytest.mark.slow
def test_no_copy_survives_a_tuner_that_is_killed(two_hosts: HostNetwork, work: Path) -> None:
    tuner = subprocess.Popen(
        [sys.executable, "-c", _TUNER, str(work), two_hosts.connect, SAVES, *two_hosts.hosts]
    )
    processes = processes_of(work, 2)
    tuner.kill()
    tuner.wait()
    wait_until(lambda: not any(is_alive(process) for process in processes), "the killed tuner's copies end")
    assert len(list(work.glob("saved-*"))) == 2, "each was given time to save"
    again = launcher_of(two_hosts.hosts, two_hosts.connect)
    assert again.end_orphans(work) == [",".join(two_hosts.hosts)]
    assert again.end_orphans(work) == []
    again.close()


def ssh(folder: Path, code: int, words: str) -> str:
    """A command that ends as ssh does where it does not get through to host `b`."""
    program = folder / "ssh"
    program.write_text(
        f'#!/bin/sh\n[ "$1" = b ] && {{ echo "{words}" >&2; exit {code}; }}\nexec sh -c "$2"\n'
    )
    program.chmod(0o755)
    return f"{shlex.quote(str(program))} {{host}} {{command}}"


@pytest.mark.parametrize(
    ("words", "state"),
    [
        ("ssh: connect to host b port 22: Connection timed out", JobState.LOST),
        ("ssh: connect to host b port 22: Connection refused", JobState.LOST),
        ("root@b: Permission denied (publickey).", JobState.FAILED),
        ("Host key verification failed.", JobState.FAILED),
        ("ssh: Could not resolve hostname b: Name or service not known", JobState.FAILED),
    ],
)
def test_what_ssh_says_is_reported_with_host_and_code(work: Path, words: str, state: JobState) -> None:
    backend = HostNodes(("b",), ssh(work, 255, words))
    job = node_job(work, "one", 1)
    backend_id = backend.begin(job)
    wait_until(lambda: backend.poll(job, backend_id).state.has_ended, "ssh ends")
    view = backend.poll(job, backend_id)
    assert view.state is state
    assert view.detail.startswith("b ")
    assert f"(exit code 255: {words})" in view.detail
    backend.end(job, backend_id)


def test_an_unreachable_host_ends_the_job_and_names_its_node(work: Path) -> None:
    words = "ssh: connect to host b port 22: No route to host"
    launcher = launcher_of(("a", "b"), ssh(work, 255, words))
    status = end(launcher, submit(launcher, work, STAYS, num_nodes=2))
    launcher.close()
    assert status.state is JobState.LOST
    assert status.failures[0].rank == 1
    assert f"b was not reached (exit code 255: {words})" in status.failures[0].reason


def test_a_connecting_command_that_is_not_there_is_reported(work: Path) -> None:
    launcher = launcher_of(("a",), "no-such-ssh {host} {command}")
    status = end(launcher, submit(launcher, work, "true"))
    launcher.close()
    assert status.state is JobState.FAILED
    assert (
        "the program that starts the processes of a job could not run on a (exit code 127"
        in status.failures[0].reason
    )
    assert "no-such-ssh" in status.failures[0].reason


def test_a_host_that_does_not_answer_holds_nobody_up(work: Path) -> None:
    connect = "sleep 1000; : {host} {command}"
    launcher = CommandLauncher(HostNodes(("a",), f"sh -c {shlex.quote(connect)}", end_seconds=0.2))
    handle = submit(launcher, work, "true")
    assert launcher.poll(handle).state is JobState.PENDING
    launcher.cancel(handle)
    assert end(launcher, handle).state is JobState.CANCELLED
    launcher.close()


def node_job(folder: Path, identity: str, num_nodes: int) -> NodeJob:
    return NodeJob(identity=identity, folder=folder, num_nodes=num_nodes, devices_per_node=1)


def test_jobs_take_free_hosts_and_share_only_where_there_are_too_few(work: Path) -> None:
    backend = HostNodes(("a", "b", "c"), HERE)
    jobs = [node_job(work, str(number), 1) for number in range(5)]
    assert [backend.main_address(job) for job in jobs[:3]] == ["a", "b", "c"]
    backend.end(jobs[1], "")
    assert backend.main_address(jobs[3]) == "b"
    assert backend.main_address(jobs[4]) == "a"
    backend.close()


def test_more_nodes_than_hosts_are_refused(work: Path) -> None:
    launcher = launcher_of(("a", "b"), HERE)
    with pytest.raises(ProbeError, match=r"3 nodes are needed, but .*hosts has 2 \(a, b\)"):
        submit(launcher, work, "true", num_nodes=3)
    launcher.close()


@pytest.mark.parametrize("command", ["echo 'it'\"s\" $HOME", 'printf "%s\\n" {host}'])
def test_a_command_arrives_as_it_was(command: str) -> None:
    line = connect_line("env HOME=/there sh -c {command} {host}", "a", command)
    expected = subprocess.run(
        ["/bin/sh", "-c", command], env={"HOME": "/there"}, capture_output=True, check=True
    ).stdout
    assert subprocess.run(["/bin/sh", "-c", line], capture_output=True, check=True).stdout == expected


def test_interrupts_of_a_terminal_are_the_tuner_s_to_hand_on(work: Path) -> None:
    launcher = launcher_of(("a",), HERE)
    handle = submit(launcher, work, SAVES)
    processes = processes_of(work, 1)
    groups = {os.getpgid(process) for process in processes}
    assert os.getpgid(0) not in groups
    for process in processes:
        os.kill(process, signal.SIGTERM)
    assert end(launcher, handle).state is JobState.SUCCEEDED
    launcher.close()
