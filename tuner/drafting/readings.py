"""A reading: where the scores of a script are and how to read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tuner.drafting.metric_names import Meaning


@dataclass(frozen=True, kw_only=True)
class EpochSize:
    """Size of the training set.

    Args:
        samples: Samples of an epoch.
        line: The line of output that shows it.
        is_exact: Whether the script prints the number; False if it is computed from batches.
    """

    samples: int
    line: str
    is_exact: bool


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Where the scores of a script are and how to read them.

    Args:
        source: The value of `workload.metrics.source`.
        meaning: Metric, direction and data split of the scores.
        label: Their name in the output or file.
        values: The scores that were seen, in order.
        patterns: Regular expressions, for scores in the output.
        path: Path in the job file, for scores in files.
        columns: Keys of `[workload.metrics]` and the columns, keys or tags they name, for scores in files.
        fields: Positions that are read: `epoch`, `step` or `samples`.
        has_percent_sign: Whether the values have a percent sign.
        examples: Lines that were read.
        epoch_samples: Size of the training set; None if unknown.
        rank: How well the scores describe the training; the smallest is preferred.
        is_named: Whether the script names the metric; if not, its name and direction are guesses.
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
