"""Which launcher starts a job's ranks and commands."""

from __future__ import annotations

from tuner.errors import JobError
from tuner.launchers import CommandLauncher, Launcher, LocalLauncher, RayNodes
from tuner.service.opening import OpenedJob


def job_launcher(opened: OpenedJob) -> Launcher:
    """The launcher that `cluster.launcher` names; closed by whoever asked for it.

    Raises:
        JobError: It is not there yet.
        ProbeError: What it needs is not installed.
    """
    section = opened.job.cluster
    if section.launcher == "local":
        return LocalLauncher(threads_per_rank=section.threads_per_rank)
    if section.launcher == "ray":
        ray = section.ray
        nodes = RayNodes(
            ray.address,
            cpus_per_node=ray.cpus_per_node or section.devices_per_node * section.threads_per_rank,
            gpus_per_node=ray.gpus_per_node,
            resources=ray.resources,
            python=section.python,
            patience_seconds=ray.patience,
        )
        return CommandLauncher(nodes)
    raise JobError(f"{opened.path}: cluster.launcher = {section.launcher!r} is not there yet; use 'local'")
