"""Reads studies page by page, and caches nothing; for servers."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import JSON, Connection, Engine, Row, Select, func, or_, select, type_coerce

from search_spaces import Configuration
from storage import probe_tables, rows
from storage.retries import Retries
from storage.service_tables import files, jobs
from storage.tables import curve_points, predictions, probes, recommendations, slices, studies
from storage.transactions import reading
from tuner.domain.job_queue import JobState
from tuner.domain.ledger import PredictionRecord, ProbeRecord
from tuner.domain.measurement import CurvePoint, Outcome, Purpose
from tuner.domain.study_reads import ProbeSummary


class SqlStudyReads:
    """Reads studies in a SQL database; implements `tuner.domain.study_reads.StudyReads`.

    Args:
        engine: Engine of a SQLite or PostgreSQL database.
        clock: Returns the time in seconds since the Unix epoch.
        retries: Repeats operations while the database is locked or cannot be reached.
    """

    def __init__(
        self, engine: Engine, clock: Callable[[], float] = time.time, retries: Retries | None = None
    ) -> None:
        self._engine = engine
        self._clock = clock
        again = (retries or Retries(engine.url)).wrapped
        self.probes = again(self.probes)  # type: ignore[method-assign]
        self.curves = again(self.curves)  # type: ignore[method-assign]
        self.reached = again(self.reached)  # type: ignore[method-assign]
        self._rows = again(self._rows)  # type: ignore[method-assign]

    def goal(self, study_id: int) -> Mapping[str, Any]:
        found = self._rows(select(studies.c.job).where(studies.c.study_id == study_id))
        return dict(found[0].job.get("goal", {})) if found else {}

    def probes(self, study_id: int, *, after: int = 0, limit: int = 100) -> list[ProbeSummary]:
        wanted = (
            select(probes)
            .where(probes.c.study_id == study_id, probes.c.probe_id > after)
            .order_by(probes.c.probe_id)
            .limit(limit)
        )
        now = self._clock()
        with reading(self._engine) as connection:
            found = connection.execute(wanted).all()
            probe_ids = [row.probe_id for row in found]
            totals = _totals(connection, probe_ids)
            values = {row.probe_id: row.value for row in connection.execute(_last_points(probe_ids))}
        return [_summary(row, totals.get(row.probe_id, []), values.get(row.probe_id), now) for row in found]

    def curves(
        self, study_id: int, probe_ids: Sequence[int], *, most_points: int
    ) -> dict[int, list[CurvePoint]]:
        found: dict[int, list[CurvePoint]] = defaultdict(list)
        with reading(self._engine) as connection:
            for row in connection.execute(_thinned(study_id, probe_ids, most_points)):
                point = CurvePoint(
                    training_seconds=row.training_seconds,
                    step=row.step,
                    samples=row.samples,
                    value=math.nan if row.value is None else row.value,
                )
                found[row.probe_id].append(point)
        return dict(found)

    def reached(self, study_id: int, *, limit: int = 1000) -> list[ProbeRecord]:
        is_reached = probes.c.outcome == str(Outcome.REACHED)
        chosen = select(probes.c.probe_id).where(probes.c.study_id == study_id, is_reached)
        chosen = chosen.order_by(probes.c.probe_id).limit(limit)
        with reading(self._engine) as connection:
            condition = probes.c.probe_id.in_(connection.execute(chosen).scalars().all())
            return probe_tables.load(connection, condition, self._clock())

    def predictions(
        self, study_id: int, *, after: int = 0, limit: int = 100
    ) -> list[tuple[int, PredictionRecord]]:
        wanted = (
            select(predictions)
            .where(predictions.c.study_id == study_id, predictions.c.prediction_id > after)
            .order_by(predictions.c.prediction_id)
            .limit(limit)
        )
        return [(row.prediction_id, rows.prediction(row)) for row in self._rows(wanted)]

    def recommendation(self, study_id: int) -> Mapping[str, Any] | None:
        newest = recommendations.c.recommendation_id.desc()
        wanted = select(recommendations.c.recommendation).where(recommendations.c.study_id == study_id)
        found = self._rows(wanted.order_by(newest).limit(1))
        return dict(found[0].recommendation) if found else None

    def file_size(self, digest: str) -> int | None:
        found = self._rows(select(files.c.size).where(files.c.digest == digest))
        return int(found[0].size) if found else None

    def queued_since(self) -> float | None:
        queued = jobs.c.state == str(JobState.QUEUED)
        found = self._rows(select(func.min(jobs.c.created_at).label("oldest")).where(queued))
        return None if found[0].oldest is None else float(found[0].oldest)

    def _rows(self, wanted: Select[Any]) -> list[Row[Any]]:
        with reading(self._engine) as connection:
            return list(connection.execute(wanted))


def _totals(connection: Connection, probe_ids: Sequence[int]) -> dict[int, list[Row[Any]]]:
    """Returns the numbers of the slices of probes, in order, without curves and details."""
    names = ("probe_id", "step", "samples", "training_seconds", "charged_seconds", "charged_dollars")
    wanted = select(*(slices.c[name] for name in names)).where(slices.c.probe_id.in_(probe_ids))
    found: dict[int, list[Row[Any]]] = defaultdict(list)
    for row in connection.execute(wanted.order_by(slices.c.probe_id, slices.c.slice_index)):
        found[row.probe_id].append(row)
    return found


def _last_points(probe_ids: Sequence[int]) -> Select[Any]:
    """Returns a query for the last evaluation of each probe."""
    newest = (curve_points.c.slice_index.desc(), curve_points.c.point_index.desc())
    number = func.row_number().over(partition_by=curve_points.c.probe_id, order_by=newest)
    numbered = select(curve_points.c.probe_id, curve_points.c.value, number.label("number"))
    found = numbered.where(curve_points.c.probe_id.in_(probe_ids)).subquery()
    return select(found.c.probe_id, found.c.value).where(found.c.number == 1)


def _thinned(study_id: int, probe_ids: Sequence[int], most_points: int) -> Select[Any]:
    """Returns a query for the points of curves, each thinned to a number of points."""
    again = type_coerce(slices.c.details, JSON)["restart_seconds"].as_string()
    whole = (
        select(slices.c.probe_id, func.max(slices.c.slice_index).label("first_slice"))
        .where(slices.c.probe_id.in_(probe_ids), again.is_not(None))
        .group_by(slices.c.probe_id)
        .subquery()
    )
    # After a slice that ended early, the next one may score at the same number of samples: that one counts.
    later = (curve_points.c.slice_index.desc(), curve_points.c.point_index.desc())
    same = (curve_points.c.probe_id, curve_points.c.samples)
    repeated = func.row_number().over(partition_by=same, order_by=later)
    points = (
        select(curve_points, repeated.label("repeated"))
        .outerjoin(whole, whole.c.probe_id == curve_points.c.probe_id)
        .where(
            curve_points.c.study_id == study_id,
            curve_points.c.probe_id.in_(probe_ids),
            curve_points.c.slice_index >= func.coalesce(whole.c.first_slice, 0),
        )
        .subquery()
    )
    number = func.row_number().over(partition_by=points.c.probe_id, order_by=points.c.samples)
    total = func.count().over(partition_by=points.c.probe_id)
    found = (
        select(points, number.label("number"), total.label("total")).where(points.c.repeated == 1).subquery()
    )
    # The last point is in any case part of the result.
    step = (found.c.total + most_points - 2) // max(most_points - 1, 1)
    wanted = or_((found.c.number - 1) % step == 0, found.c.number == found.c.total)
    return select(found).where(wanted).order_by(found.c.probe_id, found.c.number)


def _summary(row: Row[Any], totals: Sequence[Row[Any]], value: float | None, now: float) -> ProbeSummary:
    last = totals[-1] if totals else None
    return ProbeSummary(
        probe_id=row.probe_id,
        configuration=Configuration.from_key(row.configuration),
        purpose=Purpose(row.purpose),
        outcome=Outcome(row.outcome),
        reason=row.reason,
        created_at=row.created_at,
        is_running=rows.lease_state(row).held(now) is not None,
        num_slices=len(totals),
        step=0 if last is None else last.step,
        samples=0 if last is None else last.samples,
        training_seconds=0.0 if last is None else last.training_seconds,
        charged_seconds=sum(total.charged_seconds for total in totals),
        charged_dollars=sum(total.charged_dollars for total in totals),
        last_value=value,
    )
