"""Reader of CSV files: one run in a file, or a long table with a column that names the run."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from tuner.past_runs.found import (
    MOST_ROWS,
    MOST_RUNS,
    Found,
    FoundRun,
    LeftOut,
    number,
    parameters_nearby,
    too_large,
)

NAME = "csv"
#: Columns that name a run, without case.
RUN_COLUMNS = ("run", "run_id", "run_name", "run id", "run name", "trial", "trial_id", "experiment")
_DELIMITERS = ",;\t"


def accepts(path: Path) -> bool:
    """Whether a file is one of this format by its name."""
    return path.is_file() and path.suffix.lower() in (".csv", ".tsv")


def read(paths: Sequence[Path], run_column: str | None) -> Found:
    """The runs of CSV files.

    Args:
        paths: The files.
        run_column: The column that names the run; one of `RUN_COLUMNS` if None.
    """
    folders = [path.parent for path in paths]
    return Found.of(_of_file(path, run_column, alone=folders.count(path.parent) == 1) for path in paths)


def _of_file(path: Path, run_column: str | None, *, alone: bool) -> Found:
    table = read_table(path)
    if isinstance(table, str):
        return Found(left_out=(LeftOut(what=str(path), reason=table),))
    header, rows = table
    column = run_column if run_column in header else _run_column(header)
    groups: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        groups.setdefault(row.get(column, "") if column else "", []).append(row)
    nearby, left_out = parameters_nearby(path, alone=alone) if column is None else ({}, [])
    if len(groups) > MOST_RUNS:
        words = f"its column {column} names {len(groups)} runs; the first {MOST_RUNS} are read"
        left_out.append(LeftOut(what=str(path), reason=words))
    runs = [
        FoundRun(
            name=name,
            source=path,
            format=NAME,
            rows=tuple(_numbers(row) for row in own),
            parameters={**nearby, **_constants(header, own)},
        )
        for name, own in list(groups.items())[:MOST_RUNS]
    ]
    return Found(runs=tuple(runs), left_out=tuple(left_out))


def _run_column(header: Sequence[str]) -> str | None:
    return next((name for name in header if name.lower() in RUN_COLUMNS), None)


def read_table(path: Path) -> tuple[list[str], list[dict[str, str]]] | str:
    """Header and rows of a CSV file; a sentence that says why it cannot be read.

    Columns are separated by a comma, a semicolon or a tab, whichever the header has most of.
    """
    reason = too_large(path)
    if reason is not None:
        return reason
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            return _table(file)
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    except csv.Error as error:
        return f"it is not CSV: {error}"


def _table(file: Iterator[str]) -> tuple[list[str], list[dict[str, str]]] | str:
    first = next(file, "")
    delimiter = max(_DELIMITERS, key=first.count)
    header = [name.strip() for name in next(csv.reader([first], delimiter=delimiter), [])]
    named = [name for name in header if name]
    if len(named) < 2 or "\0" in first:
        return "it has no header with two or more columns"
    if len(set(named)) < len(named):
        twice = next(name for name in named if named.count(name) > 1)
        return f"two of its columns are named {twice!r}; rename one"
    rows: list[dict[str, str]] = []
    for cells in csv.reader(file, delimiter=delimiter):
        if len(rows) == MOST_ROWS:
            return f"it has more than {MOST_ROWS} rows; import a shorter export"
        row = {name: cell.strip() for name, cell in zip(header, cells, strict=False) if name and cell.strip()}
        if row:
            rows.append(row)
    return (named, rows) if rows else "it has no rows below its header"


def _numbers(row: dict[str, str]) -> dict[str, float]:
    found = {name: number(text) for name, text in row.items()}
    return {name: value for name, value in found.items() if value is not None}


def _constants(header: Sequence[str], rows: Sequence[dict[str, str]]) -> dict[str, str]:
    """Columns that have one value all along a run, which is then a parameter of it."""
    found = {}
    for name in header:
        values = {row[name] for row in rows if name in row}
        if len(values) == 1:
            found[name] = values.pop()
    return found
