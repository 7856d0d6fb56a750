"""What is known of how a script reports, found in its first runs and used for all of them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal

from tuner.domain.checkpoints import write_atomically

_FILE = "reading.json"
#: Attributes of `ScriptHabits` that decide how a line is read.
_READING = (
    "first_epoch",
    "epochs_are_fractions",
    "many_lines_an_epoch",
    "epoch_line_comes_first",
    "step_is_within_epoch",
    "epoch_samples",
    "value_comes_first",
    "scores_count_otherwise",
    "scores_end_epochs",
    "is_percent",
    "clock",
    "clock_unit",
)

#: What a script's clock counts: since the run began, since the last report, or a date.
ClockKind = Literal["since the beginning", "since the last report", "date", "refused"]


@dataclass(kw_only=True)
class ScriptHabits:
    """What the runs of a job have shown of how its script reports; None means unknown.

    Args:
        first_epoch: The number that the script gives its first epoch, 0 or 1.
        epochs_are_fractions: Whether it reports fractions of epochs, such as 0.25.
        many_lines_an_epoch: Whether it reports scores many times under the same epoch.
        epoch_line_comes_first: Whether a line with an epoch alone is printed as the epoch begins.
        step_is_within_epoch: Whether steps count from 0 in each epoch.
        epoch_samples: Samples of an epoch, as steps within epochs show; 0 if they were not needed.
        value_comes_first: Whether scores on lines of their own belong to the position that follows.
        scores_count_otherwise: Whether lines with scores count epochs or evaluations under the name of steps.
        scores_end_epochs: Whether scores without a position come once, at the end of each epoch.
        is_percent: Whether values are in percent while the target is a fraction.
        clock: What the script's clock counts.
        clock_unit: Seconds of one unit of that clock.
        first_position: Samples at the first report of a fresh run.
        first_scores: Samples and value of the first score of each fresh run.
        last_score: The last score of the slice that ended last.
        num_refused: Slices that were refused since their positions made no sense.
        has_read: Whether any line of progress was read in any run.
        has_scored: Whether any score was read in any run.
        start_failure: The last failure before a first report (`Failure.identity`); empty if there was none.
        start_failure_of: The configuration that failed so.
        unmatched_warning: A warning that lines look like scores and were not read; empty if there is none.
        remarks: Sentences for the user on what was found.
    """

    first_epoch: int | None = None
    epochs_are_fractions: bool | None = None
    many_lines_an_epoch: bool | None = None
    epoch_line_comes_first: bool | None = None
    step_is_within_epoch: bool | None = None
    epoch_samples: float = 0.0
    value_comes_first: bool | None = None
    scores_count_otherwise: bool | None = None
    scores_end_epochs: bool | None = None
    is_percent: bool | None = None
    clock: ClockKind | None = None
    clock_unit: float = 1.0
    first_position: int | None = None
    first_scores: list[tuple[int, float]] = field(default_factory=list)
    last_score: float | None = None
    num_refused: int = 0
    has_read: bool = False
    has_scored: bool = False
    start_failure: str = ""
    start_failure_of: str = ""
    unmatched_warning: str = ""
    remarks: list[str] = field(default_factory=list)

    @property
    def reading(self) -> tuple[object, ...]:
        """Everything that decides how a line is read."""
        return tuple(getattr(self, name) for name in _READING)

    def say(self, words: str, *, once: str | None = None) -> None:
        """Adds a remark unless there is one like it.

        Args:
            words: The sentence.
            once: The beginning that remarks of the same kind share; the whole sentence if None.
        """
        if not any(remark.startswith(once or words) for remark in self.remarks):
            self.remarks.append(words)

    @classmethod
    def load(cls, folder: Path) -> ScriptHabits:
        """Reads the habits that earlier slices stored in a study's folder; all unknown if there are none."""
        try:
            return cls(**json.loads((folder / _FILE).read_text()))
        except (OSError, ValueError, TypeError):
            return cls()

    def save(self, folder: Path) -> None:
        """Writes the habits for the next slices.

        Raises:
            OSError: They cannot be written.
        """
        text = json.dumps(asdict(self), indent=1).encode()

        def write(file: BinaryIO) -> None:
            file.write(text)

        write_atomically(folder / _FILE, write)
