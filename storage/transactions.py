"""Context managers for atomic transactions on SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine

from storage.failures import decoding, translated


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """Context manager for a write transaction; commits at the end, and rolls back on any exception.

    On SQLite, it takes the write lock at the start. Otherwise SQLite would reject a transaction that reads
    and then writes, if another process has written in between.

    Raises:
        StorageError: The database cannot be written.
    """
    with translated(engine.url), engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        yield connection


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """Context manager for a read transaction, whose statements all see the same snapshot of the database.

    Raises:
        StorageError: The database cannot be read, or a row cannot be converted to a record.
    """
    with decoding(engine.url), translated(engine.url), engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN")
        else:
            connection.execution_options(isolation_level="REPEATABLE READ")
        yield connection
