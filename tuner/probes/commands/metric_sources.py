"""Sources of a script's progress; this one reads lines of JSON."""

from __future__ import annotations

import json
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tuner.probes.commands.progress_line import LineForm, ScriptLine, noise_statistic

_logger = logging.getLogger(__name__)
#: So many bad lines of a slice are reported one by one.
_MOST_WARNINGS = 3
_LONGEST_SHOWN = 120
#: So many examples of what looks like a score are kept.
MOST_EXAMPLES = 5


#: How such a sentence begins.
DISAGREE = "ranks disagree"


class MetricSource(ABC):
    """Returns the reports since the last call; never waits.

    What cannot be parsed is skipped with a warning: a bad report must not end a training.

    Args:
        form: How fields are named.
    """

    #: Whether what writes the lines may keep them back and write many at once.
    is_buffered = False

    def __init__(self, form: LineForm) -> None:
        self.form = form
        #: What was skipped, and why; one entry for each.
        self.warnings: list[str] = []
        #: What looks like a score and was not read, with an example of each kind.
        self.unmatched: dict[str, str] = {}
        #: How often something that looks like a score was passed over.
        self.num_unmatched = 0
        #: What was noticed of the files or ranks, in sentences.
        self.remarks: dict[str, None] = {}
        #: What the script said of going on from a state that it found; None if nothing.
        self.resume_words: str | None = None
        #: Where ranks report different values, in sentences.
        self.disagreements: list[str] = []

    @abstractmethod
    def read(self, seen_at: float, *, has_ended: bool) -> list[ScriptLine]:
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

    def add_unmatched(self, kind: str, example: str) -> None:
        """Counts what looks like a score and was not read, and keeps an example of each kind."""
        self.num_unmatched += 1
        if len(self.unmatched) < MOST_EXAMPLES:
            self.unmatched.setdefault(kind, example)

    def other_fields(self, fields: Mapping[str, Any]) -> None:
        """Keeps the names of fields with numbers that the job does not name."""
        names = self.form.metrics
        known = {names.value, names.step, names.samples, names.epoch, names.seconds, "time", "process"}
        for name, value in fields.items():
            if name not in known and is_number(value):
                self.add_unmatched(name, f"{name} = {value}")


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
        self.is_buffered = skip

    @property
    def place(self) -> str:
        return (
            f"lines of JSON in $PACELINE_METRICS ({self._lines.path}), by `paceline_client.report` or by "
            f"hand, each with {self.form.expected()}"
        )

    def read(self, seen_at: float, *, has_ended: bool) -> list[ScriptLine]:
        found = []
        for text in self._lines.take(has_ended=has_ended):
            if not text.strip():
                continue
            try:
                fields = json.loads(text)
                if not isinstance(fields, dict):
                    raise ValueError("is not a JSON object")
                found.append(self._line(fields, seen_at, text))
            except json.JSONDecodeError as error:
                self.warn(f"{shown(text)} in {self._lines.path} is not JSON: {error.msg}")
            except RecursionError:
                self.warn(f"{shown(text)} in {self._lines.path} is nested too deeply")
            except (TypeError, ValueError) as error:
                self.warn(f"{shown(text)} in {self._lines.path} {error}")
        return found

    def _line(self, fields: Mapping[str, Any], seen_at: float, text: str) -> ScriptLine:
        process = str(fields.get("process", ""))
        # In other people's files this name may be of the seconds of a step.
        time = _time(fields.get("time")) if process else None
        common: dict[str, Any] = {"seen_at": seen_at, "time": time, "process": process, "text": text}
        event = fields.get("event")
        if event == "noise":
            return ScriptLine(event="noise", noise=noise_statistic(fields), **common)
        if event == "asks":
            return ScriptLine(event="asks", **common)
        if event == "begin":
            step, samples = self.form.start(fields)
            return ScriptLine(event="begin", step=step, samples=samples, **common)
        line = self.form.line(fields, seen_at=seen_at, time=time, text=text)
        if line is None:
            self.other_fields(fields)
            raise ValueError(f"reports neither a position nor a value; expected {self.form.expected()}")
        if line.value is None:
            self.other_fields(fields)
        return replace(line, process=process)


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


def shown(text: str) -> str:
    """A line as messages quote it."""
    text = text.strip()
    return repr(text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 3] + "...")


def is_number(value: object) -> bool:
    """Whether something is a number, or text of one."""
    if isinstance(value, bool):
        return False
    if isinstance(value, str):
        try:
            return math.isfinite(float(value))
        except ValueError:
            return False
    return isinstance(value, int | float)
