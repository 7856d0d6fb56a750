"""Metric source that reads scalars of TensorBoard event files."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tuner.domain.metric_files import UnreadableError, event_reader, read_events
from tuner.probes.commands.metric_source import MetricSource, SourceContext
from tuner.probes.commands.progress_line import LineForm, ScriptLine


class EventFileSource(MetricSource):
    """Reads scalars from the event files in a folder and its subfolders.

    The step of a scalar is taken as the number of optimizer steps, and its wall time as the time of the
    report.

    Args:
        form: Specifies the tags of the scalars with the metric, the number of samples and the script's clock;
            a script need not log the last two.
        folder: Path of the folder, which need not exist yet.
        read_every: Shortest time between two reads of the files, seconds.
    """

    def __init__(self, form: LineForm, folder: Path, *, read_every: float = 0.5) -> None:
        super().__init__(form)
        self._folder, self._every = folder, read_every
        self._read_at = -read_every
        self._readers: dict[Path, Any] = {}
        self._taken: dict[tuple[Path, str], int] = {}
        # Events with an older wall time were written by another run.
        self._started = time.time() - 1.0

    @classmethod
    def open(cls, context: SourceContext) -> EventFileSource:
        return cls(LineForm(metrics=context.metrics), context.paths[0])

    @property
    def place(self) -> str:
        names = self.form.metrics
        return f"TensorBoard event files in {self._folder} with the scalar {names.value!r}"

    def read(self, seen_at: float, *, has_ended: bool) -> list[ScriptLine]:
        if seen_at - self._read_at < self._every and not has_ended:
            return []
        self._read_at = seen_at
        found: list[tuple[float, ScriptLine]] = []
        for folder in sorted({path.parent for path in self._folder.rglob("*tfevents*")}):
            found += self._of_folder(folder, seen_at)
        return [line for _, line in sorted(found, key=lambda item: item[0])]

    def _of_folder(self, folder: Path, seen_at: float) -> list[tuple[float, ScriptLine]]:
        if folder not in self._readers:
            self._readers[folder] = event_reader(folder)
        reader, names = self._readers[folder], self.form.metrics
        try:
            tags = set(read_events(reader)["scalars"])
        except UnreadableError as error:
            words = f"the event files in {folder} cannot be read: {error}"
            if words not in self.warnings:
                self.warn(words)
            return []
        for tag in sorted(tags - {names.value, names.samples, names.seconds}):
            self.add_unmatched(tag, f"scalar {tag}")
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
            where = f"the scalar {names.value} at step {event.step}"
            text = f"{names.value} = {event.value:g} at step {event.step}"
            line = self.parse(fields, seen_at, where=where, text=text, time=event.wall_time)
            if line is not None:
                found.append((event.wall_time, line))
        return found
