"""The plan of a calibration, and the task of its ranks, as plain data without torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tuner.job import Job

#: Vectors that are reduced or sent reach from the first to the second at least, and not beyond the third.
_SMALL_BYTES, _LARGE_BYTES, _LARGEST_BYTES = 4 * 1024, 1024 * 1024, 64 * 1024 * 1024
_NUM_SIZES = 4


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How long to measure.

    Args:
        rounds: Windows of each size, in alternation with those of the other sizes.
        window_seconds: About how long the steps of one window take.
        least_steps: Steps of a window at least.
        exchanges: All-reduces, or messages, of one size in a round.
        pause_seconds: Between two of them: in a training ranks compute there, and cores have gone idle
            by the time the next one comes.
    """

    rounds: int = 7
    window_seconds: float = 0.3
    least_steps: int = 8
    exchanges: int = 12
    pause_seconds: float = 0.005


@dataclass(frozen=True, kw_only=True)
class CalibrationPlan:
    """What to calibrate.

    Args:
        job: The job whose workload makes the steps.
        job_folder: Where its file lies; the workload is searched there first.
        batch_sizes_per_rank: Batches of a rank whose steps are timed, ascending, at least two.
        learning_rate: Of those steps.
        node_counts: Numbers of nodes whose links are measured, ascending, the first at least two.
        effort: How long to measure.
    """

    job: Job
    job_folder: Path
    batch_sizes_per_rank: tuple[int, ...]
    learning_rate: float
    node_counts: tuple[int, ...]
    effort: Effort = Effort()

    def __post_init__(self) -> None:
        if len(self.batch_sizes_per_rank) < 2:
            raise ValueError("a step's fixed part and that of each sample need two batch sizes at least")
        if not self.node_counts or self.node_counts[0] < 2:
            raise ValueError("links are between nodes: two at least")

    def to_payload(self) -> dict[str, Any]:
        """Plain data for the launcher."""
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
        """The plan `to_payload` was made from."""
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
    """Batches of one rank, evenly spaced on a logarithmic scale; at least two.

    Args:
        smallest: That a job may give one rank.
        largest: That a job may give one rank.
        num_samples: Of the training data.
        most: Above it a share is accumulated over micro-batches; None for no limit.
    """
    high = max(1, min(largest, num_samples, most or largest))
    low = max(1, min(smallest, high))
    if low == high:
        low = max(1, high // 4)
    if low == high:
        high = low + 1
    return tuple(sorted({round(size) for size in np.geomspace(low, high, _NUM_SIZES)}))


def sizes_to_send(parameter_bytes: int, *, most: float = math.inf) -> tuple[int, ...]:
    """Bytes of the vectors whose exchange is timed, ascending: the parameters', smaller and larger ones.

    Args:
        parameter_bytes: n.
        most: What the links carry in reasonable time; n may be more.
    """
    own = max(4, parameter_bytes - parameter_bytes % 4)
    low = min(_SMALL_BYTES, own)
    high = min(max(_LARGE_BYTES, 4 * own), max(_LARGEST_BYTES, own), max(most, 4 * low))
    spaced = (4 * round(size / 4) for size in np.geomspace(low, high, _NUM_SIZES))
    return tuple(sorted({own, *spaced}))
