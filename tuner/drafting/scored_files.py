"""Finds scores (metric values) in the CSV, JSON and TensorBoard files that a script writes."""

from __future__ import annotations

import csv
import importlib.util
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from tuner.domain.metric_files import UnreadableError, csv_lines, csv_table, event_reader, read_events
from tuner.drafting.metric_names import Meaning, meaning_of
from tuner.drafting.readings import Reading

_MOST_BYTES = 2**26
#: Matches a folder name in a path that changes with each run, such as `version_0` of Lightning.
_COUNTED = re.compile(
    r"((?:version|run|exp|train|trial|lightning)[_-]?)\d+(?=/)|\d{4}-\d\d-\d\d(?=/)|\d\d-\d\d-\d\d(?=/)"
)
#: Matches names of folders that differ between runs, because they contain a date, a time in seconds or the
#: number of the run.
_DATED = re.compile(r"\d{6,}|\d{4}-\d\d-\d\d|[A-Z][a-z]{2}\d\d_\d\d|(version|run|exp)_?\d+$")
#: The numbers in a column of a table, as pairs of row index and value.
_Column = Sequence[tuple[int, float]]


def read_files(paths: Mapping[Path, str]) -> list[Reading]:
    """Finds the scores in the files that a run wrote.

    Args:
        paths: Maps each file to the path to write into the job file, such as `{output_folder}/log.csv`.

    Returns:
        One description for each metric of how to read its scores, the preferred metric first.
    """
    found: list[Reading] = []
    event_folders: dict[str, Path] = {}
    for path, written in paths.items():
        if "tfevents" in path.name:
            event_folders.setdefault(str(Path(written).parent), path.parent)
        elif path.suffix.lower() in (".csv", ".tsv"):
            pattern = _COUNTED.sub(lambda match: f"{match[1] or ''}*", written)
            found += _of_columns("csv", _columns(_csv_rows(path)), pattern)
        elif path.suffix.lower() in (".json", ".jsonl", ".ndjson", ".log", ".txt"):
            found += _of_columns("json", _columns(_json_rows(path)), written)
    for folder, path in event_folders.items():
        found += _of_events(path, folder)
    return sorted(found, key=lambda one: one.rank)


def read_reports(path: Path) -> list[Reading]:
    """Finds the scores that a script reported with `paceline_client`.

    Args:
        path: Path of the file that `paceline_client` wrote, with one JSON object per line.

    Returns:
        A list with a description of how to read the scores; empty if the script reported no score.
    """
    rows = [row for row in _json_rows(path) if "value" in row and ("step" in row or "samples" in row)]
    values = tuple(value for _, value in _columns(rows).get("value", ()))
    if not values:
        return []
    # Reports do not contain the name of the metric: guess it from the values.
    rises = values[-1] >= values[0]
    is_share = all(0.0 <= value <= 1.0 for value in values)
    metric = "accuracy" if rises and is_share else "score" if rises else "loss"
    return [
        Reading(
            source="json",
            meaning=Meaning(metric=metric, direction="maximize" if rises else "minimize"),
            label="value",
            values=values,
            fields=frozenset({"samples" if "samples" in rows[0] else "step"}),
            examples=("paceline_client.report(value=...)",),
            rank=-1000,
            is_named=False,
        )
    ]


def _text(path: Path) -> str:
    """Returns the text of a file; an empty text if the file is too large or cannot be read."""
    try:
        return path.read_text("utf-8", errors="replace") if path.stat().st_size <= _MOST_BYTES else ""
    except OSError:
        return ""


def _csv_rows(path: Path) -> list[dict[str, Any]]:
    try:
        return list(csv_table(csv_lines(path, lambda _: None, most_bytes=_MOST_BYTES))[1])
    except (csv.Error, OSError):
        return []


def _json_rows(path: Path) -> list[dict[str, Any]]:
    rows = []
    for line in _text(path).splitlines():
        if line.lstrip().startswith("{"):
            try:
                rows.append(json.loads(line))
            except (ValueError, RecursionError):
                continue
    return rows


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, _Column]:
    """Finds the columns with numbers in the rows of a table.

    Args:
        rows: The rows; each maps column names to texts or numbers.

    Returns:
        Maps the name of each column to its finite numbers, as pairs of row index and value.
    """
    columns: dict[str, list[tuple[int, float]]] = {}
    for i, row in enumerate(rows):
        for name, value in row.items():
            try:
                number = math.nan if isinstance(value, bool) else float(value)
            except (TypeError, ValueError, OverflowError):
                continue
            if math.isfinite(number):
                columns.setdefault(name, []).append((i, number))
    return dict(columns)


def _of_columns(
    source: Literal["csv", "json"], columns: Mapping[str, _Column], path: str
) -> Iterator[Reading]:
    meanings = {name: meaning for name in columns if (meaning := meaning_of(name)) is not None}
    for name, meaning in meanings.items():
        place = _place(meanings, columns, {i for i, _ in columns[name]})
        if meaning.field is not None or place is None:
            continue
        field, column = place
        yield Reading(
            source=source,
            meaning=meaning,
            label=name,
            values=tuple(value for _, value in columns[name]),
            path=path,
            columns=tuple(pair for pair in (("value", name), (field, column)) if pair[0] != pair[1]),
            fields=frozenset({field}),
            examples=(f"column {name} with {column}",),
            # Files are preferred to output lines (smaller rank), unless all runs write to the same file.
            rank=10 * meaning.rank - (5 if len(columns[name]) > 1 else -40) + (0 if "{" in path else 20),
        )


def _place(
    meanings: Mapping[str, Meaning], columns: Mapping[str, _Column], rows: set[int]
) -> tuple[str, str] | None:
    """Finds the column that measures training progress: its values must not fall from row to row.

    Args:
        meanings: Maps the names of columns to their meanings.
        columns: Maps the names of columns to pairs of row index and value.
        rows: Indices of the rows that contain a score; the column must have a value in each of these rows.

    Returns:
        The measure (`samples`, `step` or `epoch`) and the name of the column; None if no column is suitable.
    """
    for field in ("samples", "step", "epoch"):
        column = next((name for name, meaning in meanings.items() if meaning.field == field), None)
        if column is None:
            continue
        values = [value for i, value in columns[column] if i in rows]
        rises = all(a <= b for a, b in itertools.pairwise(values))
        if len(values) == len(rows) and rises and (len(values) < 2 or values[-1] > values[0]):
            return field, column
    return None


def _of_events(folder: Path, written: str) -> Iterator[Reading]:
    if importlib.util.find_spec("tensorboard") is None:
        return
    reader = event_reader(folder)
    try:
        tags = read_events(reader)["scalars"]
    except UnreadableError:
        return
    for tag in tags:
        meaning = meaning_of(tag)
        if meaning is None or meaning.field is not None:
            continue
        values = tuple(event.value for event in reader.Scalars(tag))
        yield Reading(
            source="tensorboard",
            meaning=meaning,
            label=tag,
            values=values,
            path=_without_dates(written),
            columns=(("value", tag),),
            fields=frozenset({"step"}),
            examples=(f"scalar {tag}",),
            rank=10 * meaning.rank + (3 if len(values) > 1 else 40) + (0 if "{" in written else 20),
        )


def _without_dates(folder: str) -> str:
    """Removes the last folders of a path if their names differ between runs, such as a date or run number."""
    parts = list(Path(folder).parts)
    while len(parts) > 1 and _DATED.search(parts[-1]):
        parts.pop()
    return str(Path(*parts))
