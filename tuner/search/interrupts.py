"""Lets a search end early and answer after the user's first Ctrl-C."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence

from tuner.domain.format import format_seconds
from tuner.search.events import SearchEvent
from tuner.search.policy import Stop, StopKind

#: After an interrupt, a running slice may continue to its end if that takes at most this number of seconds.
#: The script of a longer slice is asked to save and end.
FINISH_SECONDS = 60.0
#: Error that is stored with a slice that was stopped before its end.
INTERRUPTED_SLICE = "the slice was interrupted"
#: The end of an interrupted search.
INTERRUPTED_STOP = Stop(
    kind=StopKind.INTERRUPTED, reason="the search was interrupted; the same command resumes it"
)


class Interruption:
    """Whether the user has asked a search to end early and to answer.

    A signal handler calls `request`. The search reads `is_requested` between its steps.
    """

    def __init__(self) -> None:
        self.is_requested = False
        self._is_deferred = False

    def request(self) -> bool:
        """Asks the search to end. Returns False if no search runs, or if it was already asked to."""
        if self.is_requested or not self._is_deferred:
            return False
        self.is_requested = True
        return True

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Context manager of a search, which ends soon after a request."""
        before, self._is_deferred = self._is_deferred, True
        try:
            yield
        finally:
            self._is_deferred = before


def finish_event(remaining: Sequence[float], most_seconds: float) -> SearchEvent:
    """Returns the message of an interrupted search, with the time until its running slices have ended.

    Args:
        remaining: Expected remaining seconds of each running slice; 0 if unknown, infinite for a slice that
            is ended now.
        most_seconds: Maximum number of seconds until all slices have ended.
    """
    noun = "slice" if len(remaining) == 1 else f"{len(remaining)} slices"
    most = f"at most {format_seconds(max(most_seconds, 1.0))}"
    last = max(remaining, default=0.0)
    if last == 0:
        words = f"finishing the running {noun}: {most}"
    elif math.isfinite(last):
        words = f"finishing the running {noun}: about {format_seconds(last)}, {most}"
    else:
        words = (
            f"ending the running {noun} now, since it would take more than {format_seconds(FINISH_SECONDS)}; "
            f"a script may save a checkpoint first: {most}"
        )
    return SearchEvent(kind="warning", text=f"{words}; then the answer from what was measured")
