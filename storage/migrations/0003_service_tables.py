"""Migration 0003: creates the tables of the service: jobs, workers, tokens, remote slices and outcomes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates the tables of the service."""
    op.create_table(
        "paceline_audit_log",
        sa.Column("audit_id", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("token", sa.String(length=255), nullable=False),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("target", sa.String(length=255), nullable=False),
        sa.Column("address", sa.String(length=255), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("audit_id", name="pk_paceline_audit_log"),
    )
    op.create_table(
        "paceline_files",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_paceline_files"),
    )
    op.create_table(
        "paceline_tokens",
        sa.Column("token_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("quota", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=True),
        sa.Column("revoked_at", sa.Double(), nullable=True),
        sa.Column("last_used_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("token_id", name="pk_paceline_tokens"),
    )
    op.create_table(
        "paceline_workers",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("version", sa.String(length=64), nullable=False),
        sa.Column("labels", sa.String(length=255), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("draining", sa.Boolean(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("seen_at", sa.Double(), nullable=False),
        sa.Column("stopped_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("name", name="pk_paceline_workers"),
    )
    op.create_table(
        "paceline_jobs",
        sa.Column("job_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("job_file", sa.Text(), nullable=False),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("labels", sa.String(length=255), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=32), nullable=False),
        sa.Column("request", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("plan", sa.JSON(), nullable=False),
        sa.Column("most_seconds", sa.Double(), nullable=True),
        sa.Column("most_node_hours", sa.Double(), nullable=True),
        sa.Column("most_dollars", sa.Double(), nullable=True),
        sa.Column("used_seconds", sa.Double(), nullable=False),
        sa.Column("used_node_hours", sa.Double(), nullable=False),
        sa.Column("used_dollars", sa.Double(), nullable=False),
        sa.Column("token_id", sa.Integer(), nullable=True),
        sa.Column("idempotency_key", sa.String(length=255), nullable=True),
        sa.Column("request_digest", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=True),
        sa.Column("finished_at", sa.Double(), nullable=True),
        sa.Column("approved_by", sa.String(length=255), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("worker", sa.String(length=255), nullable=False),
        sa.Column("lease_expires_at", sa.Double(), nullable=True),
        sa.Column("study_id", sa.Integer(), nullable=True),
        sa.Column("progress", sa.JSON(), nullable=False),
        sa.Column("num_events", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["study_id"], ["paceline_studies.study_id"], name="fk_paceline_jobs_study_id"
        ),
        sa.ForeignKeyConstraint(["token_id"], ["paceline_tokens.token_id"], name="fk_paceline_jobs_token_id"),
        sa.PrimaryKeyConstraint("job_id", name="pk_paceline_jobs"),
        sa.UniqueConstraint("token_id", "idempotency_key", name="uq_paceline_jobs_token_id_idempotency_key"),
    )
    op.create_index("ix_paceline_jobs_claim", "paceline_jobs", ["state", "priority", "job_id"])
    op.create_index("ix_paceline_jobs_study_id", "paceline_jobs", ["study_id"])
    op.create_index("ix_paceline_jobs_token_id", "paceline_jobs", ["token_id"])
    op.create_table(
        "paceline_outcomes",
        sa.Column("outcome_id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("configuration", sa.Text(), nullable=False),
        sa.Column("reached", sa.Boolean(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("source", sa.String(length=255), nullable=False),
        sa.Column("report_key", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["study_id"], ["paceline_studies.study_id"], name="fk_paceline_outcomes_study_id"
        ),
        sa.PrimaryKeyConstraint("outcome_id", name="pk_paceline_outcomes"),
        sa.UniqueConstraint("report_key", name="uq_paceline_outcomes_report_key"),
    )
    op.create_index("ix_paceline_outcomes_study_id", "paceline_outcomes", ["study_id"])
    op.create_table(
        "paceline_job_events",
        sa.Column("job_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["paceline_jobs.job_id"], name="fk_paceline_job_events_job_id"),
        sa.PrimaryKeyConstraint("job_id", "number", name="pk_paceline_job_events"),
    )
    op.create_table(
        "paceline_job_files",
        sa.Column("job_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("path", sa.String(length=1024), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["digest"], ["paceline_files.digest"], name="fk_paceline_job_files_digest"),
        sa.ForeignKeyConstraint(["job_id"], ["paceline_jobs.job_id"], name="fk_paceline_job_files_job_id"),
        sa.PrimaryKeyConstraint("job_id", "kind", "path", name="pk_paceline_job_files"),
    )
    op.create_index("ix_paceline_job_files_digest", "paceline_job_files", ["digest"])
    op.create_table(
        "paceline_uploads",
        sa.Column("token_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["digest"], ["paceline_files.digest"], name="fk_paceline_uploads_digest"),
        sa.ForeignKeyConstraint(
            ["token_id"], ["paceline_tokens.token_id"], name="fk_paceline_uploads_token_id"
        ),
        sa.PrimaryKeyConstraint("token_id", "digest", name="pk_paceline_uploads"),
    )
    op.create_index("ix_paceline_uploads_digest", "paceline_uploads", ["digest"])
    op.create_table(
        "paceline_remote_slices",
        sa.Column("slice_id", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("probe", sa.String(length=255), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("request", sa.String(length=16), nullable=False),
        sa.Column("instructions", sa.JSON(), nullable=False),
        sa.Column("outcome", sa.JSON(), nullable=False),
        sa.Column("trainer", sa.String(length=255), nullable=False),
        sa.Column("last_number", sa.Integer(), nullable=False),
        sa.Column("num_read", sa.Integer(), nullable=False),
        sa.Column("lease_seconds", sa.Double(), nullable=False),
        sa.Column("lease_expires_at", sa.Double(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["paceline_jobs.job_id"], name="fk_paceline_remote_slices_job_id"
        ),
        sa.PrimaryKeyConstraint("slice_id", name="pk_paceline_remote_slices"),
    )
    op.create_index("ix_paceline_remote_slices_offers", "paceline_remote_slices", ["job_id", "state"])
    op.create_table(
        "paceline_remote_reports",
        sa.Column("slice_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["slice_id"], ["paceline_remote_slices.slice_id"], name="fk_paceline_remote_reports_slice_id"
        ),
        sa.PrimaryKeyConstraint("slice_id", "number", name="pk_paceline_remote_reports"),
    )


def downgrade() -> None:
    """Drops the tables of the service with their data."""
    for name in (
        "remote_reports",
        "remote_slices",
        "uploads",
        "job_files",
        "job_events",
        "outcomes",
        "jobs",
        "workers",
        "tokens",
        "files",
        "audit_log",
    ):
        op.drop_table(f"paceline_{name}")
