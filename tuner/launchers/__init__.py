"""How ranks start: one contract, one file a launcher."""

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
    Task,
)
from tuner.launchers.local import LocalLauncher
from tuner.launchers.process_records import end_orphans

__all__ = [
    "CommandTask",
    "JobHandle",
    "JobState",
    "JobStatus",
    "Launcher",
    "LocalLauncher",
    "OnePer",
    "RankContext",
    "RankFailure",
    "RankTask",
    "Task",
    "end_orphans",
]
