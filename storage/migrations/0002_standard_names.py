"""Migration 0002: renames columns, and keys in the stored jobs and recommendations, to standard terms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from alembic import op

from tuner.domain.recommendation import upgraded

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_COLUMNS = (
    ("paceline_predictions", "made_at", "created_at"),
    ("paceline_predictions", "seconds_known", "seconds_observed"),
    ("paceline_fits", "made_at", "created_at"),
    ("paceline_recommendations", "made_at", "created_at"),
)


def upgrade() -> None:
    """Renames columns and JSON keys; drops the column `purpose`, which was the same for all predictions."""
    for table, old, new in _COLUMNS:
        op.execute(sa.text(f"ALTER TABLE {table} RENAME COLUMN {old} TO {new}"))
    op.drop_column("paceline_predictions", "purpose")
    _rewrite("paceline_studies", "study_id", "job", _renamed_in_job)
    _rewrite("paceline_recommendations", "recommendation_id", "recommendation", _renamed_in_recommendation)


def downgrade() -> None:
    """Restores the old columns; does not restore the old JSON keys."""
    purpose = sa.Column("purpose", sa.String(length=64), nullable=False, server_default="choice")
    op.add_column("paceline_predictions", purpose)
    for table, old, new in _COLUMNS:
        op.execute(sa.text(f"ALTER TABLE {table} RENAME COLUMN {new} TO {old}"))


def _rewrite(table: str, key: str, column: str, change: Callable[[Any], Any]) -> None:
    rows = sa.table(table, sa.column(key, sa.Integer), sa.column(column, sa.JSON))
    connection = op.get_bind()
    for number, data in connection.execute(sa.select(rows)).all():
        changed = change(data)
        if changed != data:
            connection.execute(sa.update(rows).where(rows.c[key] == number).values({column: changed}))


def _renamed_in_job(job: Any) -> Any:
    if not isinstance(job, dict) or not isinstance(job.get("goal"), dict) or "hold" not in job["goal"]:
        return job
    goal = dict(job["goal"])
    goal["consecutive_scores"] = goal.pop("hold")
    return {**job, "goal": goal}


def _renamed_in_recommendation(data: Any) -> Any:
    is_version_1 = isinstance(data, dict) and str(data.get("schema_version", "")).startswith("1.")
    return upgraded(data) if is_version_1 else data
