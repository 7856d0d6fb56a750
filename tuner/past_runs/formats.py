"""Lists the formats of past runs, and finds files and folders of these formats."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tuner.domain.errors import JobError
from tuner.past_runs import csv_files, mlflow_stores, tensorboard_files, wandb_files
from tuner.past_runs.found import MOST_FILES, Found, LeftOut


@dataclass(frozen=True, kw_only=True)
class RunFormat:
    """A format in which a tool stores runs.

    Args:
        name: Name of the format on the command line, such as `mlflow`.
        accepts: Function that returns whether a file or folder has this format.
        read: Function that reads the runs from files and folders of this format. Its second argument is the
            name of the column that contains the name of the run; None if that is unknown.
    """

    name: str
    accepts: Callable[[Path], bool]
    read: Callable[[Sequence[Path], str | None], Found]


#: A file or folder is read by the first of these formats that accepts it. CSV is last, because it accepts
#: files of other formats too.
FORMATS = tuple(
    RunFormat(name=reader.NAME, accepts=reader.accepts, read=reader.read)
    for reader in (tensorboard_files, mlflow_stores, wandb_files, csv_files)
)


def find_runs(sources: Sequence[Path], format_name: str | None, run_column: str | None) -> Found:
    """Finds and reads the runs in files and folders.

    Args:
        sources: Files, and folders that are searched recursively. Symbolic links are not followed.
        format_name: Name of the only format to read; None for all formats.
        run_column: Name of the column of a CSV file that contains the name of the run; None to find the
            column by its name.

    Raises:
        JobError: A source does not exist or has too many files, or no file has a known format.
    """
    formats = [one for one in FORMATS if format_name in (None, one.name)]
    by_format: dict[str, list[Path]] = {one.name: [] for one in formats}
    left_out: list[LeftOut] = []
    for path in dict.fromkeys(path for source in sources for path in _paths(source)):
        accepting = next((one for one in formats if one.accepts(path)), None)
        if accepting is not None:
            by_format[accepting.name].append(path)
        elif path in sources and not path.is_dir():
            words = f"it is not of a known format ({', '.join(one.name for one in formats)})"
            left_out.append(LeftOut(what=str(path), reason=words))
    if not any(by_format.values()) and not left_out:
        named, known = ", ".join(map(str, sources)), ", ".join(one.name for one in formats)
        raise JobError(
            f"--from {named}: no file of a known format ({known}) was found. "
            "Give the path of event files, exported CSV files, a folder mlruns or a database mlflow.db"
        )
    read = [one.read(by_format[one.name], run_column) for one in formats if by_format[one.name]]
    found = Found.of([Found(left_out=tuple(left_out)), *read])
    return replace(found, runs=tuple(replace(run, origin=_origin(run.source, sources)) for run in found.runs))


def _origin(source: Path, named: Sequence[Path]) -> str:
    """Returns the path from the user (one of `named`) that is or contains the source of a run."""
    return next((str(path) for path in named if path == source or path in source.parents), str(source))


def _paths(source: Path) -> list[Path]:
    """Returns a file, or a folder and all files and folders below it, in order."""
    if not source.exists():
        raise JobError(f"--from {source}: there is no such file or folder; name one that exists")
    if not source.is_dir():
        return [source]
    found = [source]
    for folder, folders, files in os.walk(source):
        folders.sort()
        found += [Path(folder) / name for name in (*folders, *sorted(files))]
        if len(found) > MOST_FILES:
            raise JobError(
                f"--from {source}: it contains more than {MOST_FILES} files; name the folder of the runs"
            )
    return found
