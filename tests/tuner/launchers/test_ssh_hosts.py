"""Hosts behind a real ssh: sshd in each network namespace, keys of its own, links that are cut."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.host_network import HostNetwork
from tests.tuner.launchers.command_conformance import SAVES, STAYS, end, processes_of, submit
from tests.tuner.launchers.conformance import TIMEOUT_SECONDS, is_alive, wait_until
from tuner.launchers import CommandLauncher, HostNodes, JobState

pytestmark = pytest.mark.slow

SSHD = "/usr/sbin/sshd"
#: Both ends notice within seconds that the other is gone.
SERVER = """
Port 2222
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile none
StrictModes no
PasswordAuthentication no
PermitRootLogin yes
ClientAliveInterval 1
ClientAliveCountMax 2
"""
CLIENT = """
Host *
Port 2222
BatchMode yes
ConnectTimeout 5
ServerAliveInterval 1
ServerAliveCountMax 2
StrictHostKeyChecking no
UserKnownHostsFile /dev/null
LogLevel ERROR
IdentitiesOnly yes
"""


@dataclass(frozen=True)
class Reached:
    """Hosts, and how to reach them: from the first one, for this process is on no such network."""

    network: HostNetwork
    folder: Path

    def connect(self, key: str = "user") -> str:
        ssh = f"ssh -F {self.folder}/client -i {self.folder}/{key}"
        return f"nsenter --net=/run/netns/{self.network.hosts[0]} {ssh} {{host}} {{command}}"

    def launcher(self, key: str = "user") -> CommandLauncher:
        return CommandLauncher(HostNodes(self.network.hosts, self.connect(key), end_seconds=5.0))


@pytest.fixture(scope="module")
def reached(two_hosts: HostNetwork, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reached]:
    if not Path(SSHD).exists() or shutil.which("ssh") is None:
        pytest.skip("ssh and sshd are not both here")
    if os.getuid() != 0 or pwd.getpwuid(0).pw_shell.endswith("nologin"):
        pytest.skip("sshd is started by root, who must be let in")
    folder = tmp_path_factory.mktemp("ssh")
    Path("/run/sshd").mkdir(exist_ok=True)
    for name in ("host", "user", "stranger"):
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(words, check=True)
    (folder / "server").write_text(SERVER.format(folder=folder))
    (folder / "client").write_text(CLIENT)
    servers = [
        subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{host}", SSHD, "-D", "-e", "-f", str(folder / "server")],
            stderr=subprocess.DEVNULL,
        )
        for host in two_hosts.hosts
    ]
    found = Reached(two_hosts, folder)
    try:
        for host in two_hosts.hosts:
            wait_until(lambda host=host: answers(found, host), f"sshd answers on {host}")  # type: ignore[misc]
        yield found
    finally:
        for server in servers:
            server.terminate()
            server.wait()


def answers(reached: Reached, host: str) -> bool:
    line = reached.connect().format(host=host, command="true")
    return subprocess.run(["/bin/sh", "-c", line], capture_output=True).returncode == 0


def test_commands_run_on_both_hosts(reached: Reached, tmp_path: Path) -> None:
    launcher = reached.launcher()
    command = 'echo "$PACELINE_NODE_RANK it\'s $(ip -4 -o address show eth0 | tr -s " " | cut -d" " -f4)"'
    handle = submit(launcher, tmp_path, command, num_nodes=2)
    assert end(launcher, handle).state is JobState.SUCCEEDED
    launcher.close()
    first, second = reached.network.hosts
    assert launcher.logs(handle) == {0: f"0 it's {first}/24\n", 1: f"1 it's {second}/24\n"}


def test_a_key_that_is_not_let_in_is_reported(reached: Reached, tmp_path: Path) -> None:
    launcher = reached.launcher("stranger")
    status = end(launcher, submit(launcher, tmp_path, "true", num_nodes=2))
    launcher.close()
    assert status.state is JobState.FAILED
    assert f"{reached.network.hosts[0]} cannot be reached (exit code 255" in status.failures[0].reason
    assert "Permission denied (publickey" in status.failures[0].reason


def test_a_link_that_is_cut_loses_the_job_and_both_sides_end(reached: Reached, tmp_path: Path) -> None:
    launcher = reached.launcher()
    handle = submit(launcher, tmp_path, SAVES, num_nodes=2)
    processes = processes_of(tmp_path, 2)
    away = reached.network.hosts[1]
    reached.network.disconnect(away)
    try:
        status = end(launcher, handle)
        wait_until(lambda: not any(is_alive(process) for process in processes), "both sides end")
    finally:
        reached.network.mend(away)
        launcher.close()
    assert status.state is JobState.LOST
    # It may have been told by the connection, or by the host itself, which saw it break.
    assert away in status.failures[0].reason or "taken away" in status.failures[0].reason
    assert sorted(path.name for path in tmp_path.glob("saved-*")) == ["saved-0", "saved-1"]


def test_a_host_that_is_off_is_no_hang(reached: Reached, tmp_path: Path) -> None:
    launcher = reached.launcher()
    away = reached.network.hosts[1]
    reached.network.disconnect(away)
    try:
        began = time.monotonic()
        status = end(launcher, submit(launcher, tmp_path, STAYS, num_nodes=2))
        assert time.monotonic() - began < TIMEOUT_SECONDS
    finally:
        reached.network.mend(away)
        launcher.close()
    assert status.state is JobState.LOST
    assert f"{away} was not reached (exit code 255" in status.failures[0].reason


def test_cancel_ends_what_runs_there(reached: Reached, tmp_path: Path) -> None:
    launcher = reached.launcher()
    handle = submit(launcher, tmp_path, SAVES, num_nodes=2)
    processes = processes_of(tmp_path, 2)
    launcher.cancel(handle)
    assert end(launcher, handle).state is JobState.CANCELLED
    assert not any(is_alive(process) for process in processes)
    assert len(list(tmp_path.glob("saved-*"))) == 2
    launcher.close()
