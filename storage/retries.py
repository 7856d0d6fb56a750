"""Repeats operations on a database while it is locked or cannot be reached."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from sqlalchemy import URL

from storage.failures import is_temporary, storage_error
from tuner.domain.errors import StorageError

#: Seconds for which an operation is repeated while the database is locked or cannot be reached. The nodes of
#: a job wait longer for the tuner (`orphan_seconds` of the launcher), so an outage ends no training.
RETRY_SECONDS = 600
#: The same while a database is being opened: long enough for a restart of a server, but a wrong URL must not
#: make a user wait for minutes.
OPENING_SECONDS = 30
#: The same after Ctrl-C: long enough for a short lock, but the user wants to leave.
_LEAVING_SECONDS = 3
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")
_logger = logging.getLogger(__name__)


class Retries:
    """Repeats failed operations on one database for some time, with growing pauses.

    The time counts from the first failure after the last success, for all operations together. Therefore, if
    one operation has failed for that time, the next ones (such as releasing leases) are tried only once.

    Ctrl-C during a retry ends it. All later operations then fail at once, without another try, so that one
    Ctrl-C is enough to leave.

    Args:
        url: URL of the database, for the messages.
    """

    def __init__(self, url: URL) -> None:
        self._url = url
        self._failing_since: float | None = None
        self._given_up: StorageError | None = None
        #: Maximum seconds of retries.
        self.seconds: float = RETRY_SECONDS

    def wrapped(
        self, operation: Callable[_Arguments, _Result], seconds: float | None = None
    ) -> Callable[_Arguments, _Result]:
        """Returns a function that repeats an operation while it fails for a temporary reason.

        Args:
            operation: A function that reads or writes the database. It must be safe to call it again after
                it failed, even if its changes were committed.
            seconds: Maximum seconds of retries; `self.seconds` by default.
        """

        @wraps(operation)
        def repeated(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
            return self.repeat(lambda _again: operation(*args, **kwargs), seconds)

        return repeated

    def repeat(self, operation: Callable[[bool], _Result], seconds: float | None = None) -> _Result:
        """Calls an operation until it succeeds or fails for a lasting reason, and returns its result.

        Args:
            operation: A function that reads or writes the database. Its argument says whether an earlier call
                failed. The changes of that call may have been committed, if the connection was cut before
                the confirmation arrived.
            seconds: Maximum seconds of retries; `self.seconds` by default.
        """
        if self._given_up is not None:
            raise self._given_up
        pause, again = _FIRST_PAUSE_SECONDS, False
        failure: Exception | None = None
        try:
            while True:
                try:
                    result = operation(again)
                except Exception as error:
                    if not is_temporary(error) or not self._may_repeat(error, seconds or self.seconds):
                        raise
                    failure, again = error, True
                else:
                    self._failing_since = None
                    return result
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        except KeyboardInterrupt:
            if failure is not None:
                self._given_up = storage_error(failure, self._url)
            raise

    def _may_repeat(self, error: Exception, seconds: float) -> bool:
        now = time.monotonic()
        is_leaving = _follows_interrupt(error)
        seconds = min(seconds, _LEAVING_SECONDS) if is_leaving else seconds
        if self._failing_since is None:
            self._failing_since = now
            _logger.warning(
                "%s. Paceline tries again for up to %g s", storage_error(error, self._url), seconds
            )
        may = now - self._failing_since < seconds
        if is_leaving and not may:
            self._given_up = storage_error(error, self._url)
        return may


def _follows_interrupt(error: BaseException | None) -> bool:
    """Whether an error was raised while Ctrl-C was being handled."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


class _Retrying(Protocol):
    """An object whose methods can be repeated."""

    @property
    def _retries(self) -> Retries: ...


_Object = TypeVar("_Object", bound=_Retrying)


def retried(
    method: Callable[Concatenate[_Object, _Arguments], _Result],
) -> Callable[Concatenate[_Object, _Arguments], _Result]:
    """Decorator: repeats a method while the database is locked or cannot be reached.

    The object has its `Retries` in the attribute `_retries`. The method must be safe to call again.
    """

    @wraps(method)
    def repeated(self: _Object, /, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        return self._retries.wrapped(method)(self, *args, **kwargs)

    return repeated
