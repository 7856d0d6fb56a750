"""Notices that the file of an open SQLite database was deleted, replaced or truncated."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy import Engine, event

from tuner.domain.errors import DatabaseLostError

#: Numbers of a file's device and inode.
_Identity = tuple[int, int]


class FileWatch:
    """Checks before each commit that the file at a path is still the SQLite file that was opened.

    SQLite itself would continue to write to a deleted file, whose data is lost when the process ends.

    Args:
        path: Path of the file, which exists.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._identity = _identity(path)
        self._num_bytes = path.stat().st_size
        self._logs = self._log_files()

    def watch(self, engine: Engine) -> None:
        """Calls `check` before each new connection and each commit of an engine, and after each error."""
        # A connection to a deleted file would create an empty one.
        event.listen(engine, "do_connect", lambda *_: self.check())
        event.listen(engine, "commit", lambda *_: self.check())
        event.listen(engine, "handle_error", lambda *_: self.check())

    def check(self) -> None:
        """Checks that the database file is still there and complete.

        Raises:
            DatabaseLostError: The file was deleted, replaced or truncated.
        """
        happened = self._happened()
        if happened:
            raise DatabaseLostError(f"the study database {self._path} was {happened} while it was in use")

    def drop_log(self) -> None:
        """Deletes the write-ahead log of a lost file; call it when all connections are closed.

        SQLite would apply the log to a new file at the same path, and so damage the new file.
        """
        if _identity(self._path) == self._identity:
            return
        for path, identity in self._logs.items():
            if identity is not None and _identity(path) == identity:
                path.unlink(missing_ok=True)

    def _happened(self) -> str:
        identity = _identity(self._path)
        if identity is None:
            return "deleted"
        if identity != self._identity:
            return "replaced by another file"
        num_bytes = self._path.stat().st_size
        # VACUUM makes a file smaller, too.
        if num_bytes < self._num_bytes and not self._is_complete():
            return f"truncated from {self._num_bytes} to {num_bytes} bytes"
        self._num_bytes, self._logs = num_bytes, self._log_files()
        return ""

    def _is_complete(self) -> bool:
        """Whether the file is an undamaged database with the table of studies, as after VACUUM.

        This uses SQLite, because closing a file that was opened in another way would drop SQLite's locks
        (https://www.sqlite.org/howtocorrupt.html, section 2.2).
        """
        try:
            with closing(sqlite3.connect(f"{self._path.as_uri()}?mode=rw", uri=True)) as connection:
                connection.execute("SELECT 1 FROM paceline_studies LIMIT 1")
                return bool(connection.execute("PRAGMA quick_check(1)").fetchone() == ("ok",))
        except sqlite3.Error:
            return False

    def _log_files(self) -> dict[Path, _Identity | None]:
        paths = [self._path.with_name(f"{self._path.name}-{end}") for end in ("wal", "shm")]
        return {path: _identity(path) for path in paths}


def _identity(path: Path) -> _Identity | None:
    """Returns the numbers of a file's device and inode; None if there is no file."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino
