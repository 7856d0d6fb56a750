"""A way to read a script's scores, as a draft proposes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tuner.drafting.metric_names import Meaning


@dataclass(frozen=True, kw_only=True)
class EpochSize:
    """Samples of an epoch, as a run showed them.

    Args:
        samples: How many.
        line: The line that shows it.
        is_exact: Whether the script prints the number; False if it follows from batches.
    """

    samples: int
    line: str
    is_exact: bool


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Where scores stand and what they are.

    Args:
        source: What is read: `workload.metrics.source`.
        meaning: What the score means.
        label: Its name where it stands.
        values: The scores that were seen, in order.
        patterns: Of output: regular expressions.
        path: Of files: the path in the job file.
        columns: Of files: key of `[workload.metrics]` to name of the column, key or tag.
        fields: Which of `epoch`, `step` and `samples` say how far training is.
        has_percent_sign: Whether values have a percent sign.
        examples: Lines as they were read.
        epoch_samples: Size of the training set; None if unknown.
        rank: How telling the score is: a smaller one is preferred.
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
