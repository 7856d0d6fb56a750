"""The slices of remote trainers in a SQL database."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Engine, Row, and_, insert, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from storage.job_rows import fence
from storage.retries import Retries
from storage.service_tables import remote_reports, remote_slices
from storage.transactions import reading, writing
from tuner.domain.job_queue import JobLease, NotFoundError
from tuner.domain.remote_slices import Answer, RemoteLine, RemoteSlice, SliceEnd, SliceState

_OPEN = (str(SliceState.OFFERED), str(SliceState.LEASED))


class SqlRemoteSlices:
    """Stores slices in a SQL database; implements `tuner.domain.remote_slices.RemoteSlices`.

    Args:
        engine: Engine of a SQLite or PostgreSQL database.
        clock: Returns the time in seconds since the Unix epoch. The clocks of the hosts must not differ by
            more than a fraction of the duration of a lease.
        retries: Repeats operations while the database is locked or cannot be reached.
    """

    def __init__(
        self, engine: Engine, clock: Callable[[], float] = time.time, retries: Retries | None = None
    ):
        self._engine = engine
        self._clock = clock
        self._retries = retries or Retries(engine.url)
        #: After an outage, in which trainers could not report, no lease ends before this time.
        self._cautious_until = 0.0
        again = self._retries.wrapped
        for name in ("withdraw", "withdraw_all", "slice", "take", "report", "finish"):
            setattr(self, name, again(getattr(self, name)))

    def offer(
        self, lease: JobLease, probe: str, instructions: Mapping[str, Any], *, lease_seconds: float
    ) -> int:
        values = {
            "job_id": lease.job_id,
            "probe": probe,
            "state": str(SliceState.OFFERED),
            "request": str(Answer.CONTINUE),
            "instructions": dict(instructions),
            "outcome": {},
            "trainer": "",
            "last_number": 0,
            "num_read": 0,
            "lease_seconds": lease_seconds,
            "created_at": self._clock(),
        }

        def offered(again: bool) -> int:
            with writing(self._engine) as connection:
                fence(connection, lease)
                if again:
                    same = [
                        remote_slices.c[name] == values[name] for name in ("job_id", "probe", "created_at")
                    ]
                    found = connection.execute(select(remote_slices.c.slice_id).where(*same)).scalar()
                    if found is not None:
                        return int(found)
                added = insert(remote_slices).values(**values).returning(remote_slices.c.slice_id)
                return int(connection.execute(added).scalar_one())

        return self._retries.repeat(offered)

    def follow(
        self, slice_id: int, *, after: int, num_read: int, stop: bool
    ) -> tuple[RemoteSlice, list[RemoteLine]]:
        return self._retries.repeat(
            lambda again: self._followed(slice_id, after=after, num_read=num_read, stop=stop, again=again)
        )

    def _followed(
        self, slice_id: int, *, after: int, num_read: int, stop: bool, again: bool
    ) -> tuple[RemoteSlice, list[RemoteLine]]:
        found, lines = self._read_lines(slice_id, after)
        now = self._clock()
        if again:
            self._cautious_until = now + found.lease_seconds
        is_late = found.lease_expires_at is not None and found.lease_expires_at <= now
        expired = is_late and now >= self._cautious_until
        changes: dict[str, Any] = {}
        if found.num_read != num_read:
            changes["num_read"] = num_read
        if stop and found.request is not Answer.STOP:
            changes["request"] = str(Answer.STOP)
        if found.state is SliceState.ENDED or not (changes or expired):
            return found, lines
        with writing(self._engine) as connection:
            found = _locked(connection, slice_id)
            is_late = found.lease_expires_at is not None and found.lease_expires_at <= now
            if found.state is SliceState.LEASED and is_late and expired:
                words = f"the trainer {found.trainer} reported nothing for {found.lease_seconds:g} s"
                changes |= _ended(found, SliceEnd.LOST, words)
            if changes:
                _change(connection, slice_id, changes)
        # A line may have been added in between, and then the state is newer than the lines.
        return self._read_lines(slice_id, after)

    def _read_lines(self, slice_id: int, after: int) -> tuple[RemoteSlice, list[RemoteLine]]:
        wanted = select(remote_reports.c.number, remote_reports.c.created_at, remote_reports.c.data)
        wanted = wanted.where(remote_reports.c.slice_id == slice_id, remote_reports.c.number > after)
        with reading(self._engine) as connection:
            found = _found(connection, slice_id)
            if found.last_number <= after:
                return found, []
            rows = connection.execute(wanted.order_by(remote_reports.c.number))
            return found, [RemoteLine(**row._mapping) for row in rows]

    def withdraw(self, slice_id: int) -> None:
        with writing(self._engine) as connection:
            found = _locked(connection, slice_id)
            if found.state is not SliceState.ENDED:
                _change(connection, slice_id, _ended(found, SliceEnd.WITHDRAWN, ""))

    def withdraw_all(self, lease: JobLease) -> int:
        is_open = and_(remote_slices.c.job_id == lease.job_id, remote_slices.c.state.in_(_OPEN))
        with writing(self._engine) as connection:
            fence(connection, lease)
            numbers = list(connection.execute(select(remote_slices.c.slice_id).where(is_open)).scalars())
            for number in numbers:
                found = _locked(connection, number)
                _change(connection, number, _ended(found, SliceEnd.WITHDRAWN, "another worker took the job"))
        return len(numbers)

    def slice(self, slice_id: int) -> RemoteSlice:
        with reading(self._engine) as connection:
            return _found(connection, slice_id)

    def take(self, job_id: int, trainer: str) -> RemoteSlice | None:
        of_job = remote_slices.c.job_id == job_id
        own = and_(
            of_job, remote_slices.c.state == str(SliceState.LEASED), remote_slices.c.trainer == trainer
        )
        offered = and_(of_job, remote_slices.c.state == str(SliceState.OFFERED))
        with reading(self._engine) as connection:
            # Most trainers wait, and waiting needs no write transaction.
            if connection.execute(select(remote_slices.c.slice_id).where(or_(own, offered))).first() is None:
                return None
        with writing(self._engine) as connection:
            for condition in (own, offered):
                wanted = select(remote_slices).where(condition).order_by(remote_slices.c.slice_id).limit(1)
                row = connection.execute(wanted.with_for_update(skip_locked=True)).first()
                if row is not None:
                    expires_at = self._clock() + row.lease_seconds
                    changes = {
                        "state": str(SliceState.LEASED),
                        "trainer": trainer,
                        "lease_expires_at": expires_at,
                    }
                    _change(connection, row.slice_id, changes)
                    return _found(connection, row.slice_id)
        return None

    def report(
        self, slice_id: int, number: int, lines: Sequence[Mapping[str, Any]], *, checkpoint: str | None = None
    ) -> Answer:
        now = self._clock()
        rows = [
            {"slice_id": slice_id, "number": number + place, "created_at": now, "data": dict(line)}
            for place, line in enumerate(lines)
        ]
        with writing(self._engine) as connection:
            found = _locked(connection, slice_id)
            if found.state is not SliceState.LEASED:
                return Answer.LOST
            if rows:
                dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
                connection.execute(dialect.insert(remote_reports).on_conflict_do_nothing(), rows)
            changes: dict[str, Any] = {
                "lease_expires_at": now + found.lease_seconds,
                "last_number": max(found.last_number, number + len(rows) - 1),
            }
            if checkpoint is not None:
                changes["outcome"] = {"checkpoint": checkpoint}
            _change(connection, slice_id, changes)
            return found.request

    def finish(
        self, slice_id: int, end: SliceEnd, *, checkpoint: str | None = None, reason: str = ""
    ) -> Answer:
        with writing(self._engine) as connection:
            found = _locked(connection, slice_id)
            if found.state is SliceState.LEASED:
                _change(connection, slice_id, _ended(found, end, reason, checkpoint))
                return Answer.CONTINUE
            return Answer.CONTINUE if found.end is end else Answer.LOST


def _ended(found: RemoteSlice, end: SliceEnd, reason: str, checkpoint: str | None = None) -> dict[str, Any]:
    """Returns the changes that end a slice."""
    outcome = {
        "end": str(end),
        "reason": reason,
        "checkpoint": found.checkpoint if checkpoint is None else checkpoint,
    }
    return {"state": str(SliceState.ENDED), "outcome": outcome}


def _change(connection: Connection, slice_id: int, changes: Mapping[str, Any]) -> None:
    connection.execute(update(remote_slices).where(remote_slices.c.slice_id == slice_id).values(**changes))


def _locked(connection: Connection, slice_id: int) -> RemoteSlice:
    return _found(connection, slice_id, lock=True)


def _found(connection: Connection, slice_id: int, *, lock: bool = False) -> RemoteSlice:
    wanted = select(remote_slices).where(remote_slices.c.slice_id == slice_id)
    row = connection.execute(wanted.with_for_update() if lock else wanted).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no slice {slice_id}")
    return _record(row)


def _record(row: Row[Any]) -> RemoteSlice:
    outcome = row.outcome
    end = outcome.get("end")
    return RemoteSlice(
        slice_id=row.slice_id,
        job_id=row.job_id,
        probe=row.probe,
        state=SliceState(row.state),
        request=Answer(row.request),
        instructions=row.instructions,
        trainer=row.trainer,
        checkpoint=outcome.get("checkpoint", ""),
        end=None if end is None else SliceEnd(end),
        reason=outcome.get("reason", ""),
        last_number=row.last_number,
        num_read=row.num_read,
        lease_seconds=row.lease_seconds,
        lease_expires_at=row.lease_expires_at,
    )
