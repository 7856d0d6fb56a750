"""Creates the launcher and the prober of a job, and temporary folders that all nodes of the job share."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tuner.launchers import Launcher
from tuner.launchers.containers import container_runtime
from tuner.launchers.registry import ClusterSettings, launcher_entry
from tuner.probes import Prober
from tuner.probes.commands.prober import CommandProber
from tuner.probes.recorded import RecordedProber
from tuner.probes.training import TrainingProber
from tuner.service.opening import OpenedJob


def job_launcher(opened: OpenedJob) -> Launcher:
    """Creates the launcher that `cluster.launcher` selects. The caller closes it.

    Raises:
        JobError: The launcher cannot be created with the settings of the job.
        ProbeError: A package or program that the launcher needs is not installed.
    """
    section = opened.job.cluster
    if section.image is not None:
        # Before the first slice, so that a missing program is no failure of a configuration.
        container_runtime(section.container, section.launcher)
    settings = ClusterSettings(
        devices_per_node=section.devices_per_node,
        threads_per_rank=section.threads_per_rank,
        python=section.python,
        runs_command=opened.job.runs_command,
    )
    return launcher_entry(section.launcher).create(section.launcher_section, settings)


@contextmanager
def passing_folder(opened: OpenedJob, purpose: str) -> Iterator[Path]:
    """Context manager that yields a temporary folder that all nodes of the job can read and write.

    With the local launcher it is in the folder for temporary files of this host, else next to the job file.
    It is deleted at the end.

    Args:
        opened: The job.
        purpose: A word for the name of the folder, such as `check`.
    """
    is_here = opened.job.cluster.nodes_share_host
    with tempfile.TemporaryDirectory(
        prefix=f"paceline-{purpose}-" if is_here else f".paceline-{purpose}-",
        dir=None if is_here else opened.folder,
        # A node that exits slowly may still write its last message into the folder.
        ignore_cleanup_errors=not is_here,
    ) as folder:
        yield Path(folder)


def job_prober(opened: OpenedJob) -> Prober:
    """Creates the prober of a job: it runs the command, trains the Workload or replays the recording."""
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
    """Creates a prober that trains the Workload, and lets the launcher start rank processes in advance."""
    launcher = job_launcher(opened)
    launcher.warm(opened.cluster.num_ranks(max(opened.cluster.node_counts)))
    return TrainingProber(opened.job, opened.folder, launcher)
