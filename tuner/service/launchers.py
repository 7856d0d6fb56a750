"""Create the launcher and the prober of a job, and folders that its nodes share."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tuner.job.sections import ClusterSection
from tuner.launchers import (
    CommandLauncher,
    HostNodes,
    Launcher,
    LocalLauncher,
    LocalNodes,
    RayNodes,
    SlurmNodes,
    SlurmRequest,
)
from tuner.probes import Prober
from tuner.probes.commands.prober import CommandProber
from tuner.probes.recorded import RecordedProber
from tuner.probes.training import TrainingProber
from tuner.service.opening import OpenedJob


def job_launcher(opened: OpenedJob) -> Launcher:
    """The launcher that `cluster.launcher` names; the caller closes it.

    Raises:
        JobError: It cannot be set up as the job says.
        ProbeError: What it needs is not installed.
    """
    section = opened.job.cluster
    if section.launcher == "local" and opened.job.runs_command:
        return CommandLauncher(LocalNodes())
    if section.launcher == "local":
        return LocalLauncher(threads_per_rank=section.threads_per_rank)
    if section.launcher == "torchrun":
        return _hosts_launcher(opened)
    if section.launcher == "slurm":
        python = section.python or sys.executable
        return CommandLauncher(
            SlurmNodes(slurm_request(section), python=python),
            python=python,
            threads_per_rank=section.threads_per_rank,
        )
    return CommandLauncher(
        _ray_nodes(section),
        python=section.python or sys.executable,
        threads_per_rank=section.threads_per_rank,
    )


def _hosts_launcher(opened: OpenedJob) -> Launcher:
    section = opened.job.cluster
    # The job file was checked: this launcher goes with its hosts.
    assert section.torchrun is not None
    python = section.python or sys.executable
    return CommandLauncher(
        HostNodes(section.torchrun.hosts, section.torchrun.connect, python=python),
        python=python,
        threads_per_rank=section.threads_per_rank,
        uses_torchrun=True,
    )


def _ray_nodes(section: ClusterSection) -> RayNodes:
    ray = section.ray
    return RayNodes(
        ray.address,
        cpus_per_node=ray.cpus_per_node or section.devices_per_node * section.threads_per_rank,
        gpus_per_node=ray.gpus_per_node,
        resources=ray.resources,
        python=section.python,
        timeout_seconds=ray.node_timeout,
    )


def slurm_request(section: ClusterSection) -> SlurmRequest:
    """What `[cluster.slurm]` asks SLURM for.

    Raises:
        JobError: An extra option cannot be set there.
    """
    slurm = section.slurm
    return SlurmRequest(
        partition=slurm.partition,
        account=slurm.account,
        time_seconds=slurm.time,
        gres=slurm.gres,
        cpus_per_node=slurm.cpus_per_node or section.devices_per_node * section.threads_per_rank,
        extra=slurm.extra,
    )


@contextmanager
def passing_folder(opened: OpenedJob, purpose: str) -> Iterator[Path]:
    """A temporary folder that the nodes share: next to the job's file if they are other hosts.

    Args:
        opened: The job.
        purpose: One word of what it is for.
    """
    is_here = opened.job.cluster.launcher == "local"
    with tempfile.TemporaryDirectory(
        prefix=f"paceline-{purpose}-" if is_here else f".paceline-{purpose}-",
        dir=None if is_here else opened.folder,
        # A node that is slow to exit may still write its last message.
        ignore_cleanup_errors=not is_here,
    ) as folder:
        yield Path(folder)


def job_prober(opened: OpenedJob) -> Prober:
    """The prober that a job asks for."""
    job, recording = opened.job, opened.job.recording()
    if job.runs_command:
        return CommandProber(job, opened.folder, job_launcher(opened))
    if recording is None:
        return training_prober(opened)
    return RecordedProber(
        recording,
        target=job.goal.target,
        consecutive=job.goal.consecutive_scores,
        timing_steps=job.probe.timing_steps,
    )


def training_prober(opened: OpenedJob) -> Prober:
    """The prober that trains; ranks of this host are on their way when this returns."""
    launcher = job_launcher(opened)
    launcher.warm(opened.cluster.num_ranks(max(opened.cluster.node_counts)))
    return TrainingProber(opened.job, opened.folder, launcher)
