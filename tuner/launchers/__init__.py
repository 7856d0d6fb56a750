"""How ranks start: one contract, one file a launcher."""

from tuner.launchers.launcher import (
    JobHandle,
    JobState,
    JobStatus,
    Launcher,
    RankContext,
    RankFailure,
    RankTask,
)
from tuner.launchers.local import LocalLauncher
from tuner.launchers.process_records import end_orphans

__all__ = [
    "JobHandle",
    "JobState",
    "JobStatus",
    "Launcher",
    "LocalLauncher",
    "RankContext",
    "RankFailure",
    "RankTask",
    "end_orphans",
]
