"""Converts database errors to `StorageError`, whose message states the database, the cause and the remedy."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote_plus

from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from tuner.domain.errors import DatabaseLostError, DatabaseUnavailableError, StorageError, TunerError

_HIDDEN = "***"

_PERMISSION = ("is not writable", "give this user the right to read and write the file and its folder")
_FULL = ("has no space left", "free space on its disk; the data stored so far are complete")
_LOCKED = (
    "is locked by another process",
    "end the process that holds the lock, or use PostgreSQL for many workers",
)
_UNREACHABLE = ("cannot be reached", "start the server, and check the network and the URL's host and port")
_DAMAGED = ("is damaged", "restore a copy, or try to repair it with `sqlite3 FILE .recover`")
_RIGHTS = ("refuses the operation", "grant this user all rights on the database and its schema")
_CROWDED = (
    "accepts no more connections",
    "raise max_connections of the server, or run fewer workers",
)
_NO_MEMORY = ("has no memory left", "free memory on its server; the data stored so far are complete")
_CANCELLED = ("ended a statement that took too long", "raise statement_timeout of the server")
_READ_ONLY = ("is read-only", "give the URL of the primary server, not of a standby")
_LOGIN = ("refuses the login", "check user and password of the URL")

#: Maps the beginning of a SQLite error name to the problem and the remedy, in words.
_SQLITE = {
    "SQLITE_CANTOPEN": ("cannot be opened", "check that its folder exists and is writable"),
    "SQLITE_READONLY": _PERMISSION,
    "SQLITE_PERM": _PERMISSION,
    "SQLITE_AUTH": _PERMISSION,
    "SQLITE_FULL": _FULL,
    "SQLITE_BUSY": _LOCKED,
    "SQLITE_LOCKED": _LOCKED,
    "SQLITE_PROTOCOL": ("cannot be locked", "keep it on a local disk, or use PostgreSQL"),
    "SQLITE_NOTADB": ("is not a SQLite database", "give another file; this one was not changed"),
    "SQLITE_CORRUPT": _DAMAGED,
    "SQLITE_IOERR": ("cannot be read or written", "check its disk; keep the file on a local disk"),
}

#: Maps the beginning of a PostgreSQL SQLSTATE code to the problem and the remedy, in words.
_SQLSTATES = {
    "28": _LOGIN,
    "3D000": ("does not exist", "create it with `createdb NAME`"),
    "42501": _RIGHTS,
    "25006": _READ_ONLY,
    "53100": _FULL,
    "53200": _NO_MEMORY,
    "53300": _CROWDED,
    "55P03": _LOCKED,
    "40001": _LOCKED,
    "40P01": _LOCKED,
    "57014": _CANCELLED,
    "08": _UNREACHABLE,
    "57P": _UNREACHABLE,
}

#: Maps a pattern of psycopg's messages to the problem and the remedy; errors of connecting have no SQLSTATE.
_WORDS = {
    r"password authentication failed|no password supplied|no pg_hba.conf|role .* does not exist": _LOGIN,
    r"database .* does not exist": _SQLSTATES["3D000"],
    r"too many clients|remaining connection slots": _CROWDED,
    r"invalid (integer value|port|connection option|URI)": ("cannot be opened", "correct its URL"),
    r"refused|timeout|timed out|resolve|translate host name|No such file|unreachable|closed": _UNREACHABLE,
    r"the database system is|connection is (lost|bad)|by peer|pipe|EOF": _UNREACHABLE,
    # Any other refusal, such as one in another language: the server may accept the next attempt.
    r"connection failed|connection to server": _UNREACHABLE,
}

_OTHER = (
    "refused a statement",
    "if another program changed its tables, restore a copy, or give another database",
)

#: An operation that failed for one of these reasons is repeated for some time.
_TEMPORARY = (_LOCKED, _UNREACHABLE, _CROWDED)
#: These faults are not those of a job: a later attempt may succeed.
_PASSING = (*_TEMPORARY, _FULL, _NO_MEMORY, _CANCELLED, _READ_ONLY)

_ERRNOS = {
    errno.EACCES: _PERMISSION,
    errno.EPERM: _PERMISSION,
    errno.EROFS: _PERMISSION,
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
}


def shown(url: URL) -> str:
    """Returns a database URL as text, with passwords hidden, also those of the query (`?password=...`)."""
    secret = {key: _HIDDEN for key in url.query if "password" in key.lower()}
    text = url.update_query_dict(secret).render_as_string(hide_password=True)
    return text.replace(quote_plus(_HIDDEN), _HIDDEN)


def masked(text: str) -> str:
    """Returns a text that may not be a valid URL, with everything hidden that may be a password."""
    text = re.sub(r"^([^:]+:(?://)?[^:@/]*:).*@", rf"\1{_HIDDEN}@", text)
    return re.sub(r"(password=)[^&]*", rf"\1{_HIDDEN}", text, flags=re.IGNORECASE)


def storage_error(error: BaseException, url: URL) -> StorageError:
    """Returns a `StorageError` for an exception of the database at `url`, with cause and remedy in words."""
    if isinstance(error, OSError):
        happened, remedy = _ERRNOS.get(error.errno or 0, _SQLITE["SQLITE_IOERR"])
        reason = f"{error.strerror or error}"
    else:
        original = _original(error)
        happened, remedy = _diagnosis(original)
        reason = " ".join(str(original).split())
    kind: type[StorageError] = StorageError
    if (happened, remedy) == _DAMAGED:
        kind = DatabaseLostError
    elif (happened, remedy) in _PASSING:
        kind = DatabaseUnavailableError
    return kind(f"the study database {shown(url)} {happened}: {reason}. To do: {remedy}")


def is_temporary(error: BaseException) -> bool:
    """Whether a database refused an operation because it is locked, busy or cannot be reached at present."""
    original = _original(error)
    return original is not error and _diagnosis(original) in _TEMPORARY


def _original(error: BaseException) -> BaseException:
    """Returns the error of the database driver that an error was raised from, or the error itself."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, DBAPIError) and cause.orig is not None:
            return cause.orig
        cause = cause.__cause__
    return error


def _diagnosis(error: BaseException) -> tuple[str, str]:
    if isinstance(error, UnicodeDecodeError):
        # SQLite quotes bytes of a damaged schema in its message, which its Python driver cannot decode.
        return _DAMAGED
    name = getattr(error, "sqlite_errorname", None) or ""
    state = getattr(error, "sqlstate", None) or ""
    for beginning, diagnosis in _SQLITE.items():
        if name.startswith(beginning):
            return diagnosis
    for beginning, diagnosis in _SQLSTATES.items():
        if state.startswith(beginning):
            return diagnosis
    if name or state:
        # The text of an error with a code may quote values of a row.
        return _OTHER
    for pattern, diagnosis in _WORDS.items():
        if re.search(pattern, str(error), re.IGNORECASE):
            return diagnosis
    return _OTHER


@contextmanager
def decoding(url: URL) -> Iterator[None]:
    """Context manager that raises `StorageError` if its block cannot convert a row to a record."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise StorageError(
            f"the study database {shown(url)} has a row that cannot be read: {reason}. "
            "To do: restore a copy, or give another database with --storage"
        ) from error


@contextmanager
def translated(url: URL, *, files: bool = True) -> Iterator[None]:
    """Context manager that turns errors of the database or its disk into `StorageError`.

    An exception of another library, such as Optuna, is converted as well if its cause is a SQLAlchemy error.

    Args:
        url: URL of the database, for the message.
        files: Whether to convert an `OSError` too; false if the block also uses files of other kinds.
    """
    try:
        yield
    except TunerError:
        raise
    except (SQLAlchemyError, UnicodeDecodeError) as error:
        raise storage_error(error, url) from error
    except Exception as error:
        if isinstance(error.__cause__, SQLAlchemyError):
            raise storage_error(error, url) from error
        if files and isinstance(error, OSError):
            raise storage_error(error, url) from error
        raise
