"""Files of recordings: read with every line checked, written so that reading gives the same back."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from search_spaces import Configuration
from tuner.domain.checkpoints import write_atomically
from tuner.domain.cluster import Machine
from tuner.domain.errors import JobError, StorageError
from tuner.recordings.recording import RecordedRun, Recording
from tuner.recordings.recording_line import Line
from tuner.recordings.recording_run import run_of_line

_COLUMNS = ("seconds", "step", "value")
_HEADER_KEYS = (
    "recording",
    "source",
    "metric",
    "direction",
    "target",
    "curve",
    "machines",
    "batch_size_scope",
    "extra_nodes",
    "startup_seconds",
)


def load_recording(path: Path) -> Recording:
    """The recording that a file holds; read once while the file stays as it is.

    Keys that the format does not know are passed over, since a source may keep notes of its own, unless
    they look like a known key that is absent.

    Args:
        path: A file of JSON lines, gzipped or not.

    Raises:
        JobError: It cannot be read or is no recording; the message names file, line and key, what is
            allowed, and what to do.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise JobError(
            f"{path}: the recording cannot be read: {error.strerror}; name a file as `paceline record` "
            "writes it (.jsonl.gz)"
        ) from error
    return _loaded(path.resolve(), path, found.st_mtime_ns, found.st_size)


def write_recording(recording: Recording, path: Path) -> None:
    """Writes a recording as a gzipped file of JSON lines, whole or not at all.

    Args:
        recording: What is written.
        path: The file; its folder is made if absent, and a file that is there is replaced.

    Raises:
        StorageError: It cannot be written.
    """
    lines = [_header(recording), *(_line(run) for run in recording.runs)]
    text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)

    def write(file: BinaryIO) -> None:
        # No time stamp: the same recording gives the same file.
        file.write(gzip.compress(text.encode(), mtime=0))

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, write)
    except OSError as error:
        raise StorageError(
            f"the recording {path} cannot be written: {error.strerror}; choose another --output"
        ) from error


@lru_cache(maxsize=8)
def _loaded(resolved: Path, path: Path, modified: int, size: int) -> Recording:
    del modified, size  # they only tell whether it is still the file that was read
    content = _content(resolved, path)
    lines = [(i, text) for i, text in enumerate(content.splitlines(), 1) if text.strip()]
    if not lines:
        raise JobError(f"{path}: is empty; the first line of a recording is its header")
    header = Line.parse(path, lines[0][0], lines[0][1])
    header.refuse_misspelled(_HEADER_KEYS)
    columns = _columns(header)
    machines = _machines(header)
    direction = header.one_of("direction", ("maximize", "minimize"))
    runs = _runs(path, lines[1:], columns, machines)
    if not runs:
        raise JobError(f"{path}: holds a header but no run; each further line is one")
    return Recording(
        name=header.text("recording"),
        source=header.text("source", default=""),
        metric=header.text("metric"),
        maximize=direction == "maximize",
        target=header.number("target"),
        machines=machines,
        batch_size_scope=header.one_of("batch_size_scope", ("global", "rank"), default="global"),  # type: ignore[arg-type]
        extra_nodes=header.count("extra_nodes", at_least=0, default=0),
        startup_seconds=header.number("startup_seconds", at_least=0.0, default=0.0),
        runs=tuple(runs),
        digest=hashlib.sha256(content.encode()).hexdigest()[:16],
    )


def _content(resolved: Path, path: Path) -> str:
    try:
        content = resolved.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        return content.decode("utf-8")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise JobError(f"{path}: is not a whole gzip file: {error}; write or fetch it again") from error
    except UnicodeDecodeError as error:
        raise JobError(
            f"{path}: is not text in UTF-8: {error.reason} at byte {error.start}; "
            "a recording is JSON lines, gzipped or not"
        ) from error
    except OSError as error:
        raise JobError(f"{path}: the recording cannot be read: {error.strerror}") from error


def _columns(header: Line) -> list[int]:
    """Where the seconds, steps and values stand in a row of a curve."""
    names = header.value("curve")
    if not isinstance(names, list) or not set(_COLUMNS) <= set(map(str, names)):
        raise header.problem("curve", f"must be a list that names the columns {', '.join(_COLUMNS)}")
    return [names.index(name) for name in _COLUMNS]


def _machines(header: Line) -> dict[str, Machine]:
    tables = header.value("machines", default={})
    if not isinstance(tables, Mapping):
        raise header.problem("machines", "must be an object: type of machine to cores and dollars_per_hour")
    machines = {}
    for name, table in tables.items():
        inner = header.inside(f"machines.{name}", table)
        inner.refuse_misspelled(("cores", "dollars_per_hour"))
        machines[name] = Machine(
            cores=inner.count("cores", at_least=1),
            dollars_per_hour=inner.number("dollars_per_hour", at_least=0.0),
        )
    return machines


def _runs(
    path: Path, lines: Sequence[tuple[int, str]], columns: Sequence[int], machines: Mapping[str, Machine]
) -> list[RecordedRun]:
    runs: list[RecordedRun] = []
    seen: dict[tuple[Configuration, float], int] = {}
    axes: dict[str, set[str]] = {}
    for number, text in lines:
        line = Line.parse(path, number, text)
        run = run_of_line(line, columns, machines)
        configuration = run.configuration
        before = seen.setdefault((configuration, run.data_fraction), number)
        if before != number:
            raise line.problem(
                "configuration", f"was recorded with this data_fraction in line {before} already; keep one"
            )
        known = axes.setdefault(configuration.strategy, set(configuration))
        if known != set(configuration):
            odd = ", ".join(sorted(known ^ set(configuration)))
            raise line.problem(
                "configuration",
                f"the runs of one strategy must have the same axes, and others differ in {odd}; "
                "state every axis in every line",
            )
        runs.append(run)
    return runs


def _header(recording: Recording) -> dict[str, Any]:
    return {
        "recording": recording.name,
        "metric": recording.metric,
        "direction": "maximize" if recording.maximize else "minimize",
        "target": recording.target,
        "curve": list(_COLUMNS),
        "machines": {
            name: {"cores": machine.cores, "dollars_per_hour": machine.dollars_per_hour}
            for name, machine in recording.machines.items()
        },
        "extra_nodes": recording.extra_nodes,
        "batch_size_scope": recording.batch_size_scope,
        "startup_seconds": recording.startup_seconds,
        "source": recording.source,
    }


def _line(run: RecordedRun) -> dict[str, Any]:
    optional = {"seconds_std": run.seconds_std, "value_std": run.value_std, "end": run.end}
    return {
        "configuration": run.configuration.as_dict(),
        "data_fraction": run.data_fraction,
        "step_seconds": run.step_seconds,
        **{key: value for key, value in optional.items() if value is not None},
        "curve": [[seconds, _whole(step), value] for seconds, step, value in run.curve.tolist()],
    }


def _whole(step: float) -> float | int:
    return int(step) if step.is_integer() else step
