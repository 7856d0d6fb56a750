"""Migrates the tables of a study database to the newest revision."""

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

#: Every revision, oldest first. Listed here besides the migrations themselves, so that opening a database
#: that is up to date needs no Alembic; a test checks that both agree.
REVISIONS = ("0001", "0002")
HEAD = REVISIONS[-1]

#: Optuna claims `alembic_version`.
VERSION_TABLE = "paceline_alembic_version"


def bring_to_head(engine: Engine) -> None:
    """Migrates a database to the newest revision; does nothing if it has that revision already.

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
        StorageError: The revision is unknown to this version, or the database cannot be read.
    """
    with reading(engine) as connection:
        revision = _stored_revision(connection)
    if revision is not None and revision not in REVISIONS:
        raise StorageError(
            f"the study database {shown(engine.url)} has revision {revision}, newer than this Paceline "
            f"knows (up to {HEAD}); upgrade Paceline, or name another database with --storage"
        )
    return revision == HEAD


def alembic_config(connection: Connection) -> Config:
    """Alembic's configuration for our migrations over an open connection; there is no alembic.ini.

    A new revision is drafted with `alembic.command.revision(alembic_config(connection), "what it
    does", autogenerate=True, rev_id="0003")`, then read, corrected, and listed in `REVISIONS`.
    """
    from alembic.config import Config

    # Alembic prints to a buffer: stdout is for the results of commands.
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
    # One transaction around everything: a kill half-way leaves nothing changed.
    from alembic import command

    command.upgrade(alembic_config(connection), "head")


def _use_write_ahead_log(engine: Engine) -> None:
    # The mode stays with the file. Switching does not always heed the busy time-out.
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
