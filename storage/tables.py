"""Definitions of Paceline's tables in a study database; their names start with `paceline_`."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)

from storage.plain_data import PlainData

#: The names of all Paceline tables start with this prefix; migrations do not change other tables.
PREFIX = "paceline_"

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _study() -> Column[int]:
    return Column("study_id", ForeignKey("paceline_studies.study_id"), nullable=False, index=True)


studies = Table(
    "paceline_studies",
    metadata,
    Column("study_id", Integer, primary_key=True),
    Column("name", String(255), nullable=False, unique=True),
    Column("job_name", String(255), nullable=False),
    Column("fingerprint", String(64), nullable=False, index=True),
    Column("job", PlainData, nullable=False),
    Column("created_at", Double, nullable=False),
)

#: Table of probes. `outcome` is `paused` while a probe can continue. The lease columns are NULL while no
#: worker has a lease on the probe.
probes = Table(
    "paceline_probes",
    metadata,
    Column("probe_id", Integer, primary_key=True),
    _study(),
    Column("configuration", Text, nullable=False),
    Column("purpose", String(32), nullable=False),
    Column("trial_number", Integer),
    Column("outcome", String(32), nullable=False),
    Column("reason", Text, nullable=False),
    Column("lease_owner", String(255)),
    Column("lease_expires_at", Double),
    Column("attempt", Integer, nullable=False),
    Column("created_at", Double, nullable=False),
)

#: Table of slices; rows are never changed. `training_seconds`, `step` and `samples` are totals since the
#: start of the run; `charged_seconds` and `charged_dollars` are those of the slice alone. `details` contains
#: the other fields of the measurement, such as step times, gradient noise, memory, error and checkpoint.
slices = Table(
    "paceline_slices",
    metadata,
    Column("probe_id", ForeignKey("paceline_probes.probe_id"), primary_key=True),
    Column("slice_index", Integer, primary_key=True, autoincrement=False),
    Column("attempt", Integer, nullable=False),
    Column("finished_at", Double, nullable=False),
    Column("outcome", String(32), nullable=False),
    Column("training_seconds", Double, nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("samples", BigInteger, nullable=False),
    Column("charged_seconds", Double, nullable=False),
    Column("charged_dollars", Double, nullable=False),
    Column("details", PlainData, nullable=False),
)

#: Table of metric curves, one row per evaluation. `value` is NULL if the metric was NaN.
curve_points = Table(
    "paceline_curve_points",
    metadata,
    Column("probe_id", Integer, primary_key=True),
    Column("slice_index", Integer, primary_key=True),
    Column("point_index", Integer, primary_key=True),
    _study(),
    Column("training_seconds", Double, nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("samples", BigInteger, nullable=False),
    Column("value", Double),
    ForeignKeyConstraint(
        ["probe_id", "slice_index"], ["paceline_slices.probe_id", "paceline_slices.slice_index"]
    ),
)

predictions = Table(
    "paceline_predictions",
    metadata,
    Column("prediction_id", Integer, primary_key=True),
    _study(),
    Column("configuration", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("quantiles", PlainData, nullable=False),
    Column("dollars", PlainData, nullable=False),
    Column("probability_of_reaching", Double, nullable=False),
    Column("num_slices", Integer, nullable=False),
    Column("seconds_observed", Double, nullable=False),
)

fits = Table(
    "paceline_fits",
    metadata,
    Column("fit_id", Integer, primary_key=True),
    _study(),
    Column("fingerprint", String(64), nullable=False),
    Column("model", String(64), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("num_slices", Integer, nullable=False),
    Column("parameters", PlainData, nullable=False),
    Column("summary", PlainData, nullable=False),
)

recommendations = Table(
    "paceline_recommendations",
    metadata,
    Column("recommendation_id", Integer, primary_key=True),
    _study(),
    Column("created_at", Double, nullable=False),
    Column("recommendation", PlainData, nullable=False),
)
