"""Creates SQLAlchemy engines from database URLs: supported databases and connection settings."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError

from storage.failures import shown
from tuner.domain.errors import StorageError

#: How long a writer waits for another one. SQLite serves waiting writers in no order: of eight processes on
#: one file one met a lock error after 30 seconds, on two cores under a load of 15 and an Optuna study.
BUSY_TIMEOUT_SECONDS = 120

_CONNECT_TIMEOUT_SECONDS = 10
_EXAMPLES = "sqlite:///study.db, or postgresql://user:password@host/database"


def parsed(url: str) -> URL:
    """Parses a database URL; adds the driver and, for SQLite, the absolute path of the file.

    Raises:
        StorageError: It is not a valid URL, or names a database that Paceline does not support.
    """
    try:
        parts = make_url(url)
    except ArgumentError as error:
        masked = re.sub(r"(?<=:)[^:@/]+(?=@)", "***", url)
        raise StorageError(f"{masked!r} is no database URL; an example is {_EXAMPLES}") from error
    dialect = parts.drivername.split("+")[0]
    if dialect in ("postgresql", "postgres"):
        return parts.set(drivername="postgresql+psycopg")
    if dialect != "sqlite":
        raise StorageError(
            f"{shown(parts)}: studies are stored in SQLite or PostgreSQL, not in {dialect}; "
            f"an example is {_EXAMPLES}"
        )
    if not parts.database or parts.database.startswith((":memory:", "file:")):
        raise StorageError(f"{shown(parts)} names no file to store a study in; an example is {_EXAMPLES}")
    path = Path(parts.database).expanduser().absolute()
    return parts.set(drivername="sqlite", database=str(path))


def database_file(url: URL) -> Path | None:
    """The file of a SQLite database; None for a database on a server."""
    if url.get_backend_name() != "sqlite" or url.database is None:
        return None
    return Path(url.database)


def check_folder(url: URL) -> None:
    """Checks that a SQLite file can be created or written at the path in the URL.

    Raises:
        StorageError: The folder is missing or not writable, or the path names a folder.
    """
    path = database_file(url)
    if path is None:
        return
    if not path.parent.is_dir():
        raise StorageError(
            f"the study database {shown(url)} needs the folder {path.parent}, which does not exist; "
            "create it, or name another with --storage"
        )
    if path.is_dir():
        raise StorageError(f"the study database {shown(url)} is a folder; name a file in it with --storage")
    needed = [path.parent, path] if path.exists() else [path.parent]
    for place in needed:
        if not os.access(place, os.R_OK | os.W_OK):
            raise StorageError(
                f"the study database {shown(url)} is not writable: no right to write {place}; "
                "give this user the right, or name another place with --storage"
            )


def engine_options(url: URL) -> dict[str, Any]:
    """Keyword arguments of `create_engine` for this URL, used by Paceline and Optuna."""
    if database_file(url) is not None:
        return {"connect_args": {"timeout": BUSY_TIMEOUT_SECONDS}}
    arguments: dict[str, Any] = {}
    if "connect_timeout" not in url.query:
        arguments["connect_timeout"] = _CONNECT_TIMEOUT_SECONDS
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
    if database_file(url) is not None:
        event.listen(engine, "connect", _set_up_sqlite)
    return engine


def _set_up_sqlite(connection: Any, _record: Any) -> None:
    # A commit is synced to disk (FULL). NORMAL would survive kill -9 as well, yet in WAL mode a power
    # loss takes the last commits with it, and each of ours holds seconds to minutes of paid probing:
    # a sync of milliseconds every slice is nothing against that.
    cursor = connection.cursor()
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()
