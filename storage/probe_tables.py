"""Probes, their leases and their slices in SQL."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Update, func, insert, or_, select, update

from storage import rows
from storage.tables import curve_points, probes, slices
from tuner.domain.errors import LeaseLostError, StorageError
from tuner.domain.measurement import Measurement, Outcome
from tuner.ledger import Lease, LeaseState, ProbeRecord

_ONGOING = probes.c.outcome == str(Outcome.PAUSED)
_NO_LEASE = {"lease_owner": None, "lease_expires_at": None}


def take(connection: Connection, probe_id: int, owner: str, now: float, expires_at: float) -> Lease:
    """Leases a probe if nobody else holds it, in one compare-and-set.

    Raises:
        LeaseLostError: Another worker holds it, or it has ended.
    """
    free = or_(
        probes.c.lease_owner.is_(None), probes.c.lease_owner == owner, probes.c.lease_expires_at <= now
    )
    statement = (
        update(probes)
        .where(probes.c.probe_id == probe_id, _ONGOING, free)
        .values(lease_owner=owner, lease_expires_at=expires_at, attempt=probes.c.attempt + 1)
        .returning(probes.c.attempt)
    )
    attempt = connection.execute(statement).scalar_one_or_none()
    if attempt is None:
        refusal = _state(connection, probe_id).why_not_taken(owner, now)
        raise LeaseLostError(refusal or f"probe {probe_id} was taken by another worker just now")
    return Lease(probe_id=probe_id, owner=owner, attempt=attempt, expires_at=expires_at)


def change_under(lease: Lease, **values: Any) -> Update:
    """An update of a probe that finds its row only while the lease holds."""
    return (
        update(probes)
        .where(
            probes.c.probe_id == lease.probe_id,
            probes.c.attempt == lease.attempt,
            probes.c.lease_owner == lease.owner,
            _ONGOING,
        )
        .values(**values)
    )


def must_change(connection: Connection, lease: Lease, **values: Any) -> None:
    """Changes a probe under its lease.

    Raises:
        LeaseLostError: The lease is no longer valid.
    """
    if connection.execute(change_under(lease, **values)).rowcount != 1:
        refusal = _state(connection, lease.probe_id).why_lost(lease)
        raise LeaseLostError(refusal or f"the lease on probe {lease.probe_id} was lost just now")


def give_back(connection: Connection, lease: Lease) -> None:
    """Gives a lease back if it is still valid."""
    connection.execute(change_under(lease, **_NO_LEASE))


def end(connection: Connection, probe_id: int, outcome: Outcome, reason: str) -> None:
    """Ends a probe unless it has ended already."""
    statement = (
        update(probes)
        .where(probes.c.probe_id == probe_id, _ONGOING)
        .values(outcome=str(outcome), reason=rows.clean_text(reason), **_NO_LEASE)
    )
    if connection.execute(statement).rowcount != 1:
        _state(connection, probe_id)


def append(connection: Connection, lease: Lease, measurement: Measurement, now: float) -> None:
    """Adds a slice with its curve under a lease; an end releases the lease.

    The update comes first: it checks the lease and holds the probe's row until the commit, so that
    two slices never get the same index.

    Raises:
        LeaseLostError: The lease is no longer valid.
    """
    values: dict[str, Any] = {"outcome": str(measurement.outcome)}
    if not measurement.outcome.can_continue:
        values |= {"reason": rows.clean_text(measurement.error or ""), **_NO_LEASE}
    must_change(connection, lease, **values)
    counted = select(func.count()).select_from(slices).where(slices.c.probe_id == lease.probe_id)
    index = connection.execute(counted).scalar_one()
    keys = {"probe_id": lease.probe_id, "slice_index": index}
    connection.execute(
        insert(slices),
        {**keys, "attempt": lease.attempt, "finished_at": now, **rows.slice_row(measurement)},
    )
    points = rows.curve_rows(measurement)
    if points:
        owning = select(probes.c.study_id).where(probes.c.probe_id == lease.probe_id)
        keys["study_id"] = connection.execute(owning).scalar_one()
        connection.execute(insert(curve_points), [{**keys, **point} for point in points])


def of_study(study_id: int) -> ColumnElement[bool]:
    """The probes of one study."""
    return probes.c.study_id == study_id


def load(connection: Connection, condition: ColumnElement[bool], now: float) -> list[ProbeRecord]:
    """Probes with their slices and curves, oldest first, in three statements."""
    chosen = select(probes.c.probe_id).where(condition)
    points: dict[tuple[int, int], list[Row[Any]]] = defaultdict(list)
    for point in connection.execute(
        select(curve_points)
        .where(curve_points.c.probe_id.in_(chosen))
        .order_by(curve_points.c.probe_id, curve_points.c.slice_index, curve_points.c.point_index)
    ):
        points[point.probe_id, point.slice_index].append(point)
    found: dict[int, list[Measurement]] = defaultdict(list)
    for row in connection.execute(
        select(slices).where(slices.c.probe_id.in_(chosen)).order_by(slices.c.probe_id, slices.c.slice_index)
    ):
        found[row.probe_id].append(rows.measurement(row, points[row.probe_id, row.slice_index]))
    records = connection.execute(select(probes).where(condition).order_by(probes.c.probe_id))
    return [rows.probe(row, found[row.probe_id], now) for row in records]


def _state(connection: Connection, probe_id: int) -> LeaseState:
    row = connection.execute(select(probes).where(probes.c.probe_id == probe_id)).one_or_none()
    if row is None:
        raise StorageError(f"there is no probe {probe_id} in this ledger; start the probe first")
    return rows.lease_state(row)
