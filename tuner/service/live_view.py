"""Composes the live view of a search: what runs now, the best configuration so far, and the budget."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich.text import Text

from search_spaces import Configuration
from tuner.domain.format import (
    format_chance,
    format_configuration,
    format_count,
    format_dollars,
    format_number,
    format_seconds,
    format_share,
    format_value,
)
from tuner.domain.job_progress import BudgetPart, Interval, JobProgress, SliceProgress
from tuner.domain.job_queue import Usage
from tuner.domain.safe_text import printable
from tuner.job import Job
from tuner.search.events import SearchEvent
from tuner.service.job_progress import Outlook, ProgressWatch

_LABEL_WIDTH = 10
_NO_BREAK = "\xa0"
#: Number of characters of the curve of a run.
_CURVE_WIDTH = 16
#: Characters of a curve, from the smallest to the largest score, and those for terminals with ASCII only.
_BARS, _ASCII_BARS = "▁▂▃▄▅▆▇█", "_.-=+*#"
_STYLES = {"warning": "yellow", "end": "bold", "decision": "cyan"}
#: Verbs of decisions, by the purpose at the beginning of the event's text.
_VERBS = {"timing": "time steps of", "statistics": "probe", "training": "train", "given up": "give up"}


@dataclass(frozen=True, kw_only=True)
class LiveView:
    """Composes the lines of the live view from the state of a search.

    Args:
        job: The job.
        has_prices: Whether nodes have prices.
        watch: Has the newest state of the search.
        is_ascii: Whether the terminal can print only ASCII characters.
    """

    job: Job
    has_prices: bool
    watch: ProgressWatch
    is_ascii: bool = False

    def lines(self, elapsed_seconds: float, width: int) -> list[Text]:
        """Returns the lines of the view.

        Args:
            elapsed_seconds: Seconds since the command started.
            width: Maximum number of characters in a line.
        """
        progress, usage = self.watch.progress(), self.watch.usage()
        if self.watch.has_ended:
            progress.pop("finish", None)
        rows: list[Text] = [self._title(progress, elapsed_seconds, width)]
        for slice_ in progress["slices"]:
            rows += _row("running", self._slice_words(slice_), width)
        if not progress["slices"]:
            words = "writing the answer" if self.watch.has_ended else "deciding what to probe next"
            rows += _row("running", [words], width)
        if "incumbent" in progress:
            rows += _row("best", self._incumbent_words(progress), width)
        else:
            rows += _row("best", ["none yet: no score was read"], width)
        rows += _row("budget", self._budget_words(progress, usage), width)
        if not self.watch.has_ended:
            rows += _row("Ctrl-C", ["finishes the slice and answers; twice: stops at once"], width)
        return [self._plain(row) for row in rows]

    def event_line(self, event: SearchEvent, elapsed_seconds: float) -> Text:
        """Returns an event of the search as a line of text."""
        words = decision_words(event)
        if event.num_slots > 1 and event.probe_id is not None:
            words = f"probe {event.probe_id}: {words}"
        line = Text(f"{elapsed_seconds:6.1f} s  ", style="dim")
        return self._plain(line.append(printable(words), style=_STYLES.get(event.kind, "not dim")))

    def _title(self, progress: JobProgress, elapsed_seconds: float, width: int) -> Text:
        number = progress.get("num_probes", 0)
        words = f" {self.job.name}: {number} probe{'' if number == 1 else 's'}, "
        words += f"{format_seconds(math.floor(elapsed_seconds))} "
        line = "─" * max((width - len(words)) // 2, 2)
        return Text((line + words + "─" * width)[:width], style="dim")

    def _slice_words(self, slice_: SliceProgress) -> Iterator[str]:
        configuration = Configuration(**slice_["configuration"])
        yield f"probe {slice_['probe']}, {slice_['purpose']}: {format_configuration(configuration)}"
        if slice_["waiting"]:
            yield f"waiting: {printable(slice_['waiting'])}"
            return
        words = f"step {format_count(slice_['step'])}, {format_seconds(slice_['training_seconds'])} trained"
        scores = [value for value in self.watch.scores(slice_["probe"]) if math.isfinite(value)]
        if scores:
            words += f", {self.job.goal.metric} {format_value(scores[-1])}"
            words += f" of {format_value(self.job.goal.target)} {self.curve(scores)}"
        yield words
        outlook = self.watch.outlook(configuration)
        if outlook is not None and slice_["purpose"] != "timing":
            yield _outlook_words(outlook)

    def curve(self, scores: Sequence[float]) -> str:
        """Returns scores as a small curve of characters; each shows the last score of its part."""
        bars = _ASCII_BARS if self.is_ascii else _BARS
        count = min(len(scores), _CURVE_WIDTH)
        chosen = [scores[(place + 1) * len(scores) // count - 1] for place in range(count)]
        low, high = min(chosen), max(chosen)
        scale = (len(bars) - 1) / (high - low) if high > low else 0.0
        return "".join(bars[round((value - low) * scale)] for value in chosen)

    def _incumbent_words(self, progress: JobProgress) -> Iterator[str]:
        incumbent = progress["incumbent"]
        yield format_configuration(Configuration(**incumbent["configuration"]))
        seconds = incumbent["seconds"]
        if incumbent["is_measured"]:
            yield f"measured: {format_seconds(_number(seconds['median']))} of training to the target"
        else:
            words = f"predicted: {_interval_words(seconds, format_seconds)} of training to the target"
            yield f"{words}; chance to reach it: {format_chance(incumbent['probability_of_reaching'])}"
        if self.has_prices:
            median = format_dollars(_number(incumbent["dollars"]["median"]))
            price = (
                median if incumbent["is_measured"] else _interval_words(incumbent["dollars"], format_dollars)
            )
            yield f"price of this training: {price}"

    def _budget_words(self, progress: JobProgress, usage: Usage | None) -> Iterator[str]:
        limits = {part["name"]: part for part in progress.get("budget", [])}
        used = usage or Usage()
        words = [_used("time", format_seconds, used.seconds, limits.get("time"))]
        if self.has_prices:
            words.append(_used("money", format_dollars, used.dollars, limits.get("dollars")))
        words.append(_used("node hours", _short, used.node_hours, limits.get("node_hours")))
        if "probes" in limits:
            words.append(_used("probes", format_count, limits["probes"]["used"], limits["probes"]))
        # A line breaks between two parts, not within one.
        yield f"{_NO_BREAK}· ".join(part.replace(" ", _NO_BREAK) for part in words)
        finish = progress.get("finish")
        if finish is not None:
            now = progress["updated_at"]
            ends = [_number(end) - now for end in (finish["low"], finish["median"], finish["high"])]
            low, median, high = (format_seconds(max(end, 0.0)) for end in ends)
            if math.isfinite(ends[1]):
                most = high if math.isfinite(ends[2]) else "no upper bound"
                yield f"the search is expected to end in {median} ({low} to {most})"
            elif math.isfinite(ends[2]):
                yield f"the search ends in {high} at the latest"

    def _plain(self, line: Text) -> Text:
        if self.is_ascii:
            line.plain = line.plain.translate({ord("─"): "-", ord("·"): ";", ord("µ"): "u", ord("–"): "-"})
            line.plain = line.plain.encode("ascii", errors="replace").decode()
        return line


def decision_words(event: SearchEvent) -> str:
    """Returns an event in plain words, such as `probe 4 nodes, batch 64: a first short training`."""
    what, _, reason = event.text.partition(" - ")
    verb = _VERBS.get(what.partition(":")[0])
    if event.kind != "decision" or event.configuration is None or verb is None:
        return event.text
    return f"{verb} {format_configuration(event.configuration)}: {reason}"


def _row(label: str, texts: Iterator[str] | Sequence[str], width: int) -> list[Text]:
    """Returns texts as lines with a label before the first; long texts are continued in the next line."""
    rows: list[Text] = []
    for text in texts:
        for words in textwrap.wrap(text, max(width - _LABEL_WIDTH, 10), break_on_hyphens=False) or [""]:
            head = label if not rows else ""
            words = words.replace(_NO_BREAK, " ")
            rows.append(Text(f"{head:<{_LABEL_WIDTH}}", style="bold").append(words, style="not bold"))
    return rows


def _outlook_words(outlook: Outlook) -> str:
    low, median, high = outlook.seconds
    interval = Interval(low=low, median=median, high=high)
    words = f"reaches the target after {_interval_words(interval, format_seconds)} of training"
    return f"{words}; chance: {format_chance(outlook.probability)}"


def _interval_words(interval: Interval, shown: Callable[[float], str]) -> str:
    low, median, high = (_number(interval["low"]), _number(interval["median"]), _number(interval["high"]))
    if not math.isfinite(low):
        return shown(math.inf)
    first, middle, last = (shown(value).replace(" ", _NO_BREAK) for value in (low, median, high))
    if not math.isfinite(median):
        return f"at least {first}"
    return f"{middle} ({first} to {last if math.isfinite(high) else 'no upper bound'})"


def _used(name: str, shown: Callable[[float], str], used: float, part: BudgetPart | None) -> str:
    if part is None:
        return f"{name} {shown(used)}"
    return f"{name} {shown(used)} of {shown(part['limit'])} ({format_share(min(part['share'], 1.0))})"


def _short(hours: float) -> str:
    return format_number(hours, 2)


def _number(value: float | None) -> float:
    return math.inf if value is None else value
