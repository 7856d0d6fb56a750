"""Reads past runs that MLflow logged to the folder `mlruns` or to the SQLite database `mlflow.db`."""

from __future__ import annotations

import itertools
import math
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tuner.domain.metric_files import UnreadableError, read_lines
from tuner.past_runs.found import (
    MOST_BYTES,
    MOST_PARAMETER_BYTES,
    MOST_ROWS,
    STEP,
    TIME,
    Found,
    FoundRun,
    LeftOut,
    Row,
    check_size,
    limited,
    number,
)

NAME = "mlflow"
_TABLES = ("runs", "metrics", "params")
_SQLITE_HEADER = b"SQLite format 3\0"
#: Maximum size of a database in bytes. Only its metrics and parameters are read.
_MOST_DATABASE_BYTES = 16 * MOST_BYTES
_DELETED = "MLflow marks it as deleted"


def accepts(path: Path) -> bool:
    """Whether a path is the folder of a run in `mlruns`, or a SQLite database with MLflow's tables.

    A damaged database is accepted too, because the user should see an error message about it.
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
    """Opens a database only for reading; invalid UTF-8 in its texts is replaced."""
    connection = sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro", uri=True)
    connection.text_factory = lambda data: data.decode("utf-8", "replace")
    return connection


def read(paths: Sequence[Path], _run_column: str | None) -> Found:
    """Reads the runs in folders of runs and in databases.

    Args:
        paths: Paths of the folders and databases.
    """
    left_out: list[LeftOut] = []
    runs: list[FoundRun] = []
    for path in limited(paths, "the runs of MLflow", left_out):
        try:
            runs += [_of_folder(path, left_out)] if path.is_dir() else _of_database(path, left_out)
        except UnreadableError as error:
            left_out.append(LeftOut(what=str(path), reason=str(error)))
    return Found(runs=tuple(runs), left_out=tuple(left_out))


def _of_folder(folder: Path, left_out: list[LeftOut]) -> FoundRun:
    if "lifecycle_stage: deleted" in _small_text(folder / "meta.yaml"):
        raise UnreadableError(_DELETED)
    logged: list[tuple[str, float, float, float]] = []
    for path, key in _files(folder / "metrics"):
        try:
            check_size(path)
            logged += [(key, *values) for values in _metric_lines(path)]
        except UnreadableError as error:
            left_out.append(LeftOut(what=str(path), reason=str(error)))
    parameters = {key: _small_text(path).strip() for path, key in _files(folder / "params")}
    name = _small_text(folder / "tags" / "mlflow.runName").strip() or folder.name
    return FoundRun(name=name, source=folder, format=NAME, rows=_rows(logged), parameters=parameters)


def _files(folder: Path) -> list[tuple[Path, str]]:
    """Returns the path of each file below a folder, and its path relative to the folder."""
    return [(p, p.relative_to(folder).as_posix()) for p in sorted(folder.rglob("*")) if p.is_file()]


def _metric_lines(path: Path) -> Iterator[tuple[float, float, float]]:
    """Yields timestamp (ms), value and step of each line `timestamp value step`, and skips other lines."""
    with path.open("rb") as file:
        for line in itertools.islice(read_lines(file), MOST_ROWS):
            words = line.decode("utf-8", errors="replace").split(None, 3)[:3]
            found = [value for word in words if (value := number(word)) is not None]
            if len(found) == len(words) == 3:
                yield found[0], found[1], found[2]


def _small_text(path: Path) -> str:
    """Returns the text of a file; the empty string if the file is too large or cannot be read."""
    try:
        check_size(path, MOST_PARAMETER_BYTES)
        return path.read_text(encoding="utf-8", errors="replace")
    except (UnreadableError, OSError):
        return ""


def _rows(logged: Sequence[tuple[str, float, float, float]]) -> tuple[Row, ...]:
    """Groups logged values into rows: the values of all metrics at the same step are one row.

    If a metric was logged several times at the same step (for example because the script logs without steps),
    each value is in a separate row.

    Args:
        logged: Name of the metric, timestamp in milliseconds, value and step of each logged value.
    """
    by_place: dict[tuple[float, int], dict[str, float]] = {}
    seen: dict[tuple[str, float], int] = {}
    for key, timestamp, value, step in sorted(logged, key=lambda one: one[1]):
        again = seen[key, step] = seen.get((key, step), -1) + 1
        row = by_place.setdefault((step, again), {STEP: step, TIME: timestamp / 1000.0})
        row[key] = value
    return tuple(by_place.values())


def _of_database(path: Path, left_out: list[LeftOut]) -> Iterator[FoundRun]:
    check_size(path, _MOST_DATABASE_BYTES)
    try:
        with closing(_opened(path)) as connection:
            (count,) = connection.execute("SELECT count(*) FROM metrics").fetchone()
            if count > MOST_ROWS * 10:
                raise UnreadableError(
                    f"it has {count} values; at most {MOST_ROWS * 10} are read. Export some of its runs"
                )
            runs = connection.execute("SELECT run_uuid, name, lifecycle_stage FROM runs").fetchall()
            params = connection.execute("SELECT run_uuid, key, value FROM params").fetchall()
            columns = "run_uuid, key, timestamp, value, step, is_nan"
            metrics = connection.execute(f"SELECT {columns} FROM metrics").fetchall()
    except sqlite3.Error as error:
        words = (
            f"it is not a database of MLflow, or it is one of an MLflow version with other tables: {error}"
        )
        raise UnreadableError(words) from error
    parameters: dict[Any, dict[str, str]] = {}
    for run_id, key, value in params:
        parameters.setdefault(run_id, {})[str(key)] = str(value)
    logged: dict[Any, list[tuple[str, float, float, float]]] = {}
    for run_id, key, timestamp, value, step, is_nan in metrics:
        time, amount, place = number(timestamp), number(value), number(step)
        if time is not None and amount is not None and place is not None:
            amount = math.nan if is_nan else amount
            logged.setdefault(run_id, []).append((str(key), time, amount, place))
    for run_id, name, stage in limited(runs, f"the runs of {path}", left_out):
        if stage == "deleted":
            left_out.append(LeftOut(what=f"{path} {name or run_id}", reason=_DELETED))
            continue
        yield FoundRun(
            name=str(name or run_id),
            source=path,
            format=NAME,
            rows=_rows(logged.get(run_id, ())),
            parameters=parameters.get(run_id, {}),
        )
