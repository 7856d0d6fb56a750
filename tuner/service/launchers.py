"""Which launcher starts a job's ranks and commands."""

from __future__ import annotations

from tuner.errors import JobError
from tuner.launchers import CommandLauncher, Launcher, LocalLauncher, LocalNodes
from tuner.service.opening import OpenedJob


def job_launcher(opened: OpenedJob) -> Launcher:
    """The launcher that `cluster.launcher` names; closed by whoever asked for it.

    Raises:
        JobError: What it needs is not installed.
    """
    section = opened.job.cluster
    if section.launcher == "local" and opened.job.runs_command:
        return CommandLauncher(LocalNodes())
    if section.launcher == "local":
        return LocalLauncher(threads_per_rank=section.threads_per_rank)
    raise JobError(f"{opened.path}: cluster.launcher = {section.launcher!r} is not there yet; use 'local'")
