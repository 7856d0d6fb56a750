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

__all__ = [
    "JobHandle",
    "JobState",
    "JobStatus",
    "Launcher",
    "RankContext",
    "RankFailure",
    "RankTask",
]
