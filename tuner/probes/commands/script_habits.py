"""Facts about how a script reports, such as whether it counts epochs from 0; found in its first runs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal

from tuner.domain.checkpoints import write_atomically

_FILE = "reading.json"
#: Attributes of `ScriptHabits` that determine how the numbers of a line are interpreted.
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

#: Kind of a script's clock: time since the run began, time since the last report, a date or time of day, or
#: "refused" if it agrees with no wall clock and is ignored.
ClockKind = Literal["since the beginning", "since the last report", "date", "refused"]


@dataclass(kw_only=True)
class ScriptHabits:
    """Facts about how the script of a job reports, as found in all its runs; None means unknown.

    Args:
        first_epoch: The number that the script gives its first epoch, 0 or 1.
        epochs_are_fractions: Whether the script reports fractions of epochs, such as 0.25.
        many_lines_an_epoch: Whether the script reports several scores in each epoch.
        epoch_line_comes_first: Whether a line with only an epoch is printed when that epoch begins, not when
            it ends.
        step_is_within_epoch: Whether the script counts steps from 0 in each epoch.
        epoch_samples: Number of samples per epoch, computed from steps within epochs; 0 if the job file
            sets it or it is not needed.
        value_comes_first: Whether the script prints a score on one line and the training progress (step,
            samples or epoch) at that score on the next line.
        scores_count_otherwise: Whether the step on lines with scores is a number of epochs or evaluations.
        scores_end_epochs: Whether a score on a line without step, samples or epoch belongs to the end of the
            epoch.
        is_percent: Whether the script reports scores in percent while the target is a fraction.
        clock: Kind of the clock that the script reports, which determines how it is converted to seconds.
        clock_unit: Seconds per unit of the clock: 60 if the script reports minutes.
        first_position: Number of samples processed at the first report of a run that started from scratch.
        first_scores: For each run that started from scratch, the number of samples processed at its first
            score and the value of that score.
        last_score: The last score of the most recent slice.
        num_refused: Number of slices whose reports could not be used (see `CommandSlice.refusal`).
        has_read: Whether any progress line was read in any run.
        has_scored: Whether any score was read in any run.
        start_failure: `Failure.identity` of the last failure before a first report, to recognize the same
            failure; empty if there was none.
        start_failure_of: Key of the configuration that failed with `start_failure`.
        unmatched_warning: A warning that unread lines look like scores; empty if there is no reason for it.
        remarks: Sentences for the user about these facts.
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
        """Values of all attributes that determine how the numbers of a line are interpreted."""
        return tuple(getattr(self, name) for name in _READING)

    def say(self, words: str, *, once: str | None = None) -> None:
        """Adds a remark (a sentence for the user) unless a remark of the same kind was added before.

        Args:
            words: Text of the remark.
            once: Text with which all remarks of the same kind start; None if only an equal remark is of the
                same kind.
        """
        if not any(remark.startswith(once or words) for remark in self.remarks):
            self.remarks.append(words)

    @classmethod
    def load(cls, folder: Path) -> ScriptHabits:
        """Reads the facts that earlier slices have stored; without a valid file, all facts are unknown.

        Args:
            folder: Folder with the probes of one search.
        """
        try:
            return cls(**json.loads((folder / _FILE).read_text()))
        except (OSError, ValueError, TypeError):
            return cls()

    def save(self, folder: Path) -> None:
        """Writes the facts to a file, from which later slices read them.

        Args:
            folder: Folder with the probes of one search.

        Raises:
            OSError: The file cannot be written.
        """
        text = json.dumps(asdict(self), indent=1).encode()

        def write(file: BinaryIO) -> None:
            file.write(text)

        write_atomically(folder / _FILE, write)
