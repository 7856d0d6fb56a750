"""Launchers, which start ranks and commands on this host, a list of hosts, SLURM or Ray."""

from tuner.launchers.command_launcher import CommandLauncher
from tuner.launchers.host_nodes import HostNodes
from tuner.launchers.launcher import (
    CommandTask,
    JobHandle,
    JobState,
    JobStatus,
    Launcher,
    OnePer,
    RankContext,
    RankFailure,
    RankTask,
)
from tuner.launchers.local import LocalLauncher
from tuner.launchers.local_nodes import LocalNodes
from tuner.launchers.log_ends import trim_file
from tuner.launchers.log_reader import LogFile, LogLine, LogReader
from tuner.launchers.ray_nodes import RayNodes
from tuner.launchers.scheduler_backend import BackendView, NodeJob, SchedulerBackend
from tuner.launchers.slurm_nodes import SlurmNodes
from tuner.launchers.slurm_submission import SlurmSection

__all__ = [
    "BackendView",
    "CommandLauncher",
    "CommandTask",
    "HostNodes",
    "JobHandle",
    "JobState",
    "JobStatus",
    "Launcher",
    "LocalLauncher",
    "LocalNodes",
    "LogFile",
    "LogLine",
    "LogReader",
    "NodeJob",
    "OnePer",
    "RankContext",
    "RankFailure",
    "RankTask",
    "RayNodes",
    "SchedulerBackend",
    "SlurmNodes",
    "SlurmSection",
    "trim_file",
]
