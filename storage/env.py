"""Alembic's environment script: runs the migrations of Paceline's tables on a given connection."""

from __future__ import annotations

from collections.abc import MutableMapping

from alembic import context

import storage.service_tables  # noqa: F401  (adds its tables to the metadata)
from storage.schema import VERSION_TABLE
from storage.tables import PREFIX, metadata


def _is_ours(name: str | None, kind: str, _parents: MutableMapping[str, str | None]) -> bool:
    # Alembic must ignore Optuna's tables and all other tables in the database.
    return kind != "table" or (name is not None and name.startswith(PREFIX))


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    include_name=_is_ours,  # type: ignore[arg-type]
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
