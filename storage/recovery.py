"""Recovery files: what was measured, if the study database could not store it or was lost.

A recovery file has one JSON object per line: first the format's version, then each study, followed by its
probes with all their slices, and by its predictions, fits and recommendations if the whole database was lost.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sqlalchemy import Connection, Engine, insert, select, text, update

from search_spaces import Configuration
from storage import probe_tables, rows
from storage.plain_data import decoded, encoded
from storage.tables import fits, predictions, probes, recommendations, slices, studies
from storage.transactions import writing
from tuner.domain.errors import StorageError
from tuner.domain.ledger import ProbeRecord, StudyRecord, free_name
from tuner.domain.measurement import Measurement, Outcome, Purpose

_VERSION = 1
_KEY = "paceline_recovery"
#: Columns of a slice that tell whether two slices are the same.
_TOTALS = ("training_seconds", "step", "samples", "charged_seconds")

#: Tables of what a search concluded. Their rows are written as they are, without the keys `_KEYS`.
_CONCLUSIONS = (predictions, fits, recommendations)
_KEYS = frozenset({"study_id", *(key.name for table in _CONCLUSIONS for key in table.primary_key)})

Measured = Sequence[tuple[StudyRecord, Sequence[ProbeRecord]]]
#: Maps the number of a study to objects with the name of a table and the columns of a row.
Concluded = Mapping[int, Sequence[Mapping[str, Any]]]


@dataclass(kw_only=True)
class Recovered:
    """What was added to a database from a recovery file.

    Args:
        num_studies: Number of studies that the database did not have.
        num_probes: Number of probes that it did not have.
        num_slices: Number of slices that it did not have.
    """

    num_studies: int = 0
    num_probes: int = 0
    num_slices: int = 0


def concluded(connection: Connection) -> Concluded:
    """Reads the predictions, fits and recommendations of all studies, for `write_recovery`."""
    found: dict[int, list[Mapping[str, Any]]] = {}
    for table in _CONCLUSIONS:
        for row in connection.execute(select(table).order_by(*table.primary_key)).mappings():
            values = {name: value for name, value in row.items() if name not in _KEYS}
            found.setdefault(row["study_id"], []).append({"table": table.name, "row": values})
    return found


def write_recovery(
    measured: Measured, folder: Path, name: str, conclusions: Concluded = MappingProxyType({})
) -> Path:
    """Writes a recovery file and returns its path. Existing files are not changed.

    Args:
        measured: Studies with their probes.
        folder: Folder for the file. If it cannot be written, the file is written to the working directory or
            to the folder for temporary files.
        name: Beginning of the file's name.
        conclusions: Result of `concluded`.

    Raises:
        StorageError: None of the folders can be written.
    """
    reason: OSError | None = None
    for place in (folder, Path.cwd(), Path(tempfile.gettempdir())):
        try:
            return _written(measured, place, name, conclusions)
        except OSError as error:
            reason = error
    raise StorageError(
        f"what was measured could not be saved to a recovery file in {folder}: {reason}"
    ) from reason


def _written(measured: Measured, folder: Path, name: str, conclusions: Concluded) -> Path:
    lines: list[dict[str, Any]] = [{_KEY: _VERSION}]
    for study, records in measured:
        lines.append({"study": _fields(study)})
        lines += [{"probe": _probe_fields(record)} for record in records]
        lines += [{"conclusion": row} for row in conclusions.get(study.study_id, ())]
    number = 1
    while True:
        path = folder / f"{name}.recovery-{number}.jsonl"
        try:
            with path.open("x", encoding="utf-8") as file:
                file.writelines(json.dumps(encoded(line)) + "\n" for line in lines)
                file.flush()
                os.fsync(file.fileno())
            return path.absolute()
        except FileExistsError:
            number += 1


def _fields(record: Any) -> dict[str, Any]:
    return {field.name: getattr(record, field.name) for field in fields(record)}


def _probe_fields(record: ProbeRecord) -> dict[str, Any]:
    names = ("probe_id", "trial_number", "reason", "created_at")
    return {
        **{name: getattr(record, name) for name in names},
        "configuration": record.configuration.key,
        "purpose": record.purpose.value,
        "outcome": record.outcome.value,
        "slices": [measurement.to_dict() for measurement in record.slices],
    }


def recover(engine: Engine, path: Path, clock: Callable[[], float] = time.time) -> Recovered:
    """Adds the contents of a recovery file to a database, in one transaction.

    Nothing is added twice, so the same file may be read again.

    Args:
        engine: Engine of a database whose tables have the newest revision.
        path: The recovery file.
        clock: Returns the time in seconds since the Unix epoch.

    Raises:
        StorageError: The file is not a recovery file, the database cannot be written, or another process is
            running one of the probes in the file.
    """
    contents = list(_read(path))
    added = Recovered()
    with writing(engine) as connection:
        for study, records, rows_of_study in contents:
            try:
                study_id = _add(connection, study, records, clock(), added)
                _add_conclusions(connection, study_id, rows_of_study)
            except (ArithmeticError, KeyError, TypeError, ValueError) as error:
                raise _unusable(path, error) from error
        if engine.dialect.name == "postgresql":
            newest = "(SELECT max(probe_id) FROM paceline_probes)"
            sequence = "pg_get_serial_sequence('paceline_probes', 'probe_id')"
            connection.execute(text(f"SELECT setval({sequence}, {newest})"))
    return added


def _read(path: Path) -> Iterator[tuple[dict[str, Any], list[ProbeRecord], list[dict[str, Any]]]]:
    """Yields each study of a recovery file as a dictionary, with its probes and its conclusions."""
    if path.exists() and not path.is_file():
        raise StorageError(f"{path} is no regular file; give the recovery file that the message names")
    try:
        with path.open(encoding="utf-8") as file:
            header, *lines = (decoded(json.loads(line)) for line in file)
        if header != {_KEY: _VERSION}:
            raise ValueError(f"its first line is {str(header)[:80]}")
        study, records, conclusions = None, list[ProbeRecord](), list[dict[str, Any]]()
        for line in lines:
            if "study" in line:
                if study is not None:
                    yield study, records, conclusions
                study, records, conclusions = line["study"], [], []
            elif "conclusion" in line:
                conclusions.append(line["conclusion"])
            else:
                records.append(_probe(line["probe"]))
        if study is not None:
            yield study, records, conclusions
    except OSError as error:
        raise StorageError(f"the recovery file {path} cannot be read: {error.strerror}") from error
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, error: Exception) -> StorageError:
    return StorageError(
        f"{path} is not a recovery file of this version of Paceline: {error}; give the file that the "
        "message about the lost database names"
    )


def _probe(data: Mapping[str, Any]) -> ProbeRecord:
    return ProbeRecord(
        probe_id=int(data["probe_id"]),
        study_id=0,
        configuration=Configuration.from_key(data["configuration"]),
        purpose=Purpose(data["purpose"]),
        trial_number=data["trial_number"],
        slices=tuple(Measurement.from_dict(measured) for measured in data["slices"]),
        outcome=Outcome(data["outcome"]),
        reason=str(data["reason"]),
        lease=None,
        created_at=float(data["created_at"]),
    )


def _add(
    connection: Connection, study: dict[str, Any], records: list[ProbeRecord], now: float, added: Recovered
) -> int:
    """Adds a study and its probes, unless the database has them already; returns the study's number."""
    same = [studies.c[name] == study[name] for name in ("job_name", "fingerprint", "created_at")]
    study_id = connection.execute(select(studies.c.study_id).where(*same)).scalars().first()
    if study_id is None:
        taken = set(connection.execute(select(studies.c.name)).scalars())
        name = study["name"] if study["name"] not in taken else free_name(study["job_name"], taken)
        values = {**study, "name": name}
        del values["study_id"]
        study_id = connection.execute(
            insert(studies).values(values).returning(studies.c.study_id)
        ).scalar_one()
        added.num_studies += 1
    stored = {
        (row.configuration, row.purpose, row.created_at): row
        for row in connection.execute(select(probes).where(probes.c.study_id == study_id))
    }
    numbers = {row.trial_number for row in stored.values()}
    shift = _shift(connection, [r.probe_id for r in records if _key(r) not in stored])
    for record in records:
        row = stored.get(_key(record))
        if row is None:
            values = {
                "probe_id": record.probe_id + shift,
                "study_id": study_id,
                "configuration": record.configuration.key,
                "purpose": record.purpose.value,
                "trial_number": None if record.trial_number in numbers else record.trial_number,
                "outcome": Outcome.PAUSED.value,
                "reason": "",
                "attempt": 1,
                "created_at": record.created_at,
            }
            row = connection.execute(insert(probes).values(values).returning(*probes.c)).one()
            added.num_probes += 1
        added.num_slices += _add_slices(connection, row, record, now)
    return int(study_id)


def _add_conclusions(connection: Connection, study_id: int, conclusions: list[dict[str, Any]]) -> None:
    """Adds the predictions, fits and recommendations of a study, unless the database has them."""
    for table in _CONCLUSIONS:
        found = [line["row"] for line in conclusions if line["table"] == table.name]
        if any(row.keys() != set(table.c.keys()) - _KEYS for row in found):
            raise ValueError(f"a row of {table.name} has other columns")
        times = select(table.c.created_at).where(table.c.study_id == study_id)
        stored = set(connection.execute(times).scalars())
        new = [{**row, "study_id": study_id} for row in found if row["created_at"] not in stored]
        if new:
            connection.execute(insert(table), new)


def _key(record: ProbeRecord) -> tuple[str, str, float]:
    return record.configuration.key, record.purpose.value, record.created_at


def _shift(connection: Connection, probe_ids: list[int]) -> int:
    """Returns the number to add to each probe id of a recovery file, so that no id is used twice.

    The folder of a probe is named by its id, so the ids stay the same if possible: then the result is 0.
    Otherwise, the result makes all ids larger than those in the file and in the database.
    """
    taken = set(connection.execute(select(probes.c.probe_id)).scalars())
    return max([*taken, *probe_ids]) if taken & set(probe_ids) else 0


def _add_slices(connection: Connection, row: Any, record: ProbeRecord, now: float) -> int:
    """Adds the slices in a recovery file that a stored probe does not have yet; returns their number.

    Nothing is added if the stored probe has ended, or if its slices differ from those in the file, because
    another process has resumed it.

    Args:
        connection: Connection with an open transaction.
        row: Row of the probe in the database.
        record: The same probe in the recovery file.
        now: Present time in seconds since the Unix epoch, to tell whether the probe's lease is valid.
    """
    statement = select(slices).where(slices.c.probe_id == row.probe_id).order_by(slices.c.slice_index)
    stored = [tuple(getattr(s, name) for name in _TOTALS) for s in connection.execute(statement)]
    totals = [tuple(rows.slice_row(m)[name] for name in _TOTALS) for m in record.slices]
    missing = record.slices[len(stored) :]
    ended = row.outcome != Outcome.PAUSED.value
    if ended or stored != totals[: len(stored)] or (not missing and record.outcome is Outcome.PAUSED):
        return 0
    if row.lease_expires_at is not None and row.lease_expires_at > now:
        raise StorageError(
            f"probe {row.probe_id} of the database is in use by {row.lease_owner}, so nothing was recovered. "
            f"End that process, or wait {row.lease_expires_at - now:.0f} s if it was killed, and try again"
        )
    for index, measurement in enumerate(missing, start=len(stored)):
        probe_tables.insert_slice(
            connection, measurement, probe_id=row.probe_id, slice_index=index, attempt=row.attempt, now=now
        )
    changed = {"outcome": record.outcome.value, "reason": rows.clean_text(record.reason)}
    freed = {"lease_owner": None, "lease_expires_at": None}
    connection.execute(update(probes).where(probes.c.probe_id == row.probe_id).values(**changed, **freed))
    return len(missing)
