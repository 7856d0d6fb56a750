"""Opens a study database, which contains Paceline's tables and Optuna's tables."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

from sqlalchemy import Engine

from storage.engine import check_folder, engine_for, engine_options, parsed
from storage.failures import shown, translated
from storage.one_at_a_time import one_at_a_time
from storage.schema import bring_to_head
from storage.sql_ledger import SqlLedger
from tuner.domain.errors import StorageError

if TYPE_CHECKING:
    from optuna.storages import RDBStorage


class Storage:
    """An open study database. As a context manager, it closes the database at the end of the block.

    Args:
        engine: Engine of a database whose tables have the newest revision.
        clock: Returns the time in seconds since the Unix epoch; the ledger stores it with each record.
    """

    def __init__(self, engine: Engine, clock: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._optuna: RDBStorage | None = None
        self.ledger = SqlLedger(engine, clock)

    @property
    def url(self) -> str:
        """URL of the database, with the password hidden."""
        return shown(self._engine.url)

    def optuna_storage(self) -> RDBStorage:
        """Returns Optuna's storage in the same database, and creates Optuna's tables if they are missing.

        Raises:
            StorageError: The database cannot be written, or another version of Optuna created its tables.
        """
        if self._optuna is None:
            # Import before taking the lock: the import may take seconds while others wait for the lock.
            importlib.import_module("optuna.storages")
            with one_at_a_time(self._engine), translated(self._engine.url):
                self._optuna = self._open_optuna()
        return self._optuna

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Context manager that turns a database error raised in its block into a `StorageError`."""
        with translated(self._engine.url, files=False):
            yield

    def close(self) -> None:
        """Closes every connection; the storage cannot be used afterwards."""
        if self._optuna is not None:
            self._optuna.remove_session()
            self._optuna.engine.dispose()
            self._optuna = None
        self._engine.dispose()

    def __enter__(self) -> Storage:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _open_optuna(self) -> RDBStorage:
        from optuna.storages import RDBStorage

        url = self._engine.url
        # Optuna takes its URL for a format string.
        escaped = url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")
        try:
            return RDBStorage(escaped, engine_kwargs=engine_options(url))
        except RuntimeError as error:
            # Optuna raises this if its tables belong to another version of Optuna.
            raise StorageError(
                f"the study database {shown(url)} was written by another version of Optuna: {error}"
            ) from error


def open_storage(url: str, clock: Callable[[], float] = time.time) -> Storage:
    """Opens the study database at `url`, and creates or upgrades its tables if needed.

    Args:
        url: A SQLAlchemy URL: `sqlite:///study.db`, or `postgresql://user:password@host/database`.
        clock: Returns the time in seconds since the Unix epoch; the ledger stores it with each record.

    Raises:
        StorageError: The URL is not valid, the folder is missing or not writable, the server cannot be
            reached, the file is not a database, or a newer Paceline wrote it.
    """
    parts = parsed(url)
    check_folder(parts)
    engine = engine_for(parts)
    try:
        bring_to_head(engine)
    except BaseException:
        engine.dispose()
        raise
    return Storage(engine, clock)
