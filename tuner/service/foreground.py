"""Runs a search in the foreground: shows its progress, and lets the first Ctrl-C end it with an answer."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from types import FrameType

from tuner.search.events import Listener, SearchEvent
from tuner.search.interrupts import Interruption
from tuner.service.console import Console, JsonConsole, PlainConsole, QuietConsole
from tuner.service.job_progress import ProgressWatch
from tuner.service.opening import OpenedJob
from tuner.service.options import LogFormat
from tuner.service.output import log_settings, say, write_log

#: Shown at once after the first Ctrl-C during a search.
INTERRUPT_WORDS = "Interrupted: finishing the slice, then answering; press Ctrl-C again to stop at once"


@contextlib.contextmanager
def in_foreground(opened: OpenedJob) -> Iterator[tuple[OpenedJob, Listener]]:
    """Context manager that yields the job with its watcher, and a listener of search events.

    Progress goes to stderr: a live view if stderr is a terminal that can show it, else plain or JSON lines.
    """
    watch = ProgressWatch(is_real=opened.job.recording() is None)
    console = _console(opened, watch)

    def listen(event: SearchEvent) -> None:
        watch.listen(event)
        console.show(event)

    try:
        with _interruptible(opened.interruption, listen):
            yield replace(opened, watch=watch.watch), listen
    finally:
        console.close()


def _console(opened: OpenedJob, watch: ProgressWatch) -> Console:
    log = log_settings()
    if log.format is LogFormat.JSON:
        return JsonConsole(write_log, watch.usage, is_quiet=log.is_quiet)
    if log.is_quiet:
        return QuietConsole(PlainConsole(say))
    if not can_redraw():
        return PlainConsole(say)
    from tuner.service.live_console import LiveConsole
    from tuner.service.live_view import LiveView

    is_ascii = (sys.stderr.encoding or "ascii").lower().replace("-", "") != "utf8"
    has_prices = opened.cluster.has_prices
    return LiveConsole(LiveView(job=opened.job, has_prices=has_prices, watch=watch, is_ascii=is_ascii))


def can_redraw() -> bool:
    """Whether stderr is a terminal on which lines can be drawn again."""
    return sys.stderr.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown", "")


@contextlib.contextmanager
def _interruptible(interruption: Interruption, listen: Listener) -> Iterator[None]:
    """Context manager in which the first Ctrl-C during a search only asks the search to end.

    A second Ctrl-C, or the first one outside of a search, raises `KeyboardInterrupt`. Outside the main
    thread, where signals cannot be handled, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_interrupt(_number: int, _frame: FrameType | None) -> None:
        if not interruption.request():
            raise KeyboardInterrupt
        listen(SearchEvent(kind="warning", text=INTERRUPT_WORDS))

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
