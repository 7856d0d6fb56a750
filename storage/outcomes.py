"""Outcomes of trainings that followed a recommendation, in a SQL database."""

from __future__ import annotations

from sqlalchemy import Engine, select
from sqlalchemy.dialects import postgresql, sqlite

from search_spaces import Configuration
from storage import rows
from storage.retries import Retries
from storage.service_tables import jobs, outcomes
from storage.tables import studies
from storage.transactions import reading, writing
from tuner.domain.job_queue import NotFoundError
from tuner.domain.ledger import StudyRecord
from tuner.domain.outcomes import OutcomeRecord


class SqlOutcomes:
    """Stores outcomes in a SQL database; implements `tuner.domain.outcomes.Outcomes`.

    Args:
        engine: Engine of a SQLite or PostgreSQL database.
        retries: Repeats operations while the database is locked or cannot be reached.
    """

    def __init__(self, engine: Engine, retries: Retries | None = None):
        self._engine = engine
        again = (retries or Retries(engine.url)).wrapped
        self.of_study = again(self.of_study)  # type: ignore[method-assign]
        self.study = again(self.study)  # type: ignore[method-assign]
        self.owners = again(self.owners)  # type: ignore[method-assign]

    def add(self, outcome: OutcomeRecord) -> bool:
        values = {**vars(outcome), "configuration": outcome.configuration.key}
        with writing(self._engine) as connection:
            dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
            added = dialect.insert(outcomes).values(**values).on_conflict_do_nothing()
            return connection.execute(added.returning(outcomes.c.outcome_id)).first() is not None

    def of_study(self, study_id: int) -> list[OutcomeRecord]:
        wanted = select(outcomes).where(outcomes.c.study_id == study_id).order_by(outcomes.c.outcome_id)
        with reading(self._engine) as connection:
            found = []
            for row in connection.execute(wanted):
                columns = dict(row._mapping)
                del columns["outcome_id"]
                columns["configuration"] = Configuration.from_key(row.configuration)
                found.append(OutcomeRecord(**columns))
            return found

    def study(self, study_id: int) -> StudyRecord:
        with reading(self._engine) as connection:
            row = connection.execute(select(studies).where(studies.c.study_id == study_id)).one_or_none()
            if row is None:
                raise NotFoundError(f"there is no study {study_id}")
            return rows.study(row)

    def owners(self, study_id: int) -> set[int | None]:
        with reading(self._engine) as connection:
            return set(
                connection.execute(select(jobs.c.token_id).where(jobs.c.study_id == study_id)).scalars()
            )
