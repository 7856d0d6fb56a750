"""Reader of Weights & Biases exports: histories of one run, and charts and tables of several runs.

Three kinds of files are read. A history is what `run.history()` gives, as CSV, with the configuration of the
run in a JSON or YAML file of the same name. A chart that the web page exports has a column `RUN - METRIC` for
each run. The table of runs that the page exports has a column `Name` and the configuration of each run. The
binary files of an offline run (`*.wandb`) are not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tuner.past_runs import csv_files
from tuner.past_runs.csv_files import read_table
from tuner.past_runs.found import MOST_RUNS, Found, FoundRun, LeftOut, number

NAME = "wandb"
#: Columns of a history that Weights & Biases adds.
_OWN_COLUMNS = {"_step", "_runtime", "_timestamp"}
_BETWEEN, _BOUNDS = " - ", ("__MIN", "__MAX")
_NAME_COLUMN = "Name"


def accepts(path: Path) -> bool:
    """Whether a file is one of this format, by its name and its header."""
    if path.suffix == ".wandb" and path.is_file():
        return True
    if not csv_files.accepts(path):
        return False
    header = _header(path)
    return bool(_OWN_COLUMNS & set(header)) or _is_chart(header) or _is_table(header)


def read(paths: Sequence[Path], run_column: str | None) -> Found:
    """The runs of exported files.

    Args:
        paths: The files.
        run_column: The column of a history that names the run, if several are in one file.
    """
    charts, tables, histories, left_out = [], [], [], []
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
    found = Found.of([csv_files.read(histories, run_column), _of_charts(charts)])
    parameters = _parameters(tables)
    runs = tuple(
        replace(run, format=NAME, parameters={**parameters.get(_stem(run), {}), **run.parameters})
        for run in found.runs
    )
    return Found(runs=runs, left_out=(*left_out, *found.left_out))


_OFFLINE = (
    "the binary file of an offline run is not read. Upload it with `wandb sync`, and export it with "
    "`wandb.Api().run(PATH).history(samples=10000).to_csv(FILE)` and its configuration as FILE.json"
)


def _stem(run: FoundRun) -> str:
    """What a run is named by in a table of runs: its name, or that of its file."""
    return run.name or run.source.stem


def _header(path: Path) -> list[str]:
    """The column names of a file's first line."""
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


def _of_charts(paths: Sequence[Path]) -> Found:
    """The runs of charts; the columns of one run in several charts are joined by its name."""
    by_run: dict[str, dict[float, dict[str, float]]] = {}
    sources: dict[str, Path] = {}
    left_out = []
    for path in paths:
        table = read_table(path)
        if isinstance(table, str):
            left_out.append(LeftOut(what=str(path), reason=table))
            continue
        header, rows = table
        axis = header[0]
        for row in rows:
            at = number(row.get(axis))
            if at is None:
                continue
            for column in header[1:]:
                value = number(row.get(column))
                run, _, metric = column.rpartition(_BETWEEN)
                if value is None or column.endswith(_BOUNDS):
                    continue
                sources.setdefault(run, path)
                by_run.setdefault(run, {}).setdefault(at, {axis: at})[metric] = value
    if len(by_run) > MOST_RUNS:
        words = f"they show {len(by_run)} runs; the first {MOST_RUNS} are read"
        left_out.append(LeftOut(what="the charts of Weights & Biases", reason=words))
    runs = [
        FoundRun(
            name=run, source=sources[run], format=NAME, rows=tuple(row for _, row in sorted(rows.items()))
        )
        for run, rows in list(by_run.items())[:MOST_RUNS]
    ]
    return Found(runs=tuple(runs), left_out=tuple(left_out))


def _parameters(tables: Sequence[Path]) -> dict[str, dict[str, str]]:
    """The configuration of each run by its name."""
    found: dict[str, dict[str, str]] = {}
    for path in tables:
        table = read_table(path)
        if not isinstance(table, str):
            for row in table[1]:
                found[row.get(_NAME_COLUMN, "")] = {k: v for k, v in row.items() if k != _NAME_COLUMN}
    return found
