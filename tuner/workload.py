"""The public import path for users who write their own workload."""

from tuner.domain.errors import DataNotFoundError
from tuner.domain.workload import METRICS, Metric, Workload

__all__ = ["METRICS", "DataNotFoundError", "Metric", "Workload"]
