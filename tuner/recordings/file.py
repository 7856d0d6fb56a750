"""Reads, checks and writes recording files (JSON lines, gzipped or not)."""

from __future__ import annotations

import difflib
import gzip
import hashlib
import json
import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from search_spaces import Configuration
from tuner.domain.cluster import Machine
from tuner.domain.errors import JobError
from tuner.domain.metric_files import read_lines
from tuner.domain.output_file import unwritable, write_output
from tuner.recordings.recording import Array, RecordedRun, Recording

#: Limits of a recording file: bytes of the file without compression, bytes of a line, number of runs, and
#: number of axes (parameters) of a configuration.
MOST_BYTES, MOST_LINE_BYTES, MOST_RUNS, MOST_AXES = 128 * 2**20, 8 * 2**20, 20_000, 100
#: Limits of the values in a recording: absolute value of a number, whole number, and characters of a text.
#: Products of two such numbers are still finite floats.
_LARGEST, _LARGEST_COUNT, _LONGEST_TEXT = 1e30, 2**40, 10_000
#: At most this many unknown keys of an object are compared with the known keys, to find misspellings.
_MOST_UNKNOWN = 100
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
    """Reads and checks a recording file.

    The result is cached until the file changes. Unknown keys are ignored, so a recording may contain
    notes; but a key that looks like a misspelled known key is an error.

    Args:
        path: Path of a file of JSON lines, gzipped or not.

    Raises:
        JobError: The file cannot be read, or is not a valid recording. The message states the file, the
            line, the key, the allowed values and the remedy.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise JobError(
            f"{path}: the recording cannot be read: {error.strerror}; give the path of a file that "
            "`paceline record` wrote (.jsonl.gz)"
        ) from error
    return _loaded(path.resolve(), path, found.st_mtime_ns, found.st_size)


def write_recording(recording: Recording, path: Path) -> None:
    """Writes a recording as a gzipped file of JSON lines; an interrupted write leaves no partial file.

    Args:
        recording: The recording to write.
        path: Path of the new file. A missing folder is created, and an existing file is replaced.

    Raises:
        StorageError: The file cannot be written.
    """
    lines = [_header(recording), *(_line(run) for run in recording.runs)]
    text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error
    # Without a time stamp, equal recordings give identical files.
    write_output(path, gzip.compress(text.encode(), mtime=0))


@lru_cache(maxsize=8)
def _loaded(resolved: Path, path: Path, modified: int, size: int) -> Recording:
    del modified, size  # only part of the cache key: a changed file is read again
    digest = hashlib.sha256()
    lines = _lines(resolved, path, digest.update)
    first = next(lines, None)
    if first is None:
        raise JobError(f"{path}: the file is empty; name another, or write one with `paceline record`")
    header = Line.parse(path, *first)
    header.refuse_misspelled(_HEADER_KEYS)
    columns = _columns(header)
    machines = _machines(header)
    direction = header.one_of("direction", ("maximize", "minimize"))
    runs = _runs(path, lines, columns, machines)
    if not runs:
        raise JobError(f"{path}: has a header but no run; add one line for each run")
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
        digest=digest.hexdigest()[:16],
    )


def _lines(resolved: Path, path: Path, add: Callable[[bytes], None]) -> Iterator[tuple[int, str]]:
    """Yields the number and the text of each line that is not empty.

    Args:
        resolved: Absolute path of the recording file, to read it.
        path: Path of the recording file as the user wrote it, for messages.
        add: Function that is called with the bytes of each line, to compute the digest of the file.

    Raises:
        JobError: The file cannot be read, is damaged or exceeds a limit of size.
    """
    if not resolved.is_file():
        raise JobError(f"{path}: is not a regular file; give the path of a file that `paceline record` wrote")
    number, num_bytes = 0, 0
    try:
        with resolved.open("rb") as plain:
            is_zipped = plain.read(2) == b"\x1f\x8b"
            plain.seek(0)
            file: Any = gzip.GzipFile(fileobj=plain) if is_zipped else plain
            for number, line in enumerate(read_lines(file, MOST_LINE_BYTES), 1):
                num_bytes += len(line)
                too_large = (
                    f"has more than {MOST_LINE_BYTES // 2**20} MiB"
                    if len(line) > MOST_LINE_BYTES
                    else f"the file has more than {MOST_BYTES // 2**20} MiB (uncompressed) up to here"
                    if num_bytes > MOST_BYTES
                    else f"the file has more than {MOST_RUNS} runs"
                    if number > MOST_RUNS + 1
                    else ""
                )
                if too_large:
                    raise JobError(
                        f"{path}, line {number}: {too_large}, which is the limit; record fewer runs, or "
                        "fewer evaluations of each run"
                    )
                add(line)
                if line.strip():
                    yield number, line.decode("utf-8")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise JobError(f"{path}: is not a whole gzip file: {error}; write or fetch it again") from error
    except UnicodeDecodeError as error:
        raise JobError(
            f"{path}, line {number}: is not text in UTF-8: {error.reason} at byte {error.start} of the line; "
            "save it as JSON lines in UTF-8, gzipped or not"
        ) from error
    except OSError as error:
        raise JobError(f"{path}: the recording cannot be read: {error.strerror}") from error


def _columns(header: Line) -> list[int]:
    """Returns the indices of seconds, step and value in each row of a curve, as the header states them."""
    names = header.value("curve")
    if not isinstance(names, list) or not set(_COLUMNS) <= set(map(str, names)):
        raise header.problem("curve", f"must be a list of column names with {', '.join(_COLUMNS)}")
    return [names.index(name) for name in _COLUMNS]


def _machines(header: Line) -> dict[str, Machine]:
    tables = header.value("machines", default={})
    if not isinstance(tables, Mapping):
        raise header.problem("machines", "must map machine types to objects with cores and dollars_per_hour")
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
    path: Path, lines: Iterable[tuple[int, str]], columns: Sequence[int], machines: Mapping[str, Machine]
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
                "configuration", f"line {before} has the same configuration and data_fraction; remove one"
            )
        known = axes.setdefault(configuration.strategy, set(configuration))
        if known != set(configuration):
            odd = ", ".join(sorted(known ^ set(configuration)))
            raise line.problem(
                "configuration",
                f"the runs of one strategy must have the same axes, but earlier lines differ in {odd}; "
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


_KEYS = (
    "configuration",
    "data_fraction",
    "step_seconds",
    "seconds_std",
    "value_std",
    "end",
    "curve",
)


def run_of_line(line: Line, columns: Sequence[int], machines: Mapping[str, Machine]) -> RecordedRun:
    """Converts one line of a recording file to a run.

    Args:
        line: The parsed line of the file.
        columns: Indices of seconds, step and value in each row of the curve.
        machines: Machine types that the header of the file defines, by name.

    Raises:
        JobError: The line violates the file format.
    """
    line.refuse_misspelled(_KEYS)
    return RecordedRun(
        configuration=_configuration(line, machines),
        data_fraction=line.number("data_fraction", above=0.0, at_most=1.0, default=1.0),
        step_seconds=line.number("step_seconds", above=0.0),
        curve=_curve(line, columns),
        end=line.text("end", default="") or None,
        seconds_std=line.optional_number("seconds_std", at_least=0.0),
        value_std=line.optional_number("value_std", at_least=0.0),
    )


def _configuration(line: Line, machines: Mapping[str, Machine]) -> Configuration:
    inner = line.inside("configuration", line.value("configuration"))
    axes: dict[str, Any] = dict(inner.data)
    if not 1 <= len(axes) <= MOST_AXES:
        raise line.problem("configuration", f"must have from 1 to {MOST_AXES} axes, not {len(axes)}")
    for axis in ("nodes", "batch_size"):
        if axis in axes:
            axes[axis] = inner.count(axis, at_least=1)
    if "learning_rate" in axes:
        axes["learning_rate"] = inner.number("learning_rate", at_least=1 / _LARGEST)
    if "strategy" in axes:
        axes["strategy"] = inner.text("strategy")
    for axis, value in axes.items():
        if not isinstance(value, str | int | float | bool):
            raise inner.problem(axis, "must be a string, a number, true or false")
        if isinstance(value, str):
            inner.text(axis)
        elif not isinstance(value, bool):
            inner.number(axis)
    if "machine" in axes and machines:
        name = inner.text("machine")
        if name not in machines:
            near = difflib.get_close_matches(name, machines, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise inner.problem(
                "machine", f"must be one of the header's machines: {', '.join(machines)}{hint}"
            )
    elif len(machines) > 1:
        raise inner.problem("machine", f"is missing: state one of {', '.join(machines)}, as in the header")
    try:
        return Configuration(axes)
    except ValueError as error:
        raise line.problem("configuration", f"{error}") from error


def _curve(line: Line, columns: Sequence[int]) -> Array:
    rows = line.value("curve")
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise line.problem("curve", "must be a list of rows, which are lists of numbers")
    if not rows:
        return np.zeros((0, 3))
    try:
        curve = np.array([[row[i] for i in columns] for row in rows], dtype=float)
    except (IndexError, TypeError, ValueError, OverflowError):
        raise line.problem("curve", "every row must have a number for each column of the header") from None
    if not (np.abs(curve) <= _LARGEST).all():
        raise line.problem(
            "curve",
            f"must have finite numbers only, up to {_LARGEST:g}; leave out evaluations with NaN, infinity or "
            "larger numbers, and state in the key `end` why the run stopped",
        )
    if (curve[0, :2] < 0).any() or (np.diff(curve[:, 0]) < 0).any() or (np.diff(curve[:, 1]) <= 0).any():
        raise line.problem("curve", "from row to row, seconds must not decrease and steps must increase")
    return curve


_LONGEST_VALUE = 60
_ABSENT = object()


@dataclass(frozen=True, kw_only=True)
class Line:
    """A JSON object in a recording file: a whole line, or an object nested in a line.

    The methods read and check values; their error messages state the file, the line and the key.

    Args:
        path: Path of the recording file.
        line_number: Number of the line in the file, from 1.
        data: The parsed JSON object.
        above: Key of the nested object in its line, for messages; empty if the object is the whole line.
    """

    path: Path
    line_number: int
    data: Mapping[str, Any]
    above: str = ""

    @classmethod
    def parse(cls, path: Path, line_number: int, text: str) -> Line:
        """Parses a line of text.

        Raises:
            JobError: The text is not a JSON object.
        """
        try:
            data = json.loads(text)
        except ValueError as error:
            raise JobError(
                f"{path}, line {line_number}: is not JSON: {error}; write one object in each line"
            ) from None
        except RecursionError:
            raise JobError(
                f"{path}, line {line_number}: is nested too deeply; write one object in each line"
            ) from None
        if not isinstance(data, dict):
            raise JobError(f"{path}, line {line_number}: must be a JSON object, not {_spelled(data)}")
        return cls(path=path, line_number=line_number, data=data)

    def inside(self, key: str, data: Any) -> Line:
        """Returns a nested object (the value of a key) as a `Line`, to check its keys and values too.

        Raises:
            JobError: The value is not a JSON object.
        """
        if not isinstance(data, dict):
            raise self.problem(key, f"must be an object, not {_spelled(data)}")
        return Line(path=self.path, line_number=self.line_number, data=data, above=self._key(key))

    def problem(self, key: str, words: str) -> JobError:
        """Returns an error whose message starts with the file, the line and the key."""
        return JobError(f"{self.path}, line {self.line_number}: {self._key(key)}: {words}")

    def refuse_misspelled(self, known: Sequence[str]) -> None:
        """Checks that no key is a misspelling of a known key.

        Raises:
            JobError: An unknown key resembles a known key that the object lacks.
        """
        absent = [key for key in known if key not in self.data]
        unknown = [key for key in self.data if key not in known and len(key) <= 2 * max(map(len, known))]
        for key in unknown[:_MOST_UNKNOWN]:
            near = difflib.get_close_matches(key, absent, n=1, cutoff=0.8)
            if near:
                raise self.problem(key, f"is unknown; did you mean {near[0]!r}? Known are {', '.join(known)}")

    def value(self, key: str, default: Any = _ABSENT) -> Any:
        """Returns the value of a key, or the default if the key is absent.

        Raises:
            JobError: The key is absent and has no default.
        """
        if key in self.data:
            return self.data[key]
        if default is _ABSENT:
            raise self.problem(key, "is missing; it is required")
        return default

    def text(self, key: str, default: Any = _ABSENT) -> str:
        """Returns the value of a key that must be a string."""
        value = self.value(key, default)
        if not isinstance(value, str) or len(value) > _LONGEST_TEXT:
            limit = f"a string of at most {_LONGEST_TEXT} characters"
            raise self.problem(key, f"must be {limit}, not {_spelled(value)}")
        return value

    def one_of(self, key: str, allowed: Sequence[str], default: Any = _ABSENT) -> str:
        """Returns the value of a key that must be one of the allowed strings."""
        value = self.value(key, default)
        if value not in allowed:
            listed = " or ".join(repr(word) for word in allowed)
            raise self.problem(key, f"must be {listed}, not {_spelled(value)}")
        return str(value)

    def count(self, key: str, *, at_least: int, default: Any = _ABSENT) -> int:
        """Returns the value of a key that must be a whole number, `at_least` or larger."""
        value = self.value(key, default)
        if not _is_finite(value) or not float(value).is_integer() or not at_least <= value <= _LARGEST_COUNT:
            allowed = f"a whole number from {at_least} to {_LARGEST_COUNT}"
            raise self.problem(key, f"must be {allowed}, not {_spelled(value)}")
        return int(value)

    def optional_number(self, key: str, *, at_least: float) -> float | None:
        """Returns the value of a key that must be a number; None if the key is absent."""
        return self.number(key, at_least=at_least) if key in self.data else None

    def number(
        self,
        key: str,
        *,
        at_least: float = -math.inf,
        above: float = -math.inf,
        at_most: float = math.inf,
        default: Any = _ABSENT,
    ) -> float:
        """Returns the value of a key that must be a finite number within the given bounds."""
        value = self.value(key, default)
        is_large = _is_finite(value) and abs(value) > _LARGEST
        if not _is_finite(value) or value < at_least or value <= above or value > at_most or is_large:
            bounds = [
                f"{words} {bound:g}"
                for words, bound in (("at least", at_least), ("above", above), ("at most", at_most))
                if math.isfinite(bound)
            ]
            if is_large:
                bounds.append(f"at most {_LARGEST:g} in absolute value")
            allowed = f" {' and '.join(bounds)}" if bounds else ""
            raise self.problem(key, f"must be a finite number{allowed}, not {_spelled(value)}")
        return float(value)

    def _key(self, key: str) -> str:
        return f"{self.above}.{key}" if self.above else key


def _is_finite(value: Any) -> bool:
    """Whether a value is a number, not a boolean, that a finite float can represent."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


def _spelled(value: Any) -> str:
    try:
        words = json.dumps(value, default=str)
    except RecursionError:
        words = "a deeply nested value"
    return words if len(words) <= _LONGEST_VALUE else words[: _LONGEST_VALUE - 3] + "..."
