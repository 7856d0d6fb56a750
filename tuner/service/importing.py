"""The use case `import-runs`: reads learning curves that other tools logged, and stores them for a job."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.domain.errors import JobError
from tuner.domain.ledger import Ledger
from tuner.past_runs.convert import PastRun, past_runs
from tuner.past_runs.formats import find_runs
from tuner.past_runs.found import LeftOut
from tuner.past_runs.mapping import Mapping, load_mapping, mapping_text
from tuner.past_runs.suggest import Suggestion, suggest
from tuner.service.imports import REPLACED, Stored, store_runs
from tuner.service.opening import OpenedJob, checked_epoch_samples

#: Status of a run that `--dry-run` only shows (without this option it would be stored), and of a run that
#: cannot be used.
NOT_STORED, LEFT_OUT = "would be imported", "left out"
_REPLACED_NOTE = "it replaces an earlier import of the same run, whose configuration or curve was different"
#: Maximum number of column names in a message, and maximum number of files or runs with reasons.
_MOST_NAMES, _MOST_REASONS = 30, 10

Ask = Callable[[str, Sequence[str]], str]
"""A function that asks the user a question. Its arguments are the question and the names to choose from."""


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """Options of an import.

    Args:
        sources: Files and folders with the runs.
        mapping: Path of the mapping file; None if there is none.
        source_format: Name of the only format to read; None for all formats.
        same_hardware: Whether all runs were trained on the same hardware as the job.
    """

    sources: tuple[Path, ...]
    mapping: Path | None = None
    source_format: str | None = None
    same_hardware: bool = False


@dataclass(frozen=True, kw_only=True)
class ReadRuns:
    """The result of reading past runs.

    Args:
        runs: The runs that can be imported, at least one.
        left_out: The files and runs that cannot be imported, with reasons.
        mapping: Says which parameter of a run is the batch size, the learning rate and so on; has all
            required keys.
        answers: The user's answers, by the key of the mapping that was asked for.
    """

    runs: tuple[PastRun, ...]
    left_out: tuple[LeftOut, ...]
    mapping: Mapping
    answers: dict[str, Any]

    @property
    def mapping_text(self) -> str:
        """The text of a mapping file (TOML) with this mapping."""
        return mapping_text(self.mapping.model_dump(exclude_unset=True))


def read_past_runs(opened: OpenedJob, options: ImportOptions, ask: Ask | None = None) -> ReadRuns:
    """Reads past runs, and converts them to configurations and curves of the job.

    Args:
        opened: The job.
        options: The options of the import.
        ask: Function that asks the user for required names that are not mapped; None if no user can answer.

    Raises:
        JobError: The job replays a recording, a source or the mapping file cannot be read, a required name is
            not mapped, or no run can be imported.
    """
    if opened.job.recording() is not None:
        raise JobError(
            f"{opened.path}: a job that replays a recording cannot import runs; import them for a job that "
            "trains"
        )
    stated = Mapping() if options.mapping is None else load_mapping(options.mapping)
    if options.same_hardware:
        stated = stated.model_copy(update={"same_hardware": True})
    found = find_runs(options.sources, options.source_format, stated.run)
    if not found.runs:
        raise JobError(_nothing("no run was read", found.left_out))
    job = opened.job
    known = job.command.epoch_samples if job.runs_command else None
    suggested = suggest(
        stated, found.runs, job.goal.metric, knows_epochs=known is not None or not job.runs_command
    )
    mapping = suggested.mapping
    answers: dict[str, Any] = {}
    if suggested.missing:
        if ask is None:
            raise JobError(_not_mapped(opened, suggested))
        mapping, answers = _answered(suggested, ask)
    if mapping.epoch is not None and known is None and mapping.epoch_samples is None:
        known = checked_epoch_samples(opened)
    runs, left_out = past_runs(found.runs, mapping, job.goal, known)
    left_out = [*found.left_out, *left_out]
    if not runs:
        raise JobError(_nothing("no run can be used", left_out))
    return ReadRuns(runs=tuple(runs), left_out=tuple(left_out), mapping=mapping, answers=answers)


def import_rows(
    opened: OpenedJob, read: ReadRuns, ledger: Ledger | None, *, fresh: bool = False
) -> list[dict[str, Any]]:
    """Stores past runs. Returns one row for each run that was stored or left out.

    Args:
        opened: The job.
        read: The past runs, from `read_past_runs`.
        ledger: The database in which the runs are stored; None to store nothing.
        fresh: Whether the search ignores runs that were imported before.
    """
    if ledger is None:
        stored = [Stored(run=run, status=NOT_STORED) for run in read.runs]
    else:
        stored = store_runs(ledger, opened, read.runs, fresh=fresh)
    rows = [_row(opened, one) for one in stored]
    empty = dict.fromkeys(rows[0])
    return rows + [
        {**empty, "run": one.what, "status": LEFT_OUT, "note": one.reason} for one in read.left_out
    ]


def _row(opened: OpenedJob, stored: Stored) -> dict[str, Any]:
    run, goal = stored.run, opened.job.goal
    measurement = run.measurement
    values = [point.value for point in measurement.curve]
    crossed = goal.crossing(measurement.trained_curve)
    notes = [_REPLACED_NOTE] if stored.status == REPLACED else []
    notes += [run.note] if run.note else []
    return {
        "run": run.label,
        "status": stored.status,
        "configuration": str(measurement.configuration),
        "scores": len(values),
        "best": max(values) if goal.maximize else min(values),
        "samples": measurement.samples,
        "samples to target": None if crossed is None else round(crossed[0]),
        "seconds": round(measurement.training_seconds, 3) or None,
        "note": "; ".join(notes) or None,
    }


def summary_words(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the number of runs with each status, as text."""
    counts = Counter(row["status"] for row in rows)
    return "runs: " + ", ".join(f"{count} {status}" for status, count in counts.items())


def _answered(suggested: Suggestion, ask: Ask) -> tuple[Mapping, dict[str, Any]]:
    """Asks the user for each missing key. Returns the completed mapping and the answers by key."""
    answers: dict[str, Any] = {}
    for key in suggested.missing:
        names = suggested.candidates[key]
        if key == "step":
            column = ask("Which column contains the samples, steps or epochs done so far?", names)
            kind = ask(
                f"Does {column} count samples, optimizer steps or epochs?", ("samples", "step", "epoch")
            )
            answers[kind] = column
        else:
            answers[key] = _value(ask(_QUESTIONS[key], names))
    try:
        mapping = Mapping.model_validate({**suggested.mapping.model_dump(exclude_unset=True), **answers})
    except ValueError as error:
        raise JobError(f"these answers are not a valid mapping: {error}") from error
    return mapping, answers


_QUESTIONS = {
    "metric": "Which column is the metric of the job?",
    "batch_size": "Which parameter is the global batch size (of all devices together)? A number instead "
    "of a name is used for all runs. If it is the product of several parameters, separate them by commas.",
    "learning_rate": "Which parameter is the learning rate? A number instead of a name is used for all runs.",
    "epoch_samples": "How many samples does an epoch have?",
    "nodes": "Which parameter is the number of nodes? A number instead of a name is used for all runs.",
}


def _value(text: str) -> Any:
    """Converts the user's answer to a name or a number, or to a tuple if it is a list with commas."""
    values = [_name_or_number(part.strip()) for part in text.split(",") if part.strip()]
    return tuple(values) if len(values) > 1 else values[0] if values else text


def _name_or_number(text: str) -> str | float:
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


def _not_mapped(opened: OpenedJob, suggested: Suggestion) -> str:
    """Returns a message with the missing keys, possible names for them, and a mapping file to fill in."""
    lines = [
        f"{opened.path}: the runs cannot be imported yet: it is unknown which of their columns or "
        "parameters contain these values:"
    ]
    for key in suggested.missing:
        names = suggested.candidates[key]
        shown = ", ".join(names[:_MOST_NAMES]) + (", ..." if len(names) > _MOST_NAMES else "")
        what = "step, samples or epoch" if key == "step" else key
        lines.append(f"  {what}: candidates are {shown or 'no names; state a number or a name_pattern'}")
    stated = suggested.mapping.model_dump(exclude_unset=True)
    values = {**dict.fromkeys(suggested.missing), **stated}
    lines += ["Fill in this mapping file, and name it with --mapping:", "", mapping_text(values)]
    return "\n".join(lines)


def _nothing(what: str, left_out: Sequence[LeftOut]) -> str:
    lines = [f"{what}, so nothing is imported:"]
    lines += [f"  {one.what}: {one.reason}" for one in left_out[:_MOST_REASONS]]
    if len(left_out) > _MOST_REASONS:
        lines.append(f"  and {len(left_out) - _MOST_REASONS} more")
    return "\n".join(lines)
