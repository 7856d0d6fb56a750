"""The scheduler backend for this host: each node is a process of this host."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tuner.domain.errors import ProbeError
from tuner.launchers.launcher import JobState
from tuner.launchers.node_agent import descendants, kill_job
from tuner.launchers.process_records import ProcessRecord
from tuner.launchers.scheduler_backend import BackendView, NodeJob, SchedulerBackend


class LocalNodes(SchedulerBackend):
    """Starts each node agent as a process of this host.

    When this process exits, the standard input of its node agents is closed; then they end their processes.

    On a host with several NVIDIA devices, `CUDA_VISIBLE_DEVICES` assigns different devices to each node, as
    long as there are enough. The node that gets the first devices can see all devices.

    Args:
        devices: Names of the devices, as in `CUDA_VISIBLE_DEVICES`; None for all devices of this host.
    """

    name = "local"

    def __init__(self, devices: Sequence[str] | None = None) -> None:
        self._devices = _visible_devices() if devices is None else list(devices)
        self._places: dict[str, list[int]] = {}
        self._agents: dict[str, list[subprocess.Popen[bytes]]] = {}

    def begin(self, job: NodeJob) -> str:
        agents = []
        places = self._take_places(job)
        for node in range(job.num_nodes):
            own = places[node * job.devices_per_node : (node + 1) * job.devices_per_node]
            with (job.folder / f"starter-{node}.err").open("ab") as errors:
                try:
                    agents.append(
                        subprocess.Popen(
                            [sys.executable, str(job.agent), str(job.folder), str(node), "--watch-input"],
                            stdin=subprocess.PIPE,
                            stdout=errors,
                            stderr=errors,
                            env=self._environment(own),
                            start_new_session=True,
                        )
                    )
                except OSError as error:
                    raise ProbeError(f"no process can be started on this host: {error}") from error
        self._agents[job.identity] = agents
        records = [ProcessRecord.of(agent.pid) for agent in agents]
        return ",".join(f"{r.process}:{r.started}" for r in records if r is not None)

    def poll(self, job: NodeJob, backend_id: str) -> BackendView:
        agents = self._agents.get(job.identity)
        if agents is None:
            alive = any(record.is_alive for record in _recorded(backend_id))
            return BackendView(state=JobState.RUNNING if alive else JobState.SUCCEEDED)
        for node, agent in enumerate(agents):
            if agent.returncode is None and (agent.poll() or 0) < 0:
                # The node agent was killed before it could end the processes of its node.
                kill_job(job.identity, node)
        was_killed = any((agent.returncode or 0) < 0 for agent in agents)
        if not was_killed and any(agent.returncode is None for agent in agents):
            return BackendView(state=JobState.RUNNING)
        failed = any(agent.returncode != 0 for agent in agents)
        codes = ", ".join(str(agent.returncode) for agent in agents)
        return BackendView(
            state=JobState.FAILED if failed else JobState.SUCCEEDED, detail=f"node agents ended with {codes}"
        )

    def _take_places(self, job: NodeJob) -> list[int]:
        """Returns the first devices that no other job uses, one for each rank; empty if there are too few."""
        taken = {place for places in self._places.values() for place in places}
        free = [place for place in range(len(self._devices)) if place not in taken]
        num_ranks = job.num_nodes * job.devices_per_node
        self._places[job.identity] = free[:num_ranks] if len(free) >= num_ranks else []
        return self._places[job.identity]

    def _environment(self, places: list[int]) -> dict[str, str]:
        # This node uses the first devices anyway, and a script may use more devices than its job states.
        if places in ([], list(range(len(places)))):
            return dict(os.environ)
        return {**os.environ, "CUDA_VISIBLE_DEVICES": ",".join(self._devices[place] for place in places)}

    def end(self, job: NodeJob, backend_id: str) -> None:
        self._places.pop(job.identity, None)
        for agent in self._agents.pop(job.identity, []):
            if agent.poll() is None:
                kill_tree(agent.pid)
            agent.wait()
            if agent.stdin is not None:
                with contextlib.suppress(OSError):
                    agent.stdin.close()
        for record in _recorded(backend_id):
            if record.is_alive:
                kill_tree(record.process)
        kill_job(job.identity)

    def close(self) -> None:
        return


def kill_tree(process: int) -> None:
    """Kills a process and all its descendants, parents first, so that they cannot start more processes."""
    for doomed in (process, *descendants(process)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(doomed, signal.SIGKILL)


def _visible_devices(folder: Path = Path("/dev")) -> list[str]:
    """Returns the names of the NVIDIA devices that processes of this host may use, without using torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip()]
    return [str(number) for number in range(len(list(folder.glob("nvidia[0-9]*"))))]


def _recorded(backend_id: str) -> list[ProcessRecord]:
    pairs = (entry.partition(":") for entry in backend_id.split(",") if entry)
    return [ProcessRecord(process=int(process), started=int(started)) for process, _, started in pairs]
