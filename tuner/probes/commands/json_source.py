"""Metric source that reads lines of JSON from a file, such as those of `paceline_client.report`."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tuner.domain.metric_files import LONGEST_LINE, shown, too_long
from tuner.probes.commands.metric_source import MetricSource, SourceContext
from tuner.probes.commands.progress_line import LONGEST_TEXT, LineForm, ScriptLine, noise_statistic


class JsonSource(MetricSource):
    """Reads lines of JSON from a file to which the script appends.

    Args:
        form: Specifies the names of the JSON fields with the score and the training progress.
        path: Path of the file, which need not exist yet.
        skip: Whether to skip the existing content of the file, because another run may have written it.
    """

    def __init__(self, form: LineForm, path: Path, *, skip: bool = False) -> None:
        super().__init__(form)
        self._lines = GrowingText(path, skip=skip)
        self.is_buffered = skip

    @classmethod
    def open(cls, context: SourceContext) -> JsonSource:
        form = LineForm(metrics=context.metrics)
        path = next(iter(context.paths), context.metrics_file)
        return cls(form, path, skip=path != context.metrics_file)

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
            if len(text) > LONGEST_LINE:
                self.warn(too_long(text, str(self._lines.path)))
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
        process = str(fields.get("process", ""))[:LONGEST_TEXT]
        # Only the client of Paceline writes both fields; in other files `time` may be the seconds of a step.
        time = _time(fields.get("time")) if process else None
        common: dict[str, Any] = {
            "seen_at": seen_at,
            "time": time,
            "process": process,
            "text": text[:LONGEST_TEXT],
        }
        event = fields.get("event")
        if event == "noise":
            return ScriptLine(event="noise", noise=noise_statistic(fields), **common)
        if event == "asks":
            return ScriptLine(event="asks", **common)
        if event == "begin":
            step, samples = self.form.start(fields)
            return ScriptLine(event="begin", step=step, samples=samples, **common)
        line = self.form.line(fields, seen_at=seen_at, time=time, text=text)
        if line is None or line.value is None:
            self.add_other_fields(fields)
        if line is None:
            raise ValueError(f"reports neither a position nor a value; expected {self.form.expected()}")
        return replace(line, process=process)


class GrowingText:
    """Reads new lines from a file to which another process appends.

    Args:
        path: Path of the file, which need not exist yet.
        skip: Whether to skip the existing content of the file.
    """

    def __init__(self, path: Path, *, skip: bool = False) -> None:
        self.path = path
        self._offset = path.stat().st_size if skip and path.exists() else 0
        self._remainder = b""

    def take(self, *, has_ended: bool) -> Iterator[str]:
        """Yields the lines that were completed since the last call, each cut to `LONGEST_LINE + 1` bytes.

        Args:
            has_ended: Whether the script has ended; then the last line is complete even without a newline.
        """
        with contextlib.suppress(OSError), self.path.open("rb") as file:
            size = file.seek(0, 2)
            if size < self._offset:
                self._offset, self._remainder = 0, b""
            file.seek(self._offset)
            while self._offset < size and (part := file.readline(LONGEST_LINE)):
                self._offset += len(part)
                self._remainder = (self._remainder + part)[: LONGEST_LINE + 1]
                if part.endswith(b"\n"):
                    yield self._completed()
        if has_ended and self._remainder:
            yield self._completed()

    def _completed(self) -> str:
        line, self._remainder = self._remainder, b""
        return line.decode("utf-8", errors="replace").removesuffix("\n")


def _time(said: object) -> float | None:
    """Returns a value of JSON as a float; None if it is not a finite number."""
    if isinstance(said, bool) or not isinstance(said, int | float):
        return None
    try:
        return float(said) if math.isfinite(said) else None
    except OverflowError:
        return None
