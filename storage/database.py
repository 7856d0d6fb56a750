"""Opens a study database, which contains Paceline's tables and Optuna's tables."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from shlex import quote
from types import TracebackType
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, event

from storage.engine import (
    check_folder,
    database_file,
    engine_for,
    engine_options,
    limit_waits,
    parsed,
    set_up,
)
from storage.failures import shown, translated
from storage.file_watch import FileWatch
from storage.job_queue import SqlJobQueue
from storage.job_rows import fence
from storage.one_at_a_time import one_at_a_time
from storage.outcomes import SqlOutcomes
from storage.recovery import Concluded, Recovered, concluded, recover, write_recovery
from storage.remote_slices import SqlRemoteSlices
from storage.retries import OPENING_SECONDS, Retries
from storage.schema import bring_to_head
from storage.sql_ledger import SqlLedger
from storage.study_reads import SqlStudyReads
from storage.tokens import SqlTokens
from storage.transactions import reading
from tuner.domain.errors import DatabaseLostError, StorageError
from tuner.domain.job_queue import JobLease

if TYPE_CHECKING:
    from optuna.storages import RDBStorage


class Storage:
    """An open study database. As a context manager, it closes the database at the end of the block.

    If the block ends with a measurement that could not be stored, or the database was lost in the meantime,
    the context manager writes a recovery file and raises a `StorageError` that names it.

    Args:
        engine: Engine of a database whose tables have the newest revision.
        clock: Returns the time in seconds since the Unix epoch; the ledger stores it with each record.
        retries: Repeats operations while the database is locked or cannot be reached.
    """

    def __init__(
        self, engine: Engine, clock: Callable[[], float] = time.time, retries: Retries | None = None
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._optuna: RDBStorage | None = None
        self._retries = retries or Retries(engine.url)
        path = database_file(engine.url)
        self._file = None if path is None else FileWatch(path)
        if self._file is not None:
            self._file.watch(engine)
        self.ledger = SqlLedger(engine, clock, self._retries)
        self.queue = SqlJobQueue(engine, clock, self._retries)
        self.tokens = SqlTokens(engine, clock, self._retries)
        self.reads = SqlStudyReads(engine, clock, self._retries)
        self.remote_slices = SqlRemoteSlices(engine, clock, self._retries)
        self.outcomes = SqlOutcomes(engine, self._retries)

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
            self._optuna = self._retries.wrapped(self._open_optuna)()
        return self._optuna

    def answer_within(self, seconds: float) -> None:
        """Makes operations fail after about this time while the database is locked or cannot be reached.

        This is for servers: their clients try again, and must not wait for as long as a search does.
        """
        self._retries.seconds = seconds
        limit_waits(self._engine, seconds)

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Context manager that turns a database error raised in its block into a `StorageError`."""
        with translated(self._engine.url, files=False):
            yield

    @contextmanager
    def fenced(self, lease: JobLease) -> Iterator[None]:
        """Context manager in whose block nothing is stored in a study once a job has another attempt.

        This holds for the ledger and for Optuna's tables: each transaction checks the attempt in itself.

        Args:
            lease: The right of this process to run the job.
        """
        self.ledger.fence = partial(fence, lease=lease)
        try:
            yield
        finally:
            self.ledger.fence = None

    def recover(self, path: Path) -> Recovered:
        """Adds the studies, probes and slices in a recovery file to the database, unless it has them already.

        Raises:
            StorageError: The file is not a recovery file, the database cannot be written, or another process
                is running one of the probes in the file.
        """
        return recover(self._engine, path, self._clock)

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
        try:
            lost = error if isinstance(error, DatabaseLostError) else self._loss()
            if lost is not None or self.ledger.has_unstored:
                self._save(lost or error, everything=lost is not None)
            if lost is not None:
                raise lost
        finally:
            self.close()
            if self._file is not None:
                with suppress(OSError):
                    self._file.drop_log()

    def _loss(self) -> DatabaseLostError | None:
        try:
            if self._file is not None:
                self._file.check()
        except DatabaseLostError as error:
            return error
        except OSError as error:
            return DatabaseLostError(f"the study database {self.url} cannot be examined: {error.strerror}")
        return None

    def _save(self, error: BaseException | None, *, everything: bool) -> None:
        """Writes what was measured to a recovery file; does nothing if nothing was measured.

        Args:
            error: The error that ended the use of the database, if any; the message quotes a `StorageError`.
            everything: Whether to write all studies; otherwise, only probes with a slice that is not stored.

        Raises:
            StorageError: The file was written, and the message names it; or no folder could be written.
        """
        measured = self.ledger.unsaved(everything=everything)
        if not any(records for _, records in measured):
            return
        file = database_file(self._engine.url)
        folder, name = (Path.cwd(), "paceline") if file is None else (file.parent, file.name)
        conclusions: Concluded = {}
        if everything:
            with suppress(StorageError), reading(self._engine) as connection:
                conclusions = concluded(connection)
        path = write_recovery(measured, folder, name, conclusions)
        # A command with a masked password would not work.
        url = "URL` with the URL of your database in place of `URL" if "***" in self.url else quote(self.url)
        happened = str(error) if isinstance(error, StorageError) else "a measurement could not be stored"
        raise StorageError(
            f"{happened}. What was measured is in {path}. To continue, move the database away if it is "
            f"damaged, run `paceline db recover {quote(str(path))} {url}`, and run your command again"
        ) from error

    def _check_fence(self, connection: Connection) -> None:
        if self.ledger.fence is not None:
            self.ledger.fence(connection)

    def _open_optuna(self) -> RDBStorage:
        with one_at_a_time(self._engine), translated(self._engine.url):
            return self._new_optuna()

    def _new_optuna(self) -> RDBStorage:
        from storage.optuna_storage import retrying_storage

        url = self._engine.url
        # Optuna applies `str.format` to the URL, so literal braces must be doubled.
        escaped = url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")
        kind = retrying_storage(self._retries)
        try:
            opened = kind(escaped, engine_kwargs=engine_options(url))
        except RuntimeError as error:
            # Optuna raises this if its tables belong to another version of Optuna.
            raise StorageError(
                f"the study database {shown(url)} was written by another version of Optuna: {error}"
            ) from error
        event.listen(opened.engine, "commit", self._check_fence)
        if self._file is not None:
            self._file.watch(opened.engine)
        else:
            set_up(opened.engine)
            # Close the connections that Optuna opened before: they do not have the options from `set_up`.
            opened.engine.dispose()
        return opened


def open_storage(url: str, clock: Callable[[], float] = time.time) -> Storage:
    """Opens the study database at `url`, and creates or upgrades its tables if needed.

    If the database is locked or cannot be reached, this is tried again for `OPENING_SECONDS`.

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
    retries = Retries(engine.url)
    try:
        retries.wrapped(bring_to_head, OPENING_SECONDS)(engine)
    except BaseException:
        engine.dispose()
        raise
    return Storage(engine, clock, retries)
