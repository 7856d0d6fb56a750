"""Creates SQLAlchemy engines from the URLs of SQLite and PostgreSQL databases."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError

from storage.failures import masked, shown
from tuner.domain.errors import StorageError

#: Maximum seconds for which a SQLite transaction waits for the lock of another process. After that, a warning
#: is logged, and the statement is repeated (see `storage.retries`). Ctrl-C takes effect only then.
BUSY_TIMEOUT_SECONDS = 20

#: Maximum seconds for which a PostgreSQL statement waits for a lock. After that, a warning is logged, and the
#: statement is repeated (see `storage.retries`).
_LOCK_TIMEOUT_SECONDS = 30
#: Arguments of connections to PostgreSQL, unless the URL has them. If the host of the server is gone, it is
#: noticed after half a minute; the system's own limits are a quarter of an hour and more.
_POSTGRES_ARGUMENTS = {
    "connect_timeout": 10,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
_EXAMPLES = "sqlite:///study.db, or postgresql://user:password@host/database"


def parsed(url: str) -> URL:
    """Parses a database URL; sets the driver and, for SQLite, the absolute path of the file.

    Raises:
        StorageError: The URL is not valid, or Paceline does not support the type of database.
    """
    try:
        parts = make_url(url)
    except ArgumentError as error:
        raise StorageError(f"{masked(url)!r} is no database URL; an example is {_EXAMPLES}") from error
    except ValueError as error:
        # SQLAlchemy converts only the port to a number.
        raise _wrong_port(masked(url)) from error
    if parts.port is not None and not 0 < parts.port < 65536:
        raise _wrong_port(shown(parts))
    dialect = parts.drivername.split("+")[0]
    if dialect in ("postgresql", "postgres"):
        return parts.set(drivername="postgresql+psycopg")
    if dialect != "sqlite":
        raise StorageError(
            f"{shown(parts)}: studies are stored in SQLite or PostgreSQL, not in {dialect}; "
            f"an example is {_EXAMPLES}"
        )
    if not parts.database or parts.database.startswith((":memory:", "file:")):
        raise StorageError(f"{shown(parts)} has no file to store a study in; an example is {_EXAMPLES}")
    path = Path(parts.database).expanduser().absolute()
    return parts.set(drivername="sqlite", database=str(path))


def _wrong_port(url: str) -> StorageError:
    return StorageError(
        f"{url!r}: the port of a database URL must be a number from 1 to 65535; an example is "
        "postgresql://user:password@host:5432/database"
    )


def database_file(url: URL) -> Path | None:
    """Returns the file of a SQLite database; None for a database on a server."""
    if url.get_backend_name() != "sqlite" or url.database is None:
        return None
    return Path(url.database)


def check_folder(url: URL) -> None:
    """Checks that a SQLite file can be created or written at the path in the URL.

    Raises:
        StorageError: The folder is missing or not writable, or the path is that of a folder.
    """
    path = database_file(url)
    if path is None:
        return
    if not path.parent.is_dir():
        raise StorageError(
            f"the study database {shown(url)} needs the folder {path.parent}, which does not exist; "
            "create it, or give another path with --storage"
        )
    if path.is_dir():
        raise StorageError(f"the study database {shown(url)} is a folder; give a file in it with --storage")
    needed = [path.parent, path] if path.exists() else [path.parent]
    for place in needed:
        if not os.access(place, os.R_OK | os.W_OK):
            raise StorageError(
                f"the study database {shown(url)} is not writable: no permission to write {place}; "
                "grant this user the permission, or give another path with --storage"
            )


def engine_options(url: URL) -> dict[str, Any]:
    """Returns keyword arguments of SQLAlchemy's `create_engine` for a URL; Optuna's engine uses them too."""
    if database_file(url) is not None:
        return {"connect_args": {"timeout": BUSY_TIMEOUT_SECONDS}}
    arguments = {name: value for name, value in _POSTGRES_ARGUMENTS.items() if name not in url.query}
    return {"pool_pre_ping": True, "connect_args": arguments}


def engine_for(url: URL) -> Engine:
    """Creates an engine for a URL from `parsed`; does not connect yet.

    Raises:
        StorageError: The driver is not installed.
    """
    try:
        engine = create_engine(url, **engine_options(url))
    except ImportError as error:
        raise StorageError(
            f"{shown(url)} needs psycopg, which is not installed; pip install 'paceline[postgres]'"
        ) from error
    set_up(engine)
    return engine


def set_up(engine: Engine) -> None:
    """Sets options of the database in each new connection of an engine."""
    is_sqlite = engine.dialect.name == "sqlite"
    event.listen(engine, "connect", _set_up_sqlite if is_sqlite else _set_up_postgres)


def limit_waits(engine: Engine, seconds: float) -> None:
    """Makes each new connection wait for locks of other processes for some seconds at most."""
    is_sqlite = engine.dialect.name == "sqlite"
    milliseconds = round(1000 * seconds)
    statement = f"PRAGMA busy_timeout = {milliseconds}" if is_sqlite else f"SET lock_timeout = {milliseconds}"

    def limit(connection: Any, _record: Any) -> None:
        connection.execute(statement)
        if not is_sqlite:
            connection.commit()

    event.listen(engine, "connect", limit)
    engine.dispose()


def _set_up_postgres(connection: Any, _record: Any) -> None:
    connection.execute(f"SET lock_timeout = '{_LOCK_TIMEOUT_SECONDS}s'")
    connection.commit()


def _set_up_sqlite(connection: Any, _record: Any) -> None:
    # FULL syncs every commit to disk. With NORMAL, a power loss in WAL mode would lose the last commits, and
    # each commit stores a measurement that took seconds to minutes. A sync takes milliseconds.
    cursor = connection.cursor()
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()
