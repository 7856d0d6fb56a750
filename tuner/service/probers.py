"""Which prober carries out a job's slices."""

from __future__ import annotations

from tuner.launchers import LocalLauncher
from tuner.probes import Prober
from tuner.probes.commands.prober import CommandProber
from tuner.probes.recorded import RecordedProber
from tuner.probes.training import TrainingProber
from tuner.service.launchers import job_launcher
from tuner.service.opening import OpenedJob


def job_prober(opened: OpenedJob) -> Prober:
    """The prober that a job asks for."""
    job, recording = opened.job, opened.job.recording()
    if job.runs_command:
        return CommandProber(job, opened.folder, job_launcher(opened))
    if recording is None:
        return training_prober(opened)
    return RecordedProber(recording, target=job.goal.target, timing_steps=job.probe.timing_steps)


def training_prober(opened: OpenedJob) -> Prober:
    """The prober that trains; ranks of this host are on their way when this returns."""
    launcher = job_launcher(opened)
    if isinstance(launcher, LocalLauncher):
        launcher.warm(opened.cluster.num_ranks(max(opened.cluster.node_counts)))
    return TrainingProber(opened.job, opened.folder, launcher)
