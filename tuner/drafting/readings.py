"""Readings: descriptions of how to read the scores (metric values) of a script from its output or files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tuner.drafting.metric_names import Meaning


@dataclass(frozen=True, kw_only=True)
class EpochSize:
    """Size of the training set, as found in the output of a script.

    Args:
        samples: Number of samples in an epoch.
        line: Line of output in which the size was found.
        is_exact: Whether the script prints the size; False if it was computed from a number of batches.
    """

    samples: int
    line: str
    is_exact: bool


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A way to read the scores of a script, from its output or from a file that it writes.

    Args:
        source: Value of `workload.metrics.source` in the job file.
        meaning: Metric, direction and data split of the scores.
        label: Name of the metric in the output or file.
        values: The scores found in the short run, in order.
        patterns: Regular expressions that find the scores; for output only.
        path: Value of `workload.metrics.path` in the job file; for files only.
        columns: Pairs of a key of `[workload.metrics]` and the column, JSON key or TensorBoard tag for it;
            for files only.
        fields: Measures of training progress that are read with each score: `epoch`, `step` or `samples`.
        has_percent_sign: Whether the scores are printed with a percent sign.
        examples: Examples of lines or columns with scores, for the comments of the job file.
        epoch_samples: Size of the training set; None if unknown.
        rank: Preference among several readings; the smallest is preferred.
        is_named: Whether the script states the metric; if not, its name and direction are guesses.
    """

    source: Literal["output", "csv", "json", "tensorboard"]
    meaning: Meaning
    label: str
    values: tuple[float, ...]
    patterns: tuple[str, ...] = ()
    path: str | None = None
    columns: tuple[tuple[str, str], ...] = ()
    fields: frozenset[str] = frozenset()
    has_percent_sign: bool = False
    examples: tuple[str, ...] = ()
    epoch_samples: EpochSize | None = None
    rank: int = 0
    is_named: bool = True
