"""The public import path for users who write their own workload."""

from tuner.domain.errors import DataNotFoundError
from tuner.domain.workload import (
    METRICS,
    AdamWSettings,
    ConstantSchedule,
    CosineSchedule,
    Metric,
    OptimizerSettings,
    ScheduleSettings,
    SGDSettings,
    StepSchedule,
    Workload,
)

__all__ = [
    "METRICS",
    "AdamWSettings",
    "ConstantSchedule",
    "CosineSchedule",
    "DataNotFoundError",
    "Metric",
    "OptimizerSettings",
    "SGDSettings",
    "ScheduleSettings",
    "StepSchedule",
    "Workload",
]
