"""Repeats operations on a database while it is locked or cannot be reached."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from sqlalchemy import URL

from storage.failures import is_temporary, storage_error

#: Seconds for which an operation is repeated while the database is locked or cannot be reached.
RETRY_SECONDS = 600
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")
_logger = logging.getLogger(__name__)


class Retries:
    """Repeats failed operations on one database for `RETRY_SECONDS`, with growing pauses.

    The time counts from the first failure after the last success, for all operations together. Therefore, if
    one operation has failed for that time, the next ones (such as releasing leases) are tried only once.

    Args:
        url: URL of the database, for the messages.
    """

    def __init__(self, url: URL) -> None:
        self._url = url
        self._failing_since: float | None = None

    def wrapped(self, operation: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
        """Returns a function that repeats an operation while it fails for a temporary reason.

        Args:
            operation: A function that reads or writes the database. It must be safe to call it again after
                it failed.
        """

        @wraps(operation)
        def repeated(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
            pause = _FIRST_PAUSE_SECONDS
            while True:
                try:
                    result = operation(*args, **kwargs)
                except Exception as error:
                    if not is_temporary(error) or not self._may_repeat(error):
                        raise
                else:
                    self._failing_since = None
                    return result
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

        return repeated

    def _may_repeat(self, error: Exception) -> bool:
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
            _logger.warning(
                "%s. Paceline tries again for up to %g s", storage_error(error, self._url), RETRY_SECONDS
            )
        return now - self._failing_since < RETRY_SECONDS
