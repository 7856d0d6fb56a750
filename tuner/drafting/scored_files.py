"""Finds scores in the files that a script writes: CSV, lines of JSON, TensorBoard event files."""

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

from tuner.drafting.metric_names import Meaning, meaning_of
from tuner.drafting.readings import Reading

_MOST_BYTES = 2**26
#: A number in a folder's name that each start raises, as Lightning's `version_0`.
_COUNTED = re.compile(
    r"((?:version|run|exp|train|trial|lightning)[_-]?)\d+(?=/)|\d{4}-\d\d-\d\d(?=/)|\d\d-\d\d-\d\d(?=/)"
)


#: A name that no second start gives: with a date, a time in seconds, or a number that is counted up.
_DATED = re.compile(r"\d{6,}|\d{4}-\d\d-\d\d|[A-Z][a-z]{2}\d\d_\d\d|(version|run|exp)_?\d+$")


def read_files(paths: Mapping[Path, str]) -> list[Reading]:
    """Every way to read scores from files, the most telling score first.

    Args:
        paths: File that a run wrote, to what stands for it in a job file.
    """
    found: list[Reading] = []
    event_folders: dict[str, Path] = {}
    for path, written in paths.items():
        if "tfevents" in path.name:
            event_folders.setdefault(str(Path(written).parent), path.parent)
        elif path.suffix.lower() in (".csv", ".tsv") and _is_small(path):
            found += _of_rows("csv", _csv_rows(path), _pattern_of(written))
        elif path.suffix.lower() in (".json", ".jsonl", ".ndjson", ".log", ".txt") and _is_small(path):
            found += _of_rows("json", _json_rows(path), written)
    for folder, path in event_folders.items():
        found += _of_events(path, folder)
    return sorted(found, key=lambda one: one.rank)


def read_reports(path: Path) -> list[Reading]:
    """The scores that a script reports by `paceline_client`; none if it reports nothing.

    Args:
        path: The file that it reports to.
    """
    if not _is_small(path):
        return []
    rows = [row for row in _json_rows(path) if "value" in row and ("step" in row or "samples" in row)]
    values = [number for row in rows if (number := _number(row["value"])) is not None]
    if not values:
        return []
    # What the value is, the reports do not say.
    rises = values[-1] >= values[0]
    is_share = all(0.0 <= value <= 1.0 for value in values)
    metric = "accuracy" if rises and is_share else "score" if rises else "loss"
    meaning = Meaning(metric=metric, direction="maximize" if rises else "minimize")
    return [
        Reading(
            source="json",
            meaning=meaning,
            label="value",
            values=tuple(values),
            fields=frozenset({"samples" if "samples" in rows[0] else "step"}),
            examples=("paceline_client.report(value=...)",),
            rank=-1000,
            is_named=False,
        )
    ]


def _is_small(path: Path) -> bool:
    try:
        return 0 < path.stat().st_size <= _MOST_BYTES
    except OSError:
        return False


def _pattern_of(written: str) -> str:
    """A path whose counted folders are stars: `version_*/metrics.csv`."""
    return _COUNTED.sub(lambda found: f"{found[1] or ''}*", written)


def _csv_rows(path: Path) -> list[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8", errors="replace", newline="") as file:
            return [{str(k).strip(): v for k, v in row.items() if k} for row in csv.DictReader(file)]
    except (OSError, csv.Error):
        return []


def _json_rows(path: Path) -> list[dict[str, Any]]:
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.lstrip().startswith("{"):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                continue
            rows.append(row)
    return rows


def _of_rows(source: Literal["csv", "json"], rows: Sequence[Mapping[str, Any]], path: str) -> list[Reading]:
    columns: dict[str, list[tuple[int, float]]] = {}
    for i, row in enumerate(rows):
        for name, value in row.items():
            number = _number(value)
            if number is not None:
                columns.setdefault(name, []).append((i, number))
    return list(_readings(source, columns, path))


def _readings(
    source: Literal["csv", "json"], columns: Mapping[str, Sequence[tuple[int, float]]], path: str
) -> Iterator[Reading]:
    meanings = {name: meaning_of(name) for name in columns}
    places: dict[str, str] = {}
    for name, meaning in meanings.items():
        if meaning is not None and meaning.field is not None:
            places.setdefault(meaning.field, name)
    for name, meaning in meanings.items():
        if meaning is None or meaning.field is not None:
            continue
        rows = {i for i, _ in columns[name]}
        place = _place(places, columns, rows)
        if place is None:
            continue
        keys = [("value", name), *((field, column) for field, column in place.items() if field != column)]
        yield Reading(
            source=source,
            meaning=meaning,
            label=name,
            values=tuple(value for _, value in columns[name]),
            path=path,
            columns=tuple((key, column) for key, column in keys if key != column),
            fields=frozenset(place),
            examples=(f"column {name} with {', '.join(place.values())}",),
            # A file that names its columns is surer than a line of output, whatever else is equal, unless
            # all runs write the same one.
            rank=10 * meaning.rank - (5 if len(columns[name]) > 1 else -40) + (0 if "{" in path else 20),
        )


def _place(
    places: Mapping[str, str], columns: Mapping[str, Sequence[tuple[int, float]]], rows: set[int]
) -> dict[str, str] | None:
    """The columns that say where scores belong: steps or samples that rise, else epochs."""
    for field in ("samples", "step", "epoch"):
        column = places.get(field)
        if column is None:
            continue
        values = [value for i, value in columns[column] if i in rows]
        rises = all(a <= b for a, b in itertools.pairwise(values))
        if len(values) == len(rows) and rises and (len(values) < 2 or values[-1] > values[0]):
            return {field: column}
    return None


def _of_events(folder: Path, written: str) -> list[Reading]:
    if importlib.util.find_spec("tensorboard") is None:
        return []
    from tensorboard.backend.event_processing import event_accumulator

    reader = event_accumulator.EventAccumulator(
        str(folder), size_guidance={event_accumulator.SCALARS: 0, event_accumulator.TENSORS: 0}
    )
    try:
        reader.Reload()
    except Exception:  # whatever the package raises for a file that it cannot read
        return []
    found = []
    for tag in reader.Tags()[event_accumulator.SCALARS]:
        meaning = meaning_of(tag)
        if meaning is None or meaning.field is not None:
            continue
        events = reader.Scalars(tag)
        found.append(_event_reading(tag, meaning, [event.value for event in events], written))
    return found


def _event_reading(tag: str, meaning: Meaning, values: Sequence[float], written: str) -> Reading:
    return Reading(
        source="tensorboard",
        meaning=meaning,
        label=tag,
        values=tuple(values),
        path=_without_dates(written),
        columns=(("value", tag),),
        fields=frozenset({"step"}),
        examples=(f"scalar {tag}",),
        rank=10 * meaning.rank + (3 if len(values) > 1 else 40) + (0 if "{" in written else 20),
    )


def _without_dates(folder: str) -> str:
    """A folder of event files, or the one above it where each start makes a new one."""
    parts = list(Path(folder).parts)
    while len(parts) > 1 and _DATED.search(parts[-1]):
        parts.pop()
    return str(Path(*parts))


def _number(value: object) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
