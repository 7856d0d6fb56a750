"""The scheduler backend for a list of hosts: starts each node agent over a connection such as ssh."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from tuner.domain.errors import ProbeError
from tuner.launchers.command_launcher import CommandLauncher
from tuner.launchers.job_folder import JobFolder, NodeStatus
from tuner.launchers.launcher import JobState, Launcher
from tuner.launchers.node_agent import JOB_VARIABLE
from tuner.launchers.registry import ClusterSettings, LauncherEntry, LauncherSection
from tuner.launchers.scheduler_backend import BackendView, NodeJob, SchedulerBackend

_PLACES = ("{host}", "{command}")
#: Exit code of ssh if it could not run the command.
_NOT_REACHED = 255
#: Matches errors of ssh that would occur again in another attempt.
_FOR_GOOD = re.compile(
    r"permission denied|host key verification failed|could not resolve|no such identity|bad configuration",
    re.I,
)
#: Seconds that a host may take to kill the remaining processes of a job.
_END_SECONDS = 10.0
#: Seconds that a node agent may take to exit after it has reported its end.
_LEAVE_SECONDS = 2.0


class TorchrunSection(LauncherSection):
    """`[cluster.torchrun]`: hosts, reached by ssh or another command."""

    hosts: Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        description="host names or addresses, the first node first"
    )
    connect: str = Field(
        default="ssh -o BatchMode=yes -o ConnectTimeout=15 -o ServerAliveInterval=15 {host} {command}",
        description="command that runs {command}, one quoted word, on {host}",
    )

    @model_validator(mode="after")
    def _has_its_places(self) -> TorchrunSection:
        for place in _PLACES:
            if place not in self.connect:
                raise ValueError(
                    f"connect = {self.connect!r} must contain {place}, which Paceline replaces: add it"
                )
        if len(set(self.hosts)) != len(self.hosts):
            raise ValueError(
                "hosts must name each host once; set devices_per_node for several ranks on one host"
            )
        return self

    @property
    def max_nodes(self) -> int:
        return len(self.hosts)


@dataclass(frozen=True, kw_only=True)
class _Connection:
    """A connection that runs a node agent on a host.

    Args:
        host: Name or address of the host.
        process: The local process, such as ssh; its standard input is passed to the node agent.
        output: File with the output of the connection and the node agent.
    """

    host: str
    process: subprocess.Popen[bytes]
    output: Path

    def close(self) -> None:
        """Ends the local process; this closes the standard input of the node agent, which then ends."""
        if self.process.stdin is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.close()
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def words(self) -> str:
        """Describes how the connection ended, with its exit code and the last line of its output."""
        code = self.process.returncode
        ended = f"exit code {code}" if code >= 0 else f"signal {-code}"
        with contextlib.suppress(OSError):
            lines = self.output.read_text(errors="replace").strip().splitlines()
            return f"{ended}: {lines[-1].strip()}" if lines else f"{ended}; nothing was printed"
        return ended


class HostNodes(SchedulerBackend):
    """Starts each node agent on a host of a list, by ssh or another command that the user states.

    - The job's folder must have the same path and content on all hosts.
    - A job gets the first free hosts of the list. Two jobs share hosts only if too few hosts are free.
    - The connection keeps the standard input of a node agent open. When the connection breaks or this process
      ends, the node agent ends its processes.

    Args:
        hosts: Names or addresses by which the hosts reach each other.
        connect: Shell command that runs `{command}`, which is one quoted word, on `{host}`.
        python: Path of the Python interpreter on the hosts that runs the node agents; None for the path of
            this process's interpreter.
        end_seconds: Seconds to wait for a host to kill the remaining processes of a job.
    """

    name = "torchrun"

    def __init__(
        self,
        hosts: Sequence[str],
        connect: str,
        *,
        python: str | None = None,
        end_seconds: float = _END_SECONDS,
    ) -> None:
        self._hosts, self._connect = tuple(hosts), connect
        self._python, self._end_seconds = python or sys.executable, end_seconds
        self._taken: dict[str, tuple[str, ...]] = {}
        self._connections: dict[str, list[_Connection]] = {}
        self._ended: set[str] = set()

    def main_address(self, job: NodeJob) -> str:
        return self._take(job)[0]

    def begin(self, job: NodeJob) -> str:
        hosts = self._take(job)
        connections: list[_Connection] = []
        self._connections[job.identity] = connections
        for node, host in enumerate(hosts):
            words = [self._python, str(job.agent), str(job.folder), str(node), "--watch-input"]
            # The variable lets `--kill` find the node agent, too.
            command = f"{JOB_VARIABLE}={job.identity} exec {shlex.join(words)}"
            output = job.folder / f"starter-{node}.err"
            try:
                process = self._run(host, command, output)
            except OSError as error:
                self.end(job, "")
                raise ProbeError(f"the command that connects to {host} cannot be started: {error}") from error
            connections.append(_Connection(host=host, process=process, output=output))
        return ",".join(hosts)

    def poll(self, job: NodeJob, backend_id: str) -> BackendView:
        if job.identity in self._ended:
            return BackendView(state=JobState.SUCCEEDED)
        reported = JobFolder(job.folder).statuses(job.num_nodes)
        connections = self._connections.get(job.identity)
        if connections is None:
            # A job of an earlier tuner: only its files are known.
            has_ended = len(reported) == job.num_nodes and all(node.has_ended for node in reported.values())
            return BackendView(state=JobState.SUCCEEDED if has_ended else JobState.RUNNING)
        views = [
            _view_of_broken(connection, reported.get(node))
            for node, connection in enumerate(connections)
            if connection.process.poll() not in (None, 0)
            and not (node in reported and reported[node].has_ended)
        ]
        if views:
            # A permanent error counts more than one that may be temporary.
            states = [view.state for view in views]
            state = JobState.FAILED if JobState.FAILED in states else JobState.LOST
            return BackendView(state=state, detail="; ".join(view.detail for view in views))
        if any(connection.process.poll() is None for connection in connections):
            return BackendView(state=JobState.RUNNING)
        failed = any(connection.process.returncode != 0 for connection in connections)
        return BackendView(state=JobState.FAILED if failed else JobState.SUCCEEDED)

    def end(self, job: NodeJob, backend_id: str) -> None:
        self._ended.add(job.identity)
        connections = self._connections.pop(job.identity, None)
        taken = self._taken.pop(job.identity, ())
        reported = JobFolder(job.folder).statuses(job.num_nodes)
        if connections is None:
            # An earlier tuner may have been killed before it recorded the hosts of the job.
            hosts = tuple(backend_id.split(",")) if backend_id else (taken or self._hosts)
            self._kill(hosts, job)
            return
        until = time.monotonic() + _LEAVE_SECONDS
        left = []
        for node, connection in enumerate(connections):
            if node in reported and reported[node].has_ended:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    connection.process.wait(max(0.0, until - time.monotonic()))
            elif connection.process.poll() is None or node in reported:
                left.append(connection.host)
        self._kill(tuple(left), job)
        for connection in connections:
            connection.close()

    def close(self) -> None:
        for connections in self._connections.values():
            for connection in connections:
                connection.close()
        self._connections.clear()
        self._taken.clear()

    def _take(self, job: NodeJob) -> tuple[str, ...]:
        """Selects the hosts for a job, in the order of its nodes."""
        if job.identity not in self._taken:
            if job.num_nodes > len(self._hosts):
                raise ProbeError(
                    f"{job.num_nodes} nodes are needed, but cluster.torchrun.hosts has {len(self._hosts)} "
                    f"({', '.join(self._hosts)}): add hosts, or lower cluster.nodes"
                )
            load = Counter(host for hosts in self._taken.values() for host in hosts)
            # Sorting keeps the list's order among hosts that are equally free.
            by_load = sorted(self._hosts, key=lambda host: load[host])
            self._taken[job.identity] = tuple(by_load[: job.num_nodes])
        return self._taken[job.identity]

    def _kill(self, hosts: tuple[str, ...], job: NodeJob) -> None:
        """Kills the remaining processes of a job on its hosts; ignores hosts that do not respond."""
        command = f"exec {shlex.join([self._python, str(job.agent), '--kill', job.identity])}"
        killers = []
        for host in hosts:
            output = job.folder / "kill.err"
            with contextlib.suppress(OSError):
                process = self._run(host, command, output)
                killers.append(_Connection(host=host, process=process, output=output))
        until = time.monotonic() + self._end_seconds
        for killer in killers:
            with contextlib.suppress(subprocess.TimeoutExpired):
                killer.process.wait(max(0.0, until - time.monotonic()))
            killer.close()

    def _run(self, host: str, command: str, output: Path) -> subprocess.Popen[bytes]:
        """Starts a command on a host and keeps its standard input open."""
        line = connect_line(self._connect, host, command)
        with output.open("ab") as file:
            return subprocess.Popen(
                ["/bin/sh", "-c", f"exec {line}"],
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=file,
                # The terminal's signals, such as an interrupt, must not reach it.
                start_new_session=True,
            )


def connect_line(connect: str, host: str, command: str) -> str:
    """Returns the shell command by which this host runs a command on another host.

    Args:
        connect: Template with `{host}` and `{command}`.
        host: Name or address of the other host.
        command: Shell command to run on the other host.
    """
    places = {"{host}": shlex.quote(host), "{command}": shlex.quote(command)}
    return re.sub(r"\{host\}|\{command\}", lambda place: places[place.group()], connect)


def _view_of_broken(connection: _Connection, reported: NodeStatus | None) -> BackendView:
    """Returns the state of a job after a connection to one of its nodes ended before the node agent did."""
    host, code, words = connection.host, connection.process.returncode, connection.words()
    if reported is not None:
        return BackendView(state=JobState.LOST, detail=f"the connection to {host} broke ({words})")
    if code == _NOT_REACHED and not _FOR_GOOD.search(words):
        return BackendView(state=JobState.LOST, detail=f"{host} was not reached ({words})")
    if code == _NOT_REACHED:
        return BackendView(state=JobState.FAILED, detail=f"{host} cannot be reached ({words})")
    return BackendView(
        state=JobState.FAILED,
        detail=f"the program that starts the processes of a job could not run on {host} ({words})",
    )


def _create(section: TorchrunSection, settings: ClusterSettings) -> Launcher:
    python = settings.python or sys.executable
    return CommandLauncher(
        HostNodes(section.hosts, section.connect, python=python),
        python=python,
        threads_per_rank=settings.threads_per_rank,
        uses_torchrun=True,
    )


TORCHRUN = LauncherEntry(
    nodes_are="a list of hosts",
    create=_create,
    section=TorchrunSection,
    section_holds="the hosts, and how to run a command on one",
)
