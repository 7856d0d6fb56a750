"""Describes how to read the scores (metric values) of a script from its output or files.

Such a description is called a reading; it becomes the section `[workload.metrics]` of the job file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tuner.drafting.metric_names import Meaning


@dataclass(frozen=True, kw_only=True)
class EpochSize:
    """Size of the training set, as found in the output of a script.

    Args:
        samples: Number of samples in an epoch.
        line: Output line in which the size was found, for a comment in the job file.
        is_exact: Whether the script prints the size; False if it was computed from a number of batches.
    """

    samples: int
    line: str
    is_exact: bool


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A way to read the scores of a script, from its output or from a file that it writes.

    Args:
        source: Value for the key `workload.metrics.source` of the job file, such as `output` or `csv`.
        meaning: Name and direction of the metric, and the data split on which it is measured.
        label: Name of the metric as the script prints it, for comments in the job file.
        values: The scores that a short run of the script reported, in order; the target is chosen from them.
        patterns: Regular expressions that match output lines with scores or training progress; empty if the
            scores are in a file.
        path: Value for the key `workload.metrics.path` of the job file; None if the scores are in the output.
        columns: Pairs of a key of `[workload.metrics]` and the CSV column, JSON key or TensorBoard tag for
            this key; empty if the scores are in the output.
        fields: Measures of training progress that are read with the scores: `epoch`, `step` or `samples`.
        has_percent_sign: Whether the scores are printed with a percent sign.
        examples: Examples of lines or columns with scores, for the comments of the job file.
        epoch_samples: Size of the training set; None if unknown.
        rank: Preference among several readings; the reading with the smallest number is preferred.
        is_named: Whether the name of the metric is that in the script; False if it was guessed from the
            values.
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
