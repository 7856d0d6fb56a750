"""Migration 0001: creates all tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates all tables."""
    op.create_table(
        "paceline_studies",
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("job_name", sa.String(length=255), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("job", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("study_id", name="pk_paceline_studies"),
        sa.UniqueConstraint("name", name="uq_paceline_studies_name"),
    )
    op.create_index("ix_paceline_studies_fingerprint", "paceline_studies", ["fingerprint"])
    _create_probe_tables()
    _create_evidence_tables()


def downgrade() -> None:
    """Drops all tables with their data."""
    for name in ("curve_points", "slices", "probes", "recommendations", "fits", "predictions", "studies"):
        op.drop_table(f"paceline_{name}")


def _create_probe_tables() -> None:
    op.create_table(
        "paceline_probes",
        sa.Column("probe_id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("configuration", sa.Text(), nullable=False),
        sa.Column("purpose", sa.String(length=32), nullable=False),
        sa.Column("trial_number", sa.Integer(), nullable=True),
        sa.Column("outcome", sa.String(length=32), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("lease_owner", sa.String(length=255), nullable=True),
        sa.Column("lease_expires_at", sa.Double(), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        *_study_key("probes"),
        sa.PrimaryKeyConstraint("probe_id", name="pk_paceline_probes"),
    )
    op.create_index("ix_paceline_probes_study_id", "paceline_probes", ["study_id"])
    op.create_table(
        "paceline_slices",
        sa.Column("probe_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("slice_index", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("finished_at", sa.Double(), nullable=False),
        sa.Column("outcome", sa.String(length=32), nullable=False),
        sa.Column("training_seconds", sa.Double(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("samples", sa.BigInteger(), nullable=False),
        sa.Column("charged_seconds", sa.Double(), nullable=False),
        sa.Column("charged_dollars", sa.Double(), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["probe_id"], ["paceline_probes.probe_id"], name="fk_paceline_slices_probe_id"
        ),
        sa.PrimaryKeyConstraint("probe_id", "slice_index", name="pk_paceline_slices"),
    )
    op.create_table(
        "paceline_curve_points",
        sa.Column("probe_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("slice_index", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("point_index", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("training_seconds", sa.Double(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("samples", sa.BigInteger(), nullable=False),
        sa.Column("value", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["probe_id", "slice_index"],
            ["paceline_slices.probe_id", "paceline_slices.slice_index"],
            name="fk_paceline_curve_points_probe_id_slice_index",
        ),
        *_study_key("curve_points"),
        sa.PrimaryKeyConstraint("probe_id", "slice_index", "point_index", name="pk_paceline_curve_points"),
    )
    op.create_index("ix_paceline_curve_points_study_id", "paceline_curve_points", ["study_id"])


def _create_evidence_tables() -> None:
    op.create_table(
        "paceline_predictions",
        sa.Column("prediction_id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("configuration", sa.Text(), nullable=False),
        sa.Column("made_at", sa.Double(), nullable=False),
        sa.Column("quantiles", sa.JSON(), nullable=False),
        sa.Column("dollars", sa.JSON(), nullable=False),
        sa.Column("probability_of_reaching", sa.Double(), nullable=False),
        sa.Column("num_slices", sa.Integer(), nullable=False),
        sa.Column("seconds_known", sa.Double(), nullable=False),
        sa.Column("purpose", sa.String(length=64), nullable=False),
        *_study_key("predictions"),
        sa.PrimaryKeyConstraint("prediction_id", name="pk_paceline_predictions"),
    )
    op.create_index("ix_paceline_predictions_study_id", "paceline_predictions", ["study_id"])
    op.create_table(
        "paceline_fits",
        sa.Column("fit_id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("model", sa.String(length=64), nullable=False),
        sa.Column("made_at", sa.Double(), nullable=False),
        sa.Column("num_slices", sa.Integer(), nullable=False),
        sa.Column("parameters", sa.JSON(), nullable=False),
        sa.Column("summary", sa.JSON(), nullable=False),
        *_study_key("fits"),
        sa.PrimaryKeyConstraint("fit_id", name="pk_paceline_fits"),
    )
    op.create_index("ix_paceline_fits_study_id", "paceline_fits", ["study_id"])
    op.create_table(
        "paceline_recommendations",
        sa.Column("recommendation_id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("made_at", sa.Double(), nullable=False),
        sa.Column("recommendation", sa.JSON(), nullable=False),
        *_study_key("recommendations"),
        sa.PrimaryKeyConstraint("recommendation_id", name="pk_paceline_recommendations"),
    )
    op.create_index("ix_paceline_recommendations_study_id", "paceline_recommendations", ["study_id"])


def _study_key(table: str) -> list[sa.ForeignKeyConstraint]:
    name = f"fk_paceline_{table}_study_id"
    return [sa.ForeignKeyConstraint(["study_id"], ["paceline_studies.study_id"], name=name)]
