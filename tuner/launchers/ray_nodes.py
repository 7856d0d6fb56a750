"""Scheduler backend for Ray: runs each job as a Ray job that reserves nodes with a placement group.

A placement group is Ray's reservation of several bundles, which are sets of resources. Here each bundle is on
a different node.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PositiveInt

from tuner.domain.errors import ProbeError
from tuner.domain.section import Duration
from tuner.launchers.command_launcher import CommandLauncher
from tuner.launchers.job_folder import JobFolder
from tuner.launchers.launcher import JobState, Launcher
from tuner.launchers.ray_dashboard import RayDashboard, RayJob
from tuner.launchers.registry import ClusterSettings, LauncherEntry, LauncherSection
from tuner.launchers.scheduler_backend import BackendView, NodeJob, SchedulerBackend

_DRIVER = Path(__file__).with_name("ray_driver.py")
#: Ray kills a stopped job after 3 s by default. Here it waits for the grace period of the node agents plus
#: these seconds, which the driver needs to end.
_STOP_LATE_SECONDS = 30.0
#: When all node agents have ended, the driver has to exit within these seconds.
_LEAVE_SECONDS = 10.0
#: Shell command that finds the Python interpreter of the Ray cluster, which may not be on the PATH. The
#: parent process of the entrypoint has loaded Ray's library, and the path of the library contains that of
#: the interpreter. If it is not found, `python` is used.
_CLUSTER_PYTHON = (
    r"p=$(sed -n 's|^[^/]*\(/.*\)/lib[^/]*/python[^/]*/[a-z]*-packages/ray/_raylet[.]so.*|\1/bin/python|p' "
    r'/proc/$PPID/maps | head -n 1); [ -x "$p" ] || p=python'
)


class RaySection(LauncherSection):
    """Section `[cluster.ray]` of a job file: address of the Ray cluster and resources of each node."""

    address: str = Field(
        default="http://127.0.0.1:8265", description="address of the Ray dashboard, which takes jobs"
    )
    cpus_per_node: PositiveInt | None = Field(
        default=None,
        description="CPUs to reserve on each node; devices_per_node * threads_per_rank if absent",
    )
    gpus_per_node: Annotated[int, Field(ge=0)] = Field(default=0, description="GPUs to reserve on each node")
    resources: dict[str, float] = Field(
        default={}, description="custom resources to reserve on each node, such as { a100 = 8 }"
    )
    node_timeout: Duration = Field(
        default=600.0,
        description="how long to wait for nodes that the cluster does not have yet; the wait for busy nodes "
        "has no limit",
    )


class RayNodes(SchedulerBackend):
    """Scheduler backend that runs jobs on the nodes of a Ray cluster.

    Each job is one Ray job. Ray runs the driver of the job (`ray_driver.py`) on the head node:

    - The driver requests a placement group with one bundle per node, each on a different node.
    - It starts an actor on each node. The actor runs the node agent, which starts the processes of the job.
    - It writes the state of the job to `ray.json` in the job's folder. The head node and all nodes must see
      this folder under the same path.

    The dashboard shows whether the driver has started or ended.

    Args:
        address: Address of the dashboard of the cluster.
        cpus_per_node: Number of CPUs to reserve on each node; None for one CPU per device.
        gpus_per_node: Number of GPUs to reserve on each node.
        resources: Maps each custom resource in Ray to the amount to reserve on each node.
        python: Path of the interpreter that runs the node agents; None for the interpreter of the cluster.
        timeout_seconds: If the cluster has too few suitable nodes, a job waits for this long, since the
            cluster may grow. Then the job fails.
        dashboard: Client of the dashboard; None to create one for `address`.

    Raises:
        ProbeError: Ray is not installed.
    """

    name = "ray"

    def __init__(
        self,
        address: str,
        *,
        cpus_per_node: int | None = None,
        gpus_per_node: int = 0,
        resources: Mapping[str, float] | None = None,
        python: str | None = None,
        timeout_seconds: float = 600.0,
        dashboard: RayDashboard | None = None,
    ) -> None:
        self._cpus_per_node, self._gpus_per_node = cpus_per_node, gpus_per_node
        self._resources = dict(resources or {})
        self._python, self._timeout_seconds = python, timeout_seconds
        self._dashboard = dashboard or RayDashboard(address)
        self._leaving: list[NodeJob] = []

    def begin(self, job: NodeJob) -> str:
        driver = job.folder / _DRIVER.name
        shutil.copyfile(_DRIVER, driver)
        task = json.loads((job.folder / "task.json").read_text())
        request = {
            "bundle": self._bundle(job),
            "python": self._python,
            "patience_seconds": self._timeout_seconds,
        }
        (job.folder / "ray_task.json").write_text(json.dumps(request))
        command = f'{_CLUSTER_PYTHON}; exec "$p" {shlex.quote(str(driver))} {shlex.quote(str(job.folder))}'
        stop_seconds = int(task["grace_seconds"] + _STOP_LATE_SECONDS)
        backend_id = _submission_id(job)
        try:
            self._dashboard.submit(backend_id, command, {"RAY_JOB_STOP_WAIT_TIME_S": str(stop_seconds)})
        except ProbeError:
            # If Ray has received the job in spite of the error, its driver reads this file and ends.
            JobFolder(job.folder).ask_to_end("never begun")
            raise
        return backend_id

    def poll(self, job: NodeJob, backend_id: str) -> BackendView:
        note = _note(job)
        if note is not None and note["ended"]:
            return BackendView(
                state=_ENDS.get(note["state"], JobState.SUCCEEDED),
                detail=note["detail"],
                memory_ran_out=note.get("memory_ran_out", False),
            )
        seen = self._dashboard.poll(backend_id or _submission_id(job))
        if seen is not None and seen.status in _RAY_ENDS:
            # The driver may have written its final report after the report was read above.
            note = _note(job) or {"state": "", "detail": "", "ended": False}
            if note["ended"]:
                return self.poll(job, backend_id)
            return BackendView(state=_end_state(seen), detail=note["detail"] or _end_words(seen))
        if note is None:
            return BackendView(
                state=JobState.PENDING, detail="Ray has not started the job's driver on its head node yet"
            )
        if note["state"] == "waiting":
            return BackendView(state=JobState.PENDING, detail=f"waits for {note['detail']}")
        return BackendView(state=JobState.RUNNING, detail=note["detail"])

    def end(self, job: NodeJob, backend_id: str) -> None:
        with contextlib.suppress(OSError):
            JobFolder(job.folder).ask_to_end("taken away")
        self._dashboard.forget(backend_id or _submission_id(job))
        if _has_left(job):
            return
        statuses = JobFolder(job.folder).statuses(job.num_nodes)
        if len(statuses) == job.num_nodes and all(node.has_ended for node in statuses.values()):
            # The driver is about to end; `stop` would mark the job as stopped in Ray.
            self._leaving.append(job)
        else:
            self._dashboard.stop(backend_id or _submission_id(job))

    def close(self) -> None:
        until = time.monotonic() + _LEAVE_SECONDS
        for job in self._leaving:
            while not _has_left(job) and time.monotonic() < until:
                time.sleep(0.05)
            if not _has_left(job):
                self._dashboard.stop(_submission_id(job))
        self._leaving.clear()
        self._dashboard.close()

    def _bundle(self, job: NodeJob) -> dict[str, float]:
        bundle: dict[str, float] = {"CPU": self._cpus_per_node or job.devices_per_node}
        if self._gpus_per_node:
            bundle["GPU"] = self._gpus_per_node
        return {**bundle, **self._resources}


#: Maps the final state that a driver reports for a failure to the state of the job; any other final state
#: of a driver means success.
_ENDS = {"lost": JobState.LOST, "failed": JobState.FAILED}
_RAY_ENDS = ("SUCCEEDED", "FAILED", "STOPPED", "UNKNOWN")


def _end_state(seen: RayJob) -> JobState:
    """Returns the final state of a job whose driver ended without a final report.

    Args:
        seen: State of the Ray job, which has ended.
    """
    if seen.status == "SUCCEEDED":
        return JobState.SUCCEEDED
    # With an exit code, the driver failed; without one, the driver was stopped or its node was lost.
    return JobState.LOST if seen.exit_code is None else JobState.FAILED


def _end_words(seen: RayJob) -> str:
    if seen.status == "STOPPED":
        return "the Ray job was stopped"
    return "\n".join(seen.message.strip().splitlines()[-12:])


def _note(job: NodeJob) -> dict[str, Any] | None:
    """Returns the last report of the job's driver from `ray.json`; None if there is no valid report."""
    try:
        found = json.loads((job.folder / "ray.json").read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _has_left(job: NodeJob) -> bool:
    note = _note(job)
    return note is not None and bool(note["ended"])


def _submission_id(job: NodeJob) -> str:
    """Returns the submission id of a job in Ray.

    It is computed from the identity of the job, so a tuner that is started later can stop the job.
    """
    return f"paceline-{job.identity}"


def _create(section: RaySection, settings: ClusterSettings) -> Launcher:
    nodes = RayNodes(
        section.address,
        cpus_per_node=section.cpus_per_node or settings.devices_per_node * settings.threads_per_rank,
        gpus_per_node=section.gpus_per_node,
        resources=section.resources,
        python=settings.python,
        timeout_seconds=section.node_timeout,
    )
    python = settings.python or sys.executable
    return CommandLauncher(nodes, python=python, threads_per_rank=settings.threads_per_rank)


RAY = LauncherEntry(
    nodes_are="nodes of a Ray cluster",
    create=_create,
    section=RaySection,
    section_holds="the address of the cluster, and the resources of a node",
)
