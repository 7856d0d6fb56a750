"""Atomic transactions, on SQLite as on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine

from storage.failures import decoding, translated


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that writes; committed at the end, undone by any exception.

    On SQLite it takes the write lock at once: a transaction that first reads and then writes is
    refused without waiting when another one wrote in between.

    Raises:
        StorageError: The database cannot be written.
    """
    with translated(engine.url), engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        yield connection


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A transaction whose statements all see one consistent snapshot of the database.

    Raises:
        StorageError: The database cannot be read, or contains what no record can be made of.
    """
    with decoding(engine.url), translated(engine.url), engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN")
        else:
            connection.execution_options(isolation_level="REPEATABLE READ")
        yield connection
