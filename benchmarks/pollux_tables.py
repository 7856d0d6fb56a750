"""Reads the tables of Pollux's measurements (Qiao et al., OSDI 2021): convergence and throughput."""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

#: The targets of Pollux's own evaluation (table 1: validation metric), which every recorded batch reaches.
TARGETS = {"cifar10": 0.94, "deepspeech2": 25.0, "imagenet": 0.75}
#: Easier levels, which say how predictions do at other targets.
EASIER = {"cifar10": (0.90, 0.93), "deepspeech2": (40.0, 30.0), "imagenet": (0.70, 0.74)}
#: An error rate: lower is better.
FALLING = frozenset({"deepspeech2"})


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training at one global batch; all arrays have one entry an epoch of `progress`.

    Args:
        batch_size: Global batch.
        steps: Steps taken.
        progress: Samples of the smallest batch that these steps are worth, by AdaScale's gain.
        metric: As recorded.
        noise_scales: Variance over squared norm of the gradient, in samples; both are recorded for the
            smallest batch.
    """

    batch_size: int
    steps: Array
    progress: Array
    metric: Array
    noise_scales: Array

    def crossing(self, target: float, *, falling: bool) -> tuple[float, float] | None:
        """Steps and progress where the metric first reaches a target, linear in between; None if never."""
        sign = -1.0 if falling else 1.0
        metric, level = sign * self.metric, sign * target
        reached = np.flatnonzero(metric >= level)
        if not len(reached):
            return None
        index = int(reached[0])
        if index == 0:
            return float(self.steps[0]), float(self.progress[0])
        share = (level - metric[index - 1]) / (metric[index] - metric[index - 1])
        before, after = index - 1, index
        return (
            float(self.steps[before] + share * (self.steps[after] - self.steps[before])),
            float(self.progress[before] + share * (self.progress[after] - self.progress[before])),
        )


def read_runs(path: Path) -> dict[str, dict[int, Run]]:
    """App -> global batch, rising -> its run."""
    rows: dict[str, dict[int, list[dict[str, str]]]] = defaultdict(lambda: defaultdict(list))
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            rows[row["app"]][int(row["batch_size"])].append(row)
    return {
        app: {batch: _run(batch, min(found), found[batch]) for batch in sorted(found)}
        for app, found in sorted(rows.items())
    }


def _run(batch_size: int, smallest: int, rows: list[dict[str, str]]) -> Run:
    def column(name: str) -> Array:
        return np.array([float(row[name]) for row in rows])

    # The squared norm is recorded as 0 where it is lost in noise.
    return Run(
        batch_size=batch_size,
        steps=column("iteration"),
        progress=column("progress") * smallest,
        metric=column("metric"),
        noise_scales=smallest * column("grad_var") / np.maximum(column("grad_sqr"), 1e-12),
    )


@dataclass(frozen=True, kw_only=True)
class Timings:
    """Measured steps of one app, one entry each, `(num,)`.

    Args:
        placements: GPUs used on each node.
        local_batch_sizes: Samples of one GPU's step.
        step_seconds: Measured.
        sync_seconds: Measured, of these in synchronization.
    """

    placements: tuple[tuple[int, ...], ...]
    local_batch_sizes: Array
    step_seconds: Array
    sync_seconds: Array


def read_timings(path: Path) -> dict[str, Timings]:
    """App -> its measured steps."""
    rows: dict[str, list[dict[str, str]]] = defaultdict(list)
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            rows[row["app"]].append(row)
    return {
        app: Timings(
            placements=tuple(_placement(row) for row in found),
            local_batch_sizes=np.array([float(row["local_batch_size"]) for row in found]),
            step_seconds=np.array([float(row["step_seconds"]) for row in found]),
            sync_seconds=np.array([float(row["sync_seconds"]) for row in found]),
        )
        for app, found in sorted(rows.items())
    }


def _placement(row: dict[str, str]) -> tuple[int, ...]:
    """GPUs used on each node; runs over more than four nodes are recorded by their counts alone."""
    if row["placement"]:
        return tuple(int(digit) for digit in row["placement"])
    nodes, replicas = int(row["num_nodes"]), int(row["num_replicas"])
    return tuple(replicas // nodes + (node < replicas % nodes) for node in range(nodes))
