"""Reader of MLflow's stores: the folder `mlruns`, and the SQLite database `mlflow.db`."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tuner.past_runs.found import (
    MOST_BYTES,
    MOST_PARAMETER_BYTES,
    MOST_ROWS,
    MOST_RUNS,
    STEP,
    TIME,
    Found,
    FoundRun,
    LeftOut,
    Row,
    number,
    too_large,
)

NAME = "mlflow"
_TABLES = ("runs", "metrics", "params")
_SQLITE_HEADER = b"SQLite format 3\0"
#: A database may be larger than a file of curves: only its metrics and parameters are read.
_MOST_DATABASE_BYTES = 16 * MOST_BYTES
_DELETED = "MLflow marks it as deleted"


def accepts(path: Path) -> bool:
    """Whether a path is a run's folder in a file store, or a SQLite database with MLflow's tables.

    A damaged database may be one.
    """
    if path.is_dir():
        return (path / "meta.yaml").is_file() and (path / "metrics").is_dir()
    if path.suffix not in (".db", ".sqlite", ".sqlite3"):
        return False
    try:
        with path.open("rb") as file:
            if file.read(len(_SQLITE_HEADER)) != _SQLITE_HEADER:
                return False
        with closing(_opened(path)) as connection:
            names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    except OSError:
        return False
    except sqlite3.Error:
        return True
    return {(name,) for name in _TABLES} <= set(names)


def _opened(path: Path) -> sqlite3.Connection:
    """A connection that cannot write; text that is not UTF-8 is replaced."""
    connection = sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro", uri=True)
    connection.text_factory = lambda data: data.decode("utf-8", "replace")
    return connection


def read(paths: Sequence[Path], _run_column: str | None) -> Found:
    """The runs of run folders and databases.

    Args:
        paths: The folders and files.
    """
    folders = [path for path in paths if path.is_dir()]
    found = [_of_folder(path) for path in folders[:MOST_RUNS]]
    if len(folders) > MOST_RUNS:
        words = f"there are {len(folders)} runs; the first {MOST_RUNS} are read"
        found.append(Found(left_out=(LeftOut(what="the runs of MLflow", reason=words),)))
    return Found.of([*found, *(_of_database(path) for path in paths if path.is_file())])


def _of_folder(folder: Path) -> Found:
    left_out: list[LeftOut] = []
    if "lifecycle_stage: deleted" in _small_text(folder / "meta.yaml"):
        return Found(left_out=(LeftOut(what=str(folder), reason=_DELETED),))
    logged: list[tuple[str, float, float, float]] = []
    for path in sorted((folder / "metrics").rglob("*")):
        if not path.is_file():
            continue
        reason = too_large(path)
        if reason is not None:
            left_out.append(LeftOut(what=str(path), reason=reason))
            continue
        key = path.relative_to(folder / "metrics").as_posix()
        logged += [(key, *values) for values in _metric_lines(path)]
    params = folder / "params"
    parameters = {
        p.relative_to(params).as_posix(): _small_text(p).strip()
        for p in sorted(params.rglob("*"))
        if p.is_file()
    }
    name = _small_text(folder / "tags" / "mlflow.runName").strip() or folder.name
    run = FoundRun(name=name, source=folder, format=NAME, rows=_rows(logged), parameters=parameters)
    return Found(runs=(run,), left_out=tuple(left_out))


def _metric_lines(path: Path) -> Iterator[tuple[float, float, float]]:
    """Timestamp (ms), value and step of each line `timestamp value step`; other lines say nothing."""
    with path.open(encoding="utf-8", errors="replace") as file:
        for place, line in enumerate(file):
            if place == MOST_ROWS:
                return
            words = line.split()[:3]
            found = [value for word in words if (value := number(word)) is not None]
            if len(found) == len(words) == 3:
                yield found[0], found[1], found[2]


def _small_text(path: Path) -> str:
    if not path.is_file() or too_large(path, MOST_PARAMETER_BYTES) is not None:
        return ""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _rows(logged: Sequence[tuple[str, float, float, float]]) -> tuple[Row, ...]:
    """Rows from (metric, timestamp in ms, value, step): metrics of one step are one row.

    If a metric was logged several times at one step, as by scripts that state none, each is a row.
    """
    by_place: dict[tuple[float, int], dict[str, float]] = {}
    seen: dict[tuple[str, float], int] = {}
    for key, timestamp, value, step in sorted(logged, key=lambda one: one[1]):
        again = seen[key, step] = seen.get((key, step), -1) + 1
        row = by_place.setdefault((step, again), {STEP: step, TIME: timestamp / 1000.0})
        row[key] = value
    return tuple(by_place.values())


def _of_database(path: Path) -> Found:
    reason = too_large(path, _MOST_DATABASE_BYTES)
    if reason is not None:
        return Found(left_out=(LeftOut(what=str(path), reason=reason),))
    try:
        with closing(_opened(path)) as connection:
            (count,) = connection.execute("SELECT count(*) FROM metrics").fetchone()
            if count > MOST_ROWS * 10:
                words = f"it holds {count} values; at most {MOST_ROWS * 10} are read. Export some of its runs"
                return Found(left_out=(LeftOut(what=str(path), reason=words),))
            runs = connection.execute("SELECT run_uuid, name, lifecycle_stage FROM runs").fetchall()
            params = connection.execute("SELECT run_uuid, key, value FROM params").fetchall()
            columns = "run_uuid, key, timestamp, value, step, is_nan"
            metrics = connection.execute(f"SELECT {columns} FROM metrics").fetchall()
    except sqlite3.Error as error:
        words = f"it is no database of MLflow, or of a version with other tables: {error}"
        return Found(left_out=(LeftOut(what=str(path), reason=words),))
    return _of_tables(path, runs, params, metrics)


def _of_tables(path: Path, runs: Sequence[Any], params: Sequence[Any], metrics: Sequence[Any]) -> Found:
    parameters: dict[str, dict[str, str]] = {}
    for run_id, key, value in params:
        parameters.setdefault(str(run_id), {})[str(key)] = str(value)
    logged: dict[str, list[tuple[str, float, float, float]]] = {}
    for run_id, key, timestamp, value, step, is_nan in metrics:
        values = [number(one) for one in (timestamp, value, step)]
        if None in values:
            continue
        when, amount, at = (one if one is not None else 0.0 for one in values)
        logged.setdefault(str(run_id), []).append((str(key), when, float("nan") if is_nan else amount, at))
    found: list[FoundRun] = []
    left_out: list[LeftOut] = []
    for run_id, name, stage in runs:
        named = str(name or run_id)
        if stage == "deleted":
            left_out.append(LeftOut(what=f"{path} {named}", reason=_DELETED))
        elif len(found) == MOST_RUNS:
            left_out.append(LeftOut(what=f"{path} {named}", reason=f"only {MOST_RUNS} runs are read"))
        else:
            rows = _rows(logged.get(str(run_id), ()))
            own = parameters.get(str(run_id), {})
            found.append(FoundRun(name=named, source=path, format=NAME, rows=rows, parameters=own))
    return Found(runs=tuple(found), left_out=tuple(left_out))
