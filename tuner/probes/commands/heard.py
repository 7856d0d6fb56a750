"""What a slice has read of its script so far, in examples and warnings for the user."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tuner.probes.commands.metric_source import MetricSource
from tuner.probes.commands.positions import Ignored
from tuner.probes.commands.progress_line import ScriptLine
from tuner.probes.commands.script_habits import ScriptHabits

#: Examples of lines with a value, and of lines without, and their longest text.
_MOST_EXAMPLES, _LONGEST_EXAMPLE = 2, 160
#: Printed lines that are shown if no line was read.
_MOST_PRINTED = 5
_NUMBER = re.compile(r"\d+([.,]\d+)?")
#: Unread lines that look like scores before the first score, from which on the user is warned.
_MANY_UNMATCHED = 3
#: A script that reports its position may score for the first time after an epoch, and a little longer.
_FIRST_SCORE_EPOCHS = 1.1


@dataclass(kw_only=True)
class Heard:
    """What a slice has read of its script so far.

    Args:
        matched: The first lines that were read, with what was read from each.
        unmatched: Lines that look like scores and were not read.
        printed: The last lines that the script printed, one of each kind, while no line was read.
        num_lines: Lines with progress that were read.
        num_scores: Those of them with a value.
        has_steps: Whether they name steps, samples or fractions of epochs.
        unread_clock: A line whose time cannot be read; empty if there is none.
        first_output_at: The prober's clock when the script first printed or reported, seconds; None before.
        first_samples: Samples at the first report of progress; None before.
    """

    matched: dict[str, str] = field(default_factory=dict)
    unmatched: tuple[str, ...] = ()
    printed: tuple[str, ...] = ()
    num_lines: int = 0
    num_scores: int = 0
    first_output_at: float | None = None
    first_samples: int | None = None
    has_steps: bool = False
    unread_clock: str = ""

    def add(self, lines: Sequence[ScriptLine], habits: ScriptHabits) -> None:
        """Counts new lines and stores the first ones with and without a value."""
        for line in lines:
            if line.event != "progress":
                continue
            self.num_lines += 1
            self.unread_clock = self.unread_clock or (line.text.strip() if line.has_unread_clock else "")
            has_value = line.value is not None
            is_part = line.epoch is not None and line.epoch % 1.0 != 0.0
            self.has_steps |= line.step is not None or line.samples is not None or is_part
            self.num_scores += has_value
            if (self.num_scores if has_value else self.num_lines - self.num_scores) <= _MOST_EXAMPLES:
                self.matched.setdefault(line.text.strip()[:_LONGEST_EXAMPLE], _fields(line))
        habits.has_read |= self.num_lines > 0
        habits.has_scored |= self.num_scores > 0


def last_kinds(text: str) -> tuple[str, ...]:
    """The last lines of a text in order; of lines that differ only in their numbers, the newest."""
    found: dict[str, str] = {}
    for line in reversed(text.splitlines()):
        kind = _NUMBER.sub("#", line).strip()
        if kind:
            found.setdefault(kind, line.strip()[:_LONGEST_EXAMPLE])
        if len(found) == _MOST_PRINTED:
            break
    return tuple(reversed(found.values()))


def _fields(line: ScriptLine) -> str:
    names = ("epoch", "step", "samples", "value", "seconds")
    return ", ".join(f"{name} {number:g}" for name in names if (number := getattr(line, name)) is not None)


def source_remarks(source: MetricSource | None, *, has_score: bool) -> Iterator[str]:
    """What a source noticed, what looks like a score if none was read, and what was skipped."""
    if source is None:
        return
    yield from source.remarks
    if not has_score and source.unmatched:
        examples = "; ".join(source.unmatched.values())
        yield f"no score was read, but these look like scores and were not matched: {examples}"
    if source.warnings:
        yield f"{_lines(len(source.warnings))} skipped, such as {source.warnings[-1]}"


def unmatched_warning(
    source: MetricSource | None, habits: ScriptHabits, *, samples: int, epoch_samples: int | None
) -> str:
    """Warns during a slice that lines look like scores while no run has shown a score yet.

    The sentence is the same for all slices of a study, so that it is shown once.

    Args:
        source: What the slice reads.
        habits: What is known of how the script reports; stores the sentence.
        samples: Samples that the run has seen, as far as its position was read.
        epoch_samples: Samples of an epoch; None if the job does not state them.

    Returns:
        The sentence; empty if there is nothing to warn of.
    """
    # What earlier slices printed may have been fixed since.
    if habits.has_scored or source is None or not source.num_unmatched:
        return ""
    # A script that reports its steps may score only at the end of its first epoch.
    is_early = samples > 0 and epoch_samples is not None and samples <= _FIRST_SCORE_EPOCHS * epoch_samples
    if not habits.unmatched_warning and source.num_unmatched >= _MANY_UNMATCHED and not is_early:
        examples = "; ".join(source.unmatched.values())
        habits.unmatched_warning = (
            f"no score was read yet, but these look like scores and do not match: {examples}. If one of them "
            "is the score, correct [workload.metrics]; `paceline check` shows what is read from which lines"
        )
    return habits.unmatched_warning


def ignored_remarks(ignored: Mapping[str, Ignored]) -> Iterator[str]:
    """One sentence with an example for each reason why lines were left out."""
    for reason, entry in ignored.items():
        example = f", such as {entry.example[:_LONGEST_EXAMPLE]!r}" if entry.example else ""
        yield f"{_lines(entry.count)} left out: {reason}{example}"


def _lines(count: int) -> str:
    return "1 line was" if count == 1 else f"{count} lines were"
