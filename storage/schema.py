"""Creates and migrates the tables of a study database to the newest revision."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, inspect, text
from sqlalchemy.exc import OperationalError

from storage.engine import BUSY_TIMEOUT_SECONDS
from storage.failures import shown, translated
from storage.one_at_a_time import one_at_a_time
from storage.transactions import reading, writing
from tuner.domain.errors import StorageError

if TYPE_CHECKING:
    from alembic.config import Config

#: All revisions, oldest first. This copy of the list in `migrations/` saves the import of Alembic if a
#: database has the newest revision already; a test checks that both lists agree.
REVISIONS = ("0001", "0002", "0003", "0004")
HEAD = REVISIONS[-1]

#: Table that stores the revision. Alembic's default name `alembic_version` is used by Optuna.
VERSION_TABLE = "paceline_alembic_version"


def bring_to_head(engine: Engine) -> None:
    """Migrates a database to the newest revision; does nothing if the database has that revision already.

    Raises:
        StorageError: The database cannot be written, is not a database, or a newer Paceline wrote it.
    """
    if is_at_head(engine):
        return
    with one_at_a_time(engine):
        if is_at_head(engine):
            return
        if engine.dialect.name == "sqlite":
            _use_write_ahead_log(engine)
        with writing(engine) as connection:
            _migrate(connection)


def is_at_head(engine: Engine) -> bool:
    """Whether a database has the newest revision.

    Raises:
        StorageError: A newer Paceline wrote the database, or the database cannot be read.
    """
    with reading(engine) as connection:
        revision = _stored_revision(connection)
    if revision is not None and revision not in REVISIONS:
        raise StorageError(
            f"the study database {shown(engine.url)} has revision {revision}, but this Paceline supports "
            f"revisions up to {HEAD}; upgrade Paceline, or give another database with --storage"
        )
    return revision == HEAD


def alembic_config(connection: Connection) -> Config:
    """Returns Alembic's configuration for Paceline's migrations; it replaces the file alembic.ini.

    To add a revision: generate it with `alembic.command.revision(alembic_config(connection), "TITLE",
    autogenerate=True, rev_id="0005")`, check and correct it, and append its id to `REVISIONS`.

    Args:
        connection: Open connection on which the migrations run.
    """
    from alembic.config import Config

    # Alembic must not print to stdout, which is for the results of Paceline's commands.
    config = Config(stdout=io.StringIO())
    folder = str(Path(__file__).parent).replace("%", "%%")
    config.set_main_option("script_location", folder)
    config.set_main_option("version_locations", f"{folder}/migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _stored_revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    found = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalars().all()
    return str(found[-1]) if found else None


def _migrate(connection: Connection) -> None:
    # The caller's transaction includes all migrations: an interrupted migration changes nothing.
    from alembic import command

    command.upgrade(alembic_config(connection), "head")


def _use_write_ahead_log(engine: Engine) -> None:
    # SQLite stores the mode in the file. The statement may fail before the busy timeout, so repeat it.
    deadline = time.monotonic() + BUSY_TIMEOUT_SECONDS
    with translated(engine.url), engine.connect() as connection:
        while True:
            try:
                connection.exec_driver_sql("PRAGMA journal_mode = WAL")
                return
            except OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
