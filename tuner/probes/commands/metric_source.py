"""Interface of metric sources, which read the reports of a training script (`workload.metrics.source`).

A report is a line of output, a line of JSON, a row of a CSV file or an event of TensorBoard.

A new source is a subclass of `MetricSource` in a file of its own and one entry in
`tuner.job.command_section.METRIC_SOURCES`.
"""

from __future__ import annotations

import importlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.job import METRIC_SOURCES, MetricsSection
from tuner.launchers import LogFile
from tuner.probes.commands.progress_line import LineForm, ScriptLine

_logger = logging.getLogger(__name__)
#: The first skipped reports of a job, at most this many, are logged; later ones are only stored in
#: `warnings`.
_MOST_WARNINGS = 3
#: Longest name and longest example of output that is stored for messages, characters.
_LONGEST_EXAMPLE = 200
_MOST_EXAMPLES = 5

#: First words of each sentence for the user which says that ranks report different scores.
DISAGREE = "ranks disagree"


@dataclass(frozen=True, kw_only=True)
class SourceContext:
    """Files and settings that a metric source needs to find the reports of a script.

    Args:
        metrics: The section `[workload.metrics]` of the job.
        metrics_file: `$PACELINE_METRICS`, the file to which `paceline_client.report` writes.
        path_of: Function that fills in the variables of a path in the job file, and returns an absolute path.
        log_files: Function that returns the log file of each process of the launcher, by node or rank.
    """

    metrics: MetricsSection
    metrics_file: Path
    path_of: Callable[[str], Path]
    log_files: Callable[[], Mapping[int, LogFile]]

    @property
    def paths(self) -> list[Path]:
        """The absolute paths of `workload.metrics.path`; empty if the job file does not set it."""
        return [self.path_of(text) for text in self.metrics.paths]


class MetricSource(ABC):
    """Reads the reports of one job of a script.

    A report that cannot be parsed is skipped with a warning: it must not end a training run.

    Args:
        form: Parses reports by the names of the fields with the score and the training progress, which the
            job file specifies.

    Attributes:
        warnings: One sentence for each report that was skipped.
        unmatched: Examples of output that looks like a score but does not match the job file. Maps each kind
            of such output to one example.
        num_unmatched: Number of times that such output was found.
        remarks: Sentences for the user about files or ranks, as the keys of a dictionary without values.
        resume_words: The output line in which the script says that it resumes; None if there is no such line.
        disagreements: Sentences for the user about ranks that report different scores at the same step.
    """

    #: Whether the script may buffer lines and write many of them at once.
    is_buffered = False

    def __init__(self, form: LineForm) -> None:
        self.form = form
        self.warnings: list[str] = []
        self.unmatched: dict[str, str] = {}
        self.num_unmatched = 0
        self.remarks: dict[str, None] = {}
        self.resume_words: str | None = None
        self.disagreements: list[str] = []

    @classmethod
    @abstractmethod
    def open(cls, context: SourceContext) -> MetricSource:
        """Creates the source for a job that is about to start; the files to read need not exist yet."""

    @abstractmethod
    def read(self, seen_at: float, *, has_ended: bool) -> list[ScriptLine]:
        """Returns the new reports since the last call, in the order in which they were written.

        Does not wait for reports.

        Args:
            seen_at: Present time on the prober's monotonic clock, seconds.
            has_ended: Whether the job has ended; then the last line is complete even without a newline.
        """

    @property
    @abstractmethod
    def place(self) -> str:
        """Describes for messages where reports are expected (file or output) and what they must contain."""

    def parse(
        self,
        fields: Mapping[str, Any],
        seen_at: float,
        *,
        where: str,
        text: str,
        time: float | None = None,
    ) -> ScriptLine | None:
        """Parses one report.

        Args:
            fields: Maps the field names that the script uses to texts or numbers.
            seen_at: Present time on the prober's monotonic clock, seconds; stored in the result.
            where: Description of the report, such as "the row ... of FILE", for the warning.
            text: The text of the report, for messages.
            time: When the report was written, seconds on a monotonic clock; None if unknown.

        Returns:
            The parsed report; None if it has none of the fields that the job names, or if it is invalid. If
            it is invalid, a warning is added.
        """
        try:
            line = self.form.line(fields, seen_at=seen_at, time=time, text=text)
        except ValueError as error:
            self.warn(f"{where} {error}")
            return None
        if line is None or line.value is None:
            self.add_other_fields(fields)
        return line

    def warn(self, words: str) -> None:
        """Adds a warning about a report that was skipped, and logs the first few warnings."""
        self.warnings.append(words)
        if len(self.warnings) <= _MOST_WARNINGS:
            _logger.warning("a report of the script was skipped: %s", words)

    def add_unmatched(self, kind: str, example: str) -> None:
        """Counts output that looks like a score but does not match the job file.

        Args:
            kind: The kind of output; one example of each kind is stored.
            example: The output.
        """
        self.num_unmatched += 1
        if len(self.unmatched) < _MOST_EXAMPLES:
            self.unmatched.setdefault(kind[:_LONGEST_EXAMPLE], example[:_LONGEST_EXAMPLE])

    def add_other_fields(self, fields: Mapping[str, Any]) -> None:
        """Counts each numeric field of a report whose name is not in the job file, as it may be the score.

        Args:
            fields: Maps the names that the script uses to texts or numbers.
        """
        names = self.form.metrics
        known = {names.value, names.step, names.samples, names.epoch, names.seconds, "time", "process"}
        for name, value in fields.items():
            if name not in known and _is_number(value):
                self.add_unmatched(name, f"{name} = {value}")


def open_source(context: SourceContext) -> MetricSource:
    """Creates the metric source that the job file specifies."""
    module, _, name = METRIC_SOURCES[context.metrics.source].partition(":")
    source: type[MetricSource] = getattr(importlib.import_module(module), name)
    return source.open(context)


def _is_number(value: object) -> bool:
    if isinstance(value, bool):
        return False
    try:
        float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return False
    return True
