"""Reads the table of MLPerf's reference convergence points (MLCommons logging, `rcp_checker`)."""

from __future__ import annotations

import csv
import json
import math
from collections import defaultdict
from pathlib import Path

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

#: Where a version's figure at a batch that an earlier version measured too differs by more, the benchmark's
#: model, data or recipe was replaced (SSD's model and data, RNN-T's recipe, both in v2.0).
_REPLACED = 0.15


def read_workloads(path: Path) -> dict[str, dict[int, Array]]:
    """Workload -> global batch, rising -> epochs (BERT: samples) to the target of every run.

    A benchmark is one workload over all versions, until a version contradicts the earlier ones at a batch
    that both measured; from then on it is a new workload, named with that version.
    """
    rows: dict[str, dict[str, dict[int, list[float]]]] = defaultdict(lambda: defaultdict(dict))
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            rows[row["benchmark"]][row["version"]][int(row["batch_size"])] = json.loads(row["raw"])
    found: dict[str, dict[int, list[float]]] = {}
    for benchmark, versions in sorted(rows.items()):
        name = benchmark
        found[name] = {}
        for version, batches in sorted(versions.items()):
            if _contradicts(found[name], batches):
                name = f"{benchmark} v{version}"
                found[name] = {}
            for batch, figures in batches.items():
                found[name].setdefault(batch, []).extend(figures)
    return {
        name: {batch: np.array(batches[batch]) for batch in sorted(batches)}
        for name, batches in found.items()
    }


def _contradicts(before: dict[int, list[float]], now: dict[int, list[float]]) -> bool:
    shared = before.keys() & now.keys()
    return any(abs(math.log(np.mean(now[b]) / np.mean(before[b]))) > _REPLACED for b in shared)


def granularity(figures: Array) -> float:
    """The smallest step between runs' figures: runs are scored once in so many epochs; 0 for equal ones."""
    steps = np.diff(np.unique(figures))
    return float(steps.min()) if len(steps) else 0.0
