"""Definitions of the tables of the service: jobs, events, files, workers, tokens and the audit log."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from storage.plain_data import PlainData
from storage.tables import metadata


def _job(*, is_key: bool = True) -> Column[int]:
    return Column(
        "job_id", ForeignKey("paceline_jobs.job_id"), primary_key=is_key, nullable=False, autoincrement=False
    )


tokens = Table(
    "paceline_tokens",
    metadata,
    Column("token_id", Integer, primary_key=True),
    Column("name", String(255), nullable=False),
    Column("role", String(16), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("quota", PlainData, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
    Column("revoked_at", Double),
    Column("last_used_at", Double),
)

#: Table of submitted jobs. `labels` is sorted text such as `,gpu,slurm,`, so that one comparison with a list
#: finds the jobs that a worker can run. `used_...` is what was used so far, `most_...` the largest amount
#: that the budget allows (NULL without a limit).
jobs = Table(
    "paceline_jobs",
    metadata,
    Column("job_id", Integer, primary_key=True),
    Column("name", String(255), nullable=False),
    Column("job_file", Text, nullable=False),
    Column("options", PlainData, nullable=False),
    Column("labels", String(255), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("state", String(32), nullable=False),
    Column("request", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("exit_code", Integer),
    Column("plan", PlainData, nullable=False),
    Column("most_seconds", Double),
    Column("most_node_hours", Double),
    Column("most_dollars", Double),
    Column("used_seconds", Double, nullable=False),
    Column("used_node_hours", Double, nullable=False),
    Column("used_dollars", Double, nullable=False),
    Column("token_id", ForeignKey("paceline_tokens.token_id"), index=True),
    Column("idempotency_key", String(255)),
    Column("request_digest", String(64), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("started_at", Double),
    Column("finished_at", Double),
    Column("approved_by", String(255), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("worker", String(255), nullable=False),
    Column("lease_expires_at", Double),
    Column("study_id", ForeignKey("paceline_studies.study_id"), index=True),
    Column("progress", PlainData, nullable=False),
    Column("num_events", Integer, nullable=False),
    UniqueConstraint("token_id", "idempotency_key"),
    Index("ix_paceline_jobs_claim", "state", "priority", "job_id"),
)

job_events = Table(
    "paceline_job_events",
    metadata,
    _job(),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("kind", String(32), nullable=False),
    Column("text", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("data", PlainData, nullable=False),
)

#: Table of files by content: equal files are stored once.
files = Table(
    "paceline_files",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("content", LargeBinary, nullable=False),
    Column("created_at", Double, nullable=False),
)

job_files = Table(
    "paceline_job_files",
    metadata,
    _job(),
    Column("kind", String(16), primary_key=True),
    Column("path", String(1024), primary_key=True),
    Column("digest", ForeignKey("paceline_files.digest"), nullable=False, index=True),
)

#: Table of the files that tokens uploaded, whether or not a job uses them.
uploads = Table(
    "paceline_uploads",
    metadata,
    Column("token_id", ForeignKey("paceline_tokens.token_id"), primary_key=True, autoincrement=False),
    Column("digest", ForeignKey("paceline_files.digest"), primary_key=True, index=True),
    Column("created_at", Double, nullable=False),
)

workers = Table(
    "paceline_workers",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("version", String(64), nullable=False),
    Column("labels", String(255), nullable=False),
    Column("slots", Integer, nullable=False),
    Column("draining", Boolean, nullable=False),
    Column("started_at", Double, nullable=False),
    Column("seen_at", Double, nullable=False),
    Column("stopped_at", Double),
)

audit_log = Table(
    "paceline_audit_log",
    metadata,
    Column("audit_id", Integer, primary_key=True),
    Column("created_at", Double, nullable=False),
    Column("token", String(255), nullable=False),
    Column("action", String(64), nullable=False),
    Column("target", String(255), nullable=False),
    Column("address", String(255), nullable=False),
    Column("detail", PlainData, nullable=False),
)

#: Table of slices that trainers outside of Paceline run (ask and tell over HTTP). `state` is `offered`,
#: `leased` or `ended`; `request` is what the trainer is asked to do next: `continue` or `stop`.
remote_slices = Table(
    "paceline_remote_slices",
    metadata,
    Column("slice_id", Integer, primary_key=True),
    _job(is_key=False),
    Column("probe", String(255), nullable=False),
    Column("state", String(16), nullable=False),
    Column("request", String(16), nullable=False),
    Column("instructions", PlainData, nullable=False),
    Column("outcome", PlainData, nullable=False),
    Column("trainer", String(255), nullable=False),
    Column("last_number", Integer, nullable=False),
    Column("num_read", Integer, nullable=False),
    Column("lease_seconds", Double, nullable=False),
    Column("lease_expires_at", Double),
    Column("created_at", Double, nullable=False),
    Index("ix_paceline_remote_slices_offers", "job_id", "state"),
)

#: Table of the lines that trainers reported; `number` is chosen by the trainer, so that a repeated report
#: adds nothing.
remote_reports = Table(
    "paceline_remote_reports",
    metadata,
    Column("slice_id", ForeignKey("paceline_remote_slices.slice_id"), primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("created_at", Double, nullable=False),
    Column("data", PlainData, nullable=False),
)

#: Table of real trainings of recommendations: what happened after the user followed the advice.
outcomes = Table(
    "paceline_outcomes",
    metadata,
    Column("outcome_id", Integer, primary_key=True),
    Column("study_id", ForeignKey("paceline_studies.study_id"), nullable=False, index=True),
    Column("configuration", Text, nullable=False),
    Column("reached", Boolean, nullable=False),
    Column("seconds", Double, nullable=False),
    Column("source", String(255), nullable=False),
    Column("report_key", String(64), nullable=False, unique=True),
    Column("created_at", Double, nullable=False),
)
