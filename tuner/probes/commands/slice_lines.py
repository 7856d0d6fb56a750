"""Lines of a slice: examples of them for people, what was left out, and the times of those read at once."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tuner.probes.commands.metric_source import MetricSource
from tuner.probes.commands.positions import Ignored
from tuner.probes.commands.progress_line import ScriptLine
from tuner.probes.commands.script_habits import ScriptHabits

#: Reports read at once from which on they are spread over the time in which they were written.
_LUMP = 2
#: Lines whose times differ by less were read at once.
_SAME_SECONDS = 0.004
#: So many lines with a value, and so many without, are kept as examples.
_MOST_EXAMPLES, _LONGEST_EXAMPLE = 2, 160
#: So many lines that a script printed are shown where none was read.
_MOST_PRINTED = 5
_NUMBER = re.compile(r"\d+([.,]\d+)?")
#: Warn before the first score once so many lines that look like scores were passed over.
_MANY_UNMATCHED = 3
#: Where positions are read, the first score may take an epoch, and a little longer.
_FIRST_SCORE_EPOCHS = 1.1
#: Lines that have a noted time were written so many seconds before it at the most.
_LONGEST_LUMP = 0.1


@dataclass(kw_only=True)
class Heard:
    """What a slice has heard of its script so far, for people.

    Args:
        matched: Lines that were read, with what was read from them; the first few.
        unmatched: What looks like a score and was not read.
        printed: The last lines that the script printed, one of each kind, while no line was read.
        num_lines: Lines with progress that were read.
        num_scores: Those of them with a value.
        has_steps: Whether they name steps, samples or parts of epochs.
        unread_clock: A line whose time cannot be read; empty if there is none.
        first_output_at: When the script first printed or reported, seconds on the prober's clock; None
            before.
        first_samples: Samples of the run at its first report of progress; None before.
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
        """Counts new lines, and keeps the first ones with and without a value."""
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
                text = line.text.strip()[:_LONGEST_EXAMPLE]
                self.matched.setdefault(text, _fields(line))
        habits.has_read |= self.num_lines > 0
        habits.has_scored |= self.num_scores > 0


def last_kinds(text: str) -> tuple[str, ...]:
    """The last lines of a text in order, the newest of those that differ in their numbers only."""
    found: dict[str, str] = {}
    for line in reversed(text.splitlines()):
        kind = _NUMBER.sub("#", line).strip()
        if kind:
            found.setdefault(kind, line.strip()[:_LONGEST_EXAMPLE])
        if len(found) == _MOST_PRINTED:
            break
    return tuple(reversed(found.values()))


def spread_lump(lines: Sequence[ScriptLine], since: float) -> list[ScriptLine]:
    """Lines that were read at once, at the times at which they are likely to have been written.

    Lines with a time of their own keep it. The others were written between the last reading and this one;
    where they name several positions, they are spread evenly by these.

    Args:
        lines: In order.
        since: The prober's clock at the last reading.
    """
    spread: list[ScriptLine] = []
    for _, group in itertools.groupby(lines, key=lambda line: round(line.seen_at / _SAME_SECONDS)):
        members = list(group)
        spread += _spread(members, max(since, members[-1].seen_at - _LONGEST_LUMP) if len(spread) else since)
        since = members[-1].seen_at
    return spread


def _spread(lines: list[ScriptLine], since: float) -> list[ScriptLine]:
    places = [_place(line) if line.event == "progress" else None for line in lines]
    named = [place for place in places if place is not None]
    at = lines[-1].seen_at
    if len(set(named)) < _LUMP or since >= at or any(line.time is not None for line in lines):
        return lines
    first, last = named[0], named[-1]
    if last <= first:
        return lines
    step = (last - first) / (len(set(named)) - 1)
    spread, place = [], first
    for line, own in zip(lines, places, strict=True):
        place = place if own is None else own
        share = min(max((place - first + step) / (last - first + step), 0.0), 1.0)
        spread.append(replace(line, seen_at=since + share * (at - since)))
    return spread


def _fields(line: ScriptLine) -> str:
    names = ("epoch", "step", "samples", "value", "seconds")
    return ", ".join(f"{name} {number:g}" for name in names if (number := getattr(line, name)) is not None)


def _place(line: ScriptLine) -> float | None:
    """A number that grows with the position; comparable between lines of one kind only."""
    for number in (line.samples, line.step, line.epoch):
        if number is not None:
            return number
    return None


def source_remarks(source: MetricSource | None, *, has_score: bool) -> Iterator[str]:
    """What a source noticed, what looks like a score where none was read, and what could not be read."""
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
    """A warning while a slice runs: lines look like scores, and no run has shown a score so far.

    The sentence is the same for all slices of a study, so that it is shown once.

    Args:
        source: What the slice reads.
        habits: What is known of how the script reports; keeps the sentence.
        samples: Samples that the run has seen, as far as positions were read.
        epoch_samples: Samples of an epoch; None if the job does not state them.

    Returns:
        The sentence; empty where there is nothing to warn of.
    """
    # What earlier slices printed may have been mended since.
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
    """The lines that have no place in the run, by reason, with an example."""
    for reason, entry in ignored.items():
        example = f", such as {entry.example[:_LONGEST_EXAMPLE]!r}" if entry.example else ""
        yield f"{_lines(entry.count)} left out: {reason}{example}"


def _lines(count: int) -> str:
    return "1 line was" if count == 1 else f"{count} lines were"
