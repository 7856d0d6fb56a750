"""Collects examples of the lines of a script's output that were parsed, and of those that were not."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tuner.probes.commands.metric_source import MetricSource
from tuner.probes.commands.positions import Ignored
from tuner.probes.commands.progress_line import ScriptLine
from tuner.probes.commands.script_habits import ScriptHabits

#: At most this many lines with a score, and as many without a score, are stored as examples; an example has
#: at most `_LONGEST_EXAMPLE` characters.
_MOST_EXAMPLES, _LONGEST_EXAMPLE = 2, 160
#: If the prober could read no line, this many of the last printed lines are shown to the user.
_MOST_PRINTED = 5
_NUMBER = re.compile(r"\d+([.,]\d+)?")
#: The user is warned if there are this many unread lines that look like scores, and no score was read yet.
_MANY_UNMATCHED = 3
#: A script that reports steps or samples is expected to report its first score within this many epochs.
_FIRST_SCORE_EPOCHS = 1.1


@dataclass(kw_only=True)
class Heard:
    """Examples and counts of the script's lines that a slice (part of a run) has read so far.

    Args:
        matched: Maps the text of each example line to a text with the numbers that were read from it.
        unmatched: Lines that look like scores but do not match the job file.
        printed: If no line was read, the last lines that the script printed. Of several lines that differ
            only in their numbers, only the newest is included.
        num_lines: Number of progress lines read.
        num_scores: Number of progress lines with a score.
        has_steps: Whether any line has steps, samples or a fraction of an epoch.
        unread_clock: Text of the first line whose clock cannot be parsed; empty if there is no such line.
        first_output_at: Time on the prober's monotonic clock when the script first printed or reported
            anything, seconds; None if it has not.
        first_samples: Number of samples at the first progress line; None if there is no such line.
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
        """Counts new lines of the script's output, and stores the first ones as examples.

        Args:
            lines: The new lines, in order.
            habits: Facts about how the script reports; stores whether any line and any score was read.
        """
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
    """Returns the last lines of a text, in order.

    If several lines differ only in their numbers, only the last one is returned.
    """
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
    """Yields sentences for the user about a metric source, and about lines that were skipped or not matched.

    Args:
        source: The metric source; None if no job was started.
        has_score: Whether any score was read.
    """
    if source is None:
        return
    yield from source.remarks
    if not has_score and source.unmatched:
        examples = "; ".join(source.unmatched.values())
        yield f"no score was read; these look like scores but do not match [workload.metrics]: {examples}"
    if source.warnings:
        yield f"{_lines(len(source.warnings))} skipped, such as {source.warnings[-1]}"


def unmatched_warning(
    source: MetricSource | None, habits: ScriptHabits, *, samples: int, epoch_samples: int | None
) -> str:
    """Returns a warning if unread lines look like scores and no run of the study has reported a score yet.

    The warning is the same text for all slices of a study (Paceline's record of a search), so it is shown to
    the user only once.

    Args:
        source: Metric source of the slice; None if no job was started.
        habits: Facts about how the script reports; the warning is stored in them.
        samples: Number of samples that the run has processed; 0 if no training progress was read.
        epoch_samples: Number of samples per epoch; None if the job file does not set it.

    Returns:
        A sentence for the user; empty if there is no reason for a warning.
    """
    # Without unmatched lines, there is no warning even if an earlier slice had one: the user may have
    # corrected the job file.
    if habits.has_scored or source is None or not source.num_unmatched:
        return ""
    # A script that reports its steps may score only at the end of its first epoch.
    is_early = samples > 0 and epoch_samples is not None and samples <= _FIRST_SCORE_EPOCHS * epoch_samples
    if not habits.unmatched_warning and source.num_unmatched >= _MANY_UNMATCHED and not is_early:
        examples = "; ".join(source.unmatched.values())
        habits.unmatched_warning = (
            f"no score was read yet, but these look like scores and do not match: {examples}. If one of them "
            "is the score, correct [workload.metrics]; `paceline check` shows the numbers read from each line"
        )
    return habits.unmatched_warning


def ignored_remarks(ignored: Mapping[str, Ignored]) -> Iterator[str]:
    """Yields one sentence with an example for each reason for which lines were ignored.

    Args:
        ignored: Maps each reason for ignoring lines to the number of these lines and an example.
    """
    for reason, entry in ignored.items():
        example = f", such as {entry.example[:_LONGEST_EXAMPLE]!r}" if entry.example else ""
        yield f"{_lines(entry.count)} ignored: {reason}{example}"


def _lines(count: int) -> str:
    return "1 line was" if count == 1 else f"{count} lines were"
