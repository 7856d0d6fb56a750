"""A lock between processes, so that only one process at a time creates or migrates a database's tables."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Engine

from storage.engine import database_file
from storage.failures import shown, translated
from tuner.domain.errors import StorageError

#: Maximum seconds for which a process waits for the lock. This is long, because if many workers start
#: together on a busy machine, the last one may wait for minutes. A killed process does not keep the lock.
_TIMEOUT_SECONDS = 300
#: Key of the advisory lock in PostgreSQL: the bytes of "paceline" as a 64-bit number.
_ADVISORY_LOCK = int.from_bytes(b"paceline")


@contextmanager
def one_at_a_time(engine: Engine) -> Iterator[None]:
    """Context manager that holds an exclusive lock on a database during its block.

    The lock excludes other processes. It is released at once if the process is killed.

    Raises:
        StorageError: Another process held the lock for five minutes, or the server cannot be reached.
    """
    path = database_file(engine.url)
    with _folder_lock(path, engine) if path is not None else _advisory_lock(engine):
        yield


@contextmanager
def _folder_lock(path: Path, engine: Engine) -> Iterator[None]:
    # Lock the folder instead of the file: closing any descriptor of the file would drop SQLite's own locks
    # (https://www.sqlite.org/howtocorrupt.html, section 2.2).
    with translated(engine.url):
        folder = os.open(path.parent, os.O_RDONLY)
    try:
        with translated(engine.url):
            _wait_for(folder, engine)
        yield
    finally:
        os.close(folder)


def _wait_for(descriptor: int, engine: Engine) -> None:
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise StorageError(
                    f"the study database {shown(engine.url)} is locked: another process has been setting "
                    f"it up for {_TIMEOUT_SECONDS} s; end that process, or wait for it"
                ) from error
            time.sleep(0.02)


@contextmanager
def _advisory_lock(engine: Engine) -> Iterator[None]:
    with translated(engine.url):
        connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    try:
        with translated(engine.url):
            connection.exec_driver_sql(f"SET lock_timeout = '{_TIMEOUT_SECONDS}s'")
            connection.exec_driver_sql(f"SELECT pg_advisory_lock({_ADVISORY_LOCK})")
        yield
    finally:
        # The lock and the setting belong to the session: close it instead of returning it to the pool.
        connection.invalidate()
        connection.close()
