"""Delays interrupts while code runs that cannot be interrupted safely."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def interrupts_deferred() -> Iterator[None]:
    """Delays SIGINT and SIGTERM until the block has ended; outside the main thread it does nothing.

    Importing torch calls Python from C++. A `KeyboardInterrupt` raised there aborts the process with a page
    of stack frames, instead of ending the command.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pending: list[int] = []
    before = {
        number: signal.signal(number, lambda received, _frame: pending.append(received))
        for number in _SIGNALS
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if pending:
            signal.raise_signal(pending[0])
