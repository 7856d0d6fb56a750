"""Sources of a script's progress: lines of JSON, CSV, TensorBoard event files, its output."""

from __future__ import annotations

import csv
import json
import logging
import math
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tuner.probes.commands.progress_line import LineForm, ProgressLine, noise_statistic

_logger = logging.getLogger(__name__)
#: So many bad lines of a slice are reported one by one.
_MOST_WARNINGS = 3
_LONGEST_SHOWN = 120


class MetricSource(ABC):
    """Returns the reports since the last call; never waits.

    What cannot be parsed is skipped with a warning: a bad report must not end a training.

    Args:
        form: How fields are named.
    """

    def __init__(self, form: LineForm) -> None:
        self.form = form
        self.warnings: list[str] = []

    @abstractmethod
    def read(self, seen_at: float, *, has_ended: bool) -> list[ProgressLine]:
        """The lines that came since the last call, in the order they were written.

        Args:
            seen_at: The prober's clock now.
            has_ended: Whether nothing writes any more, so that the last line is complete.
        """

    @property
    @abstractmethod
    def place(self) -> str:
        """Where lines are expected, and what is expected there, in words."""

    def warn(self, words: str) -> None:
        """Warns of something that was skipped."""
        self.warnings.append(words)
        if len(self.warnings) <= _MOST_WARNINGS:
            _logger.warning("skipped: %s", words)


class JsonSource(MetricSource):
    """Lines of JSON in a file that grows.

    Args:
        form: How fields are named.
        path: The file; need not be there yet.
        skip: Whether to skip existing content, which another process wrote.
    """

    def __init__(self, form: LineForm, path: Path, *, skip: bool = False) -> None:
        super().__init__(form)
        self._lines = GrowingText(path, skip=skip)

    @property
    def place(self) -> str:
        return (
            f"lines of JSON in $PACELINE_METRICS ({self._lines.path}), by `paceline_client.report` or by "
            f"hand, each with {self.form.expected()}"
        )

    def read(self, seen_at: float, *, has_ended: bool) -> list[ProgressLine]:
        found = []
        for text in self._lines.take(has_ended=has_ended):
            if not text.strip():
                continue
            try:
                fields = json.loads(text)
                if not isinstance(fields, dict):
                    raise ValueError("is not a JSON object")
                found.append(self._line(fields, seen_at))
            except json.JSONDecodeError as error:
                self.warn(f"{_shown(text)} in {self._lines.path} is not JSON: {error.msg}")
            except RecursionError:
                self.warn(f"{_shown(text)} in {self._lines.path} is nested too deeply")
            except (TypeError, ValueError) as error:
                self.warn(f"{_shown(text)} in {self._lines.path} {error}")
        return found

    def _line(self, fields: Mapping[str, Any], seen_at: float) -> ProgressLine:
        time = _time(fields.get("time"))
        common: dict[str, Any] = {"seen_at": seen_at, "time": time, "process": str(fields.get("process", ""))}
        event = fields.get("event")
        if event == "noise":
            return ProgressLine(event="noise", noise=noise_statistic(fields), **common)
        if event == "asks":
            return ProgressLine(event="asks", **common)
        if event == "begin":
            step, samples = self.form.start(fields)
            return ProgressLine(event="begin", step=step, samples=samples, **common)
        line = self.form.line(fields, seen_at=seen_at, time=time)
        return ProgressLine(
            seen_at=seen_at,
            time=time,
            process=common["process"],
            seconds=line.seconds,
            step=line.step,
            samples=line.samples,
            value=line.value,
        )


class CsvSource(MetricSource):
    """Rows of a CSV file, whether it grows or is rewritten each time.

    Args:
        form: How columns are named.
        path: The file; need not be there yet.
    """

    def __init__(self, form: LineForm, path: Path) -> None:
        super().__init__(form)
        self._path = path
        self._stat = _stat_of(path)
        # Another run's rows are not new; a file that is rewritten is read from the start.
        self._seen = len(self._rows(has_ended=True))

    @property
    def place(self) -> str:
        return f"rows of a CSV file with a header in {self._path}, with columns {self.form.expected()}"

    def read(self, seen_at: float, *, has_ended: bool) -> list[ProgressLine]:
        stat = _stat_of(self._path)
        if stat == self._stat and not has_ended:
            return []
        self._stat = stat
        rows = self._rows(has_ended=has_ended)
        if len(rows) < self._seen:
            self._seen = 0
        found = []
        for row in rows[self._seen :]:
            try:
                found.append(self.form.line(row, seen_at=seen_at))
            except ValueError as error:
                self.warn(f"the row {_shown(','.join(map(str, row.values())))} of {self._path} {error}")
        self._seen = len(rows)
        return found

    def _rows(self, *, has_ended: bool) -> list[dict[str, Any]]:
        try:
            text = self._path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return []
        if not has_ended:
            text = text[: text.rfind("\n") + 1]
        rows = csv.DictReader(text.splitlines())
        found: list[dict[str, Any]] = []
        try:
            for row in rows:
                found.append({str(key).strip(): value for key, value in row.items() if key is not None})
        except csv.Error as error:
            # What follows a field that is longer than a CSV reader takes cannot be read either.
            words = f"what follows line {rows.line_num} of {self._path} is not a row of CSV: {error}"
            if words not in self.warnings:
                self.warn(words)
        return found


class OutputSource(MetricSource):
    """Matches of a regular expression in what the script prints.

    Args:
        form: Of the groups, which have the names of fields.
        pattern: The expression.
        logs: Returns what each copy printed so far.
        read_every: Seconds between two reads; a log is long.
    """

    def __init__(
        self,
        form: LineForm,
        pattern: str,
        logs: Callable[[], Mapping[int, str]],
        *,
        read_every: float = 0.1,
    ) -> None:
        super().__init__(form)
        self._pattern, self._logs, self._every = re.compile(pattern), logs, read_every
        self._taken: dict[int, int] = {}
        self._read_at = -read_every

    @property
    def place(self) -> str:
        return f"output that matches {self._pattern.pattern!r}"

    def read(self, seen_at: float, *, has_ended: bool) -> list[ProgressLine]:
        if seen_at - self._read_at < self._every and not has_ended:
            return []
        self._read_at = seen_at
        found = []
        for copy, text in sorted(self._logs().items()):
            start = self._taken.get(copy, 0)
            end = len(text) if has_ended else text.rfind("\n") + 1
            # Progress bars go back in their line instead of beginning a new one.
            for line in re.split(r"[\r\n]+", text[start:end]) if end > start else ():
                match = self._pattern.search(line)
                if match is None:
                    continue
                try:
                    found.append(self.form.line(match.groupdict(), seen_at=seen_at))
                except ValueError as error:
                    self.warn(f"{_shown(line)} in the output {error}")
            self._taken[copy] = max(start, end)
        return found


class GrowingText:
    """The lines of a file that another process appends to.

    Args:
        path: The file; need not be there yet.
        skip: Whether existing content is skipped.
    """

    def __init__(self, path: Path, *, skip: bool = False) -> None:
        self.path = path
        self._offset = path.stat().st_size if skip and path.exists() else 0
        self._remainder = b""

    def take(self, *, has_ended: bool) -> Iterator[str]:
        """Every complete line; the rest of a file that has ended counts as one."""
        try:
            if self.path.stat().st_size < self._offset:
                self._offset, self._remainder = 0, b""
            with self.path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except OSError:
            data = b""
        self._offset += len(data)
        *lines, self._remainder = (self._remainder + data).split(b"\n")
        if has_ended and self._remainder:
            lines.append(self._remainder)
            self._remainder = b""
        for line in lines:
            yield line.decode("utf-8", errors="replace")


def _time(said: object) -> float | None:
    """A script's clock; None if it is not a finite number."""
    if isinstance(said, bool) or not isinstance(said, int | float):
        return None
    try:
        return float(said) if math.isfinite(said) else None
    except OverflowError:
        return None


def _stat_of(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def _shown(text: str) -> str:
    text = text.strip()
    return repr(text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 3] + "...")


class EventFileSource(MetricSource):
    """Scalars of the event files in a folder and those below it.

    A scalar's step is the optimizer step; times are those at which events were written.

    Args:
        form: The metric's tag, and those of samples and seconds where they are logged.
        folder: The folder; need not be there yet.
        read_every: Seconds between two reads.
    """

    def __init__(self, form: LineForm, folder: Path, *, read_every: float = 0.5) -> None:
        super().__init__(form)
        self._folder, self._every = folder, read_every
        self._read_at = -read_every
        self._readers: dict[Path, Any] = {}
        self._taken: dict[tuple[Path, str], int] = {}
        # What was written before is another run's.
        self._started = time.time() - 1.0

    @property
    def place(self) -> str:
        names = self.form.metrics
        return f"TensorBoard event files in {self._folder} with the scalar {names.value!r}"

    def read(self, seen_at: float, *, has_ended: bool) -> list[ProgressLine]:
        if seen_at - self._read_at < self._every and not has_ended:
            return []
        self._read_at = seen_at
        found: list[tuple[float, ProgressLine]] = []
        for folder in sorted({path.parent for path in self._folder.rglob("*tfevents*")}):
            found += self._of_folder(folder, seen_at)
        return [line for _, line in sorted(found, key=lambda item: item[0])]

    def _of_folder(self, folder: Path, seen_at: float) -> list[tuple[float, ProgressLine]]:
        from tensorboard.backend.event_processing import event_accumulator

        if folder not in self._readers:
            everything = {event_accumulator.SCALARS: 0, event_accumulator.TENSORS: 0}
            self._readers[folder] = event_accumulator.EventAccumulator(str(folder), size_guidance=everything)
        reader, names = self._readers[folder], self.form.metrics
        reader.Reload()
        tags = set(reader.Tags()[event_accumulator.SCALARS])
        if names.value not in tags:
            return []
        others = {
            tag: {event.step: event.value for event in reader.Scalars(tag)}
            for tag in (names.samples, names.seconds)
            if tag in tags
        }
        events = reader.Scalars(names.value)
        start = self._taken.get((folder, names.value), 0)
        self._taken[(folder, names.value)] = len(events)
        found = []
        for event in events[start:]:
            if event.wall_time < self._started:
                continue
            fields: dict[str, Any] = {names.step: event.step, names.value: event.value}
            fields.update(
                {tag: by_step[event.step] for tag, by_step in others.items() if event.step in by_step}
            )
            try:
                line = self.form.line(fields, seen_at=seen_at, time=event.wall_time)
            except ValueError as error:
                self.warn(f"the scalar {names.value} at step {event.step} {error}")
                continue
            found.append((event.wall_time, line))
        return found
