"""Creates the prober of a job that a worker runs, which may offer slices to remote trainers."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from tuner.domain.job_queue import JobLease
from tuner.domain.remote_slices import RemoteSlices
from tuner.launchers.remote import RemoteLauncher, RemoteSection
from tuner.probes import Prober
from tuner.probes.commands.prober import CommandProber
from tuner.service.launchers import job_prober
from tuner.service.opening import OpenedJob


def prober_maker(slices: RemoteSlices, lease: JobLease) -> Callable[[OpenedJob], Prober]:
    """Returns a function that creates the prober of a submitted job, for `make_prober` of `run_job`.

    If the launcher of the job is `remote`, the prober offers its slices to remote trainers.

    Args:
        slices: The slices of remote trainers in the database.
        lease: The right of this process to run the job.
    """

    def make(opened: OpenedJob) -> Prober:
        job = opened.job
        if not job.is_remote:
            return job_prober(opened)
        section = cast(RemoteSection, job.cluster.launcher_section)
        launcher = RemoteLauncher(
            slices, lease, section, metric=job.command.metrics.value, time_budget=job.budget.time
        )
        return CommandProber(job, opened.folder, launcher)

    return make
