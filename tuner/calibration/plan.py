"""The plan of a calibration: job, batch sizes, numbers of nodes and effort. It does not import torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tuner.job import Job

#: Sizes of the vectors that are sent: the smallest is at most the first, the largest at least the second and
#: at most the third (or the size of the model's parameters, if that is larger), in bytes.
_SMALL_BYTES, _LARGE_BYTES, _LARGEST_BYTES = 4 * 1024, 1024 * 1024, 64 * 1024 * 1024
_NUM_SIZES = 4


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How many measurements a calibration makes, and how long each takes.

    Args:
        rounds: Number of rounds; each round measures every size once.
        window_seconds: Approximate seconds of the consecutive steps (window) of one batch size in a round.
        least_steps: Smallest number of steps of a window.
        exchanges: Number of all-reduces, or of messages, of one size in a round.
        pause_seconds: Seconds of sleep between two all-reduces or messages. In a training, ranks compute in
            between, so that messages do not follow each other immediately.
    """

    rounds: int = 7
    window_seconds: float = 0.3
    least_steps: int = 8
    exchanges: int = 12
    pause_seconds: float = 0.005


@dataclass(frozen=True, kw_only=True)
class CalibrationPlan:
    """What a calibration measures: batch sizes, numbers of nodes, and number of repetitions.

    Args:
        job: The job, whose workload is used for the steps.
        job_folder: Folder of the job file, in which the workload's module is searched first.
        batch_sizes_per_rank: Samples per step of a rank in the timed steps, ascending, at least two values.
        learning_rate: Learning rate of the timed steps.
        node_counts: Numbers of nodes between which all-reduces are timed, ascending, each at least two.
        effort: Number and length of measurements.
    """

    job: Job
    job_folder: Path
    batch_sizes_per_rank: tuple[int, ...]
    learning_rate: float
    node_counts: tuple[int, ...]
    effort: Effort = Effort()

    def __post_init__(self) -> None:
        if len(self.batch_sizes_per_rank) < 2:
            raise ValueError("at least two batch sizes are needed to fit a step's fixed and per-sample times")
        if not self.node_counts or self.node_counts[0] < 2:
            raise ValueError("to measure links between nodes, at least two nodes are needed")

    def to_payload(self) -> dict[str, Any]:
        """Returns the plan as plain data for the launcher."""
        return {
            "job": self.job.model_dump(mode="json"),
            "job_folder": str(self.job_folder),
            "batch_sizes_per_rank": list(self.batch_sizes_per_rank),
            "learning_rate": self.learning_rate,
            "node_counts": list(self.node_counts),
            "effort": asdict(self.effort),
        }

    @classmethod
    def from_payload(cls, payload: Mapping[str, Any]) -> CalibrationPlan:
        """Restores a plan from the result of `to_payload`."""
        return cls(
            job=Job.model_validate(payload["job"]),
            job_folder=Path(payload["job_folder"]),
            batch_sizes_per_rank=tuple(payload["batch_sizes_per_rank"]),
            learning_rate=payload["learning_rate"],
            node_counts=tuple(payload["node_counts"]),
            effort=Effort(**payload["effort"]),
        )


def batch_sizes_to_time(
    smallest: int, largest: int, *, num_samples: int, most: int | None
) -> tuple[int, ...]:
    """Returns batch sizes of one rank for timing steps, at least two, evenly spaced on a logarithmic scale.

    Args:
        smallest: Smallest number of samples per rank in the job's configurations.
        largest: Largest number of samples per rank in the job's configurations.
        num_samples: Number of samples of the training data.
        most: Largest micro-batch of a rank; None for no limit.
    """
    high = max(1, min(largest, num_samples, most or largest))
    low = max(1, min(smallest, high))
    if low == high:
        low = max(1, high // 4)
    if low == high:
        high = low + 1
    return tuple(sorted({round(size) for size in np.geomspace(low, high, _NUM_SIZES)}))


def sizes_to_send(parameter_bytes: int, *, most: float = math.inf) -> tuple[int, ...]:
    """Returns sizes of vectors for timing links: that of the parameters, smaller and larger ones, ascending.

    Args:
        parameter_bytes: Size of the model's trainable parameters, in bytes.
        most: Largest size that the links transfer in reasonable time, in bytes. The size of the parameters is
            included even if it is larger.
    """
    own = max(4, parameter_bytes - parameter_bytes % 4)
    low = min(_SMALL_BYTES, own)
    high = min(max(_LARGE_BYTES, 4 * own), max(_LARGEST_BYTES, own), max(most, 4 * low))
    spaced = (4 * round(size / 4) for size in np.geomspace(low, high, _NUM_SIZES))
    return tuple(sorted({own, *spaced}))
