"""Migration 0004: removes private values of environment variables from stored jobs and recommendations.

Earlier versions stored the values of `[workload.environment]`. Now only the names are stored, unless the job
file sets `publish_environment`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_HIDDEN = "(not published)"
#: A word of a shell command as Python's `shlex.quote` writes it.
_QUOTED = r"""(?:'(?:[^']|'"'"')*'|[\w@%+=:,./-]*)"""


def upgrade() -> None:
    """Replaces private values by a fixed text. SQLite overwrites them in its file, too."""
    connection = op.get_bind()
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA secure_delete = ON")
    studies = _table("paceline_studies", "study_id", "job")
    answers = _table("paceline_recommendations", "recommendation_id", "recommendation", "study_id")
    for study_id, job in connection.execute(sa.select(studies.c.study_id, studies.c.job)).all():
        names = _private(job)
        if not names:
            continue
        workload = job["workload"]
        environment = {**workload["environment"], **dict.fromkeys(names, _HIDDEN)}
        changed = {**job, "workload": {**workload, "environment": environment}}
        connection.execute(sa.update(studies).where(studies.c.study_id == study_id).values(job=changed))
        of_study = sa.select(answers.c.recommendation_id, answers.c.recommendation)
        for number, answer in connection.execute(of_study.where(answers.c.study_id == study_id)).all():
            this = answers.c.recommendation_id == number
            connection.execute(sa.update(answers).where(this).values(recommendation=_without(answer, names)))


def downgrade() -> None:
    """Does nothing: the values are no longer known."""


def _table(name: str, key: str, data: str, *numbers: str) -> sa.TableClause:
    columns = [sa.column(number, sa.Integer) for number in (key, *numbers)]
    return sa.table(name, *columns, sa.column(data, sa.JSON))


def _private(job: Any) -> Set[str]:
    """Returns the names of the environment variables whose values must not be stored."""
    workload = job.get("workload") if isinstance(job, dict) else None
    environment = workload.get("environment") if isinstance(workload, dict) else None
    if not isinstance(workload, dict) or not isinstance(environment, Mapping):
        return frozenset()
    if workload.get("publish_environment"):
        return frozenset()
    # A value that is only a template variable is no secret.
    return {
        n for n, text in environment.items() if not re.fullmatch(r"\{\w+\}", str(text)) and text != _HIDDEN
    }


def _without(value: Any, names: Set[str]) -> Any:
    """Returns JSON data in which no shell command sets one of the variables to its value."""
    if isinstance(value, dict):
        return {key: _without(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [_without(item, names) for item in value]
    if not isinstance(value, str):
        return value
    words = "|".join(re.escape(name) for name in names)
    return re.sub(rf"\b({words})={_QUOTED}", rf"\1='{_HIDDEN}'", value)
