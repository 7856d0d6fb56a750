"""Reads past runs from CSV files: one run per file, or a table with a column for the name of the run."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from tuner.domain.metric_files import UnreadableError, csv_lines, csv_table
from tuner.past_runs.found import (
    MOST_ROWS,
    Found,
    FoundRun,
    LeftOut,
    check_size,
    limited,
    number,
    parameters_nearby,
)

NAME = "csv"
#: Names of the column that contains the name of the run. Upper and lower case do not matter.
RUN_COLUMNS = ("run", "run_id", "run_name", "run id", "run name", "trial", "trial_id", "experiment")


def accepts(path: Path) -> bool:
    """Whether the name of a file ends in `.csv` or `.tsv`."""
    return path.is_file() and path.suffix.lower() in (".csv", ".tsv")


def read(paths: Sequence[Path], run_column: str | None) -> Found:
    """Reads the runs in CSV files.

    Args:
        paths: Paths of the CSV files.
        run_column: Name of the column that contains the name of the run; None to use a column of
            `RUN_COLUMNS`.
    """
    folders = [path.parent for path in paths]
    runs: list[FoundRun] = []
    left_out: list[LeftOut] = []
    for path in paths:
        try:
            runs += _of_file(path, run_column, left_out, is_alone=folders.count(path.parent) == 1)
        except UnreadableError as error:
            left_out.append(LeftOut(what=str(path), reason=str(error)))
    return Found(runs=tuple(runs), left_out=tuple(left_out))


def _of_file(
    path: Path, run_column: str | None, left_out: list[LeftOut], *, is_alone: bool
) -> Iterator[FoundRun]:
    header, rows = read_table(path, left_out)
    column = next((name for name in header if name.lower() in RUN_COLUMNS), None)
    if run_column in header:
        column = run_column
    groups: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        groups.setdefault(row.get(column, "") if column else "", []).append(row)
    nearby = parameters_nearby(path, left_out, is_alone=is_alone) if column is None else {}
    for name, own in limited(groups.items(), f"{path}, column {column}", left_out):
        values = {key: {row[key] for row in own if key in row} for key in header}
        # A column whose value is the same in all rows of a run is a parameter of the run.
        constants = {key: next(iter(texts)) for key, texts in values.items() if len(texts) == 1}
        yield FoundRun(
            name=name,
            source=path,
            format=NAME,
            rows=tuple(_numbers(row) for row in own),
            parameters={**nearby, **constants},
        )


def read_table(path: Path, left_out: list[LeftOut]) -> tuple[list[str], list[dict[str, str]]]:
    """Reads a CSV file; returns its column names and its rows, which map column names to texts.

    Args:
        path: Path of the file.
        left_out: The list to which lines that are too long are added.

    Raises:
        UnreadableError: The file cannot be read, or it is not a table with a header.
    """
    check_size(path)
    lines = csv_lines(path, lambda words: left_out.append(LeftOut(what=str(path), reason=words)))
    try:
        header, found = csv_table(lines)
        named = _checked(header)
        rows = list(itertools.islice(found, MOST_ROWS + 1))
    except OSError as error:
        raise UnreadableError(f"it cannot be read: {error.strerror}") from error
    except csv.Error as error:
        raise UnreadableError(f"it is not CSV: {error}") from error
    if len(rows) > MOST_ROWS:
        raise UnreadableError(f"it has more than {MOST_ROWS} rows; import a shorter export")
    if not rows:
        raise UnreadableError("it has no rows below its header")
    return named, rows


def _checked(header: Sequence[str]) -> list[str]:
    """Checks the header of a CSV file, and returns the column names in it that are not empty."""
    named = [name for name in header if name]
    if len(named) < 2 or any("\0" in name for name in named):
        raise UnreadableError("it has no header with two or more columns")
    if len(set(named)) < len(named):
        twice = next(name for name in named if named.count(name) > 1)
        raise UnreadableError(f"two of its columns are named {twice!r}; rename one")
    return named


def _numbers(row: dict[str, str]) -> dict[str, float]:
    return {name: value for name, text in row.items() if (value := number(text)) is not None}
