"""Reads past runs from CSV files that were exported from Weights & Biases.

Three kinds of CSV files are read:

- History: the result of `run.history()`. The configuration of the run is in a JSON or YAML file of the same
  name.
- Chart: exported from the web page, with a column `RUN - METRIC` for each run.
- Table of runs: exported from the web page, with a column `Name` and columns for the configuration of each
  run.

The binary files of an offline run (`*.wandb`) are not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tuner.domain.metric_files import UnreadableError
from tuner.past_runs import csv_files
from tuner.past_runs.csv_files import read_table
from tuner.past_runs.found import Found, FoundRun, LeftOut, limited, number

NAME = "wandb"
#: Columns that Weights & Biases adds to a history.
_OWN_COLUMNS = {"_step", "_runtime", "_timestamp"}
_BETWEEN, _BOUNDS = " - ", ("__MIN", "__MAX")
_NAME_COLUMN = "Name"


def accepts(path: Path) -> bool:
    """Whether a file was exported from Weights & Biases, judged by its name and its header."""
    if path.suffix == ".wandb" and path.is_file():
        return True
    if not csv_files.accepts(path):
        return False
    header = _header(path)
    return bool(_OWN_COLUMNS & set(header)) or _is_chart(header) or _is_table(header)


def read(paths: Sequence[Path], run_column: str | None) -> Found:
    """Reads the runs in exported files.

    Args:
        paths: Paths of the exported files.
        run_column: Name of the column that contains the name of the run, if a file has the history of several
            runs; None to use a column with a usual name, such as `run`.
    """
    charts, tables, histories = [], [], []
    left_out: list[LeftOut] = []
    for path in paths:
        header = _header(path)
        if path.suffix == ".wandb":
            left_out.append(LeftOut(what=str(path), reason=_OFFLINE))
        elif _is_chart(header):
            charts.append(path)
        elif _is_table(header):
            tables.append(path)
        else:
            histories.append(path)
    found = csv_files.read(histories, run_column)
    charted = _of_charts(_tables(charts, left_out), left_out)
    parameters: dict[str, dict[str, str]] = {}
    for _, _, rows in _tables(tables, left_out):
        for row in rows:
            parameters[row.pop(_NAME_COLUMN, "")] = row
    runs = tuple(
        # A history has no name of a run, so its file name is looked up in the table of runs.
        replace(
            run, format=NAME, parameters={**parameters.get(run.name or run.source.stem, {}), **run.parameters}
        )
        for run in (*found.runs, *charted)
    )
    return Found(runs=runs, left_out=(*left_out, *found.left_out))


_OFFLINE = (
    "the binary file of an offline run is not read. Upload it with `wandb sync`, export it with "
    "`wandb.Api().run(PATH).history(samples=10000).to_csv(FILE)`, and store its configuration as FILE.json"
)


def _header(path: Path) -> list[str]:
    """Returns the column names in the first line of a file."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            first = file.readline(1_000_000)
    except OSError:
        return []
    return [name.strip().strip('"') for name in first.split(",")]


def _is_chart(header: Sequence[str]) -> bool:
    return len(header) > 1 and all(_BETWEEN in name for name in header[1:] if name)


def _is_table(header: Sequence[str]) -> bool:
    return _NAME_COLUMN in header and bool({"State", "Runtime", "User", "Created"} & set(header))


def _tables(
    paths: Sequence[Path], left_out: list[LeftOut]
) -> list[tuple[Path, list[str], list[dict[str, str]]]]:
    """Returns path, column names and rows of each file that can be read."""
    found = []
    for path in paths:
        try:
            found.append((path, *read_table(path, left_out)))
        except UnreadableError as error:
            left_out.append(LeftOut(what=str(path), reason=str(error)))
    return found


def _of_charts(
    tables: Sequence[tuple[Path, list[str], list[dict[str, str]]]], left_out: list[LeftOut]
) -> list[FoundRun]:
    """Returns the runs in charts; columns of all charts that name the same run become one run."""
    by_run: dict[str, dict[float, dict[str, float]]] = {}
    sources: dict[str, Path] = {}
    for path, (axis, *columns), rows in tables:
        for row in rows:
            at = number(row.get(axis))
            for column in columns:
                value = number(row.get(column))
                run, _, metric = column.rpartition(_BETWEEN)
                if at is not None and value is not None and not column.endswith(_BOUNDS):
                    sources.setdefault(run, path)
                    by_run.setdefault(run, {}).setdefault(at, {axis: at})[metric] = value
    runs = limited(by_run.items(), "the charts of Weights & Biases", left_out)
    return [
        FoundRun(
            name=run, source=sources[run], format=NAME, rows=tuple(row for _, row in sorted(rows.items()))
        )
        for run, rows in runs
    ]
