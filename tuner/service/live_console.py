"""Draws the live view of a search on a terminal, below the lines of its events."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TextIO

from rich.console import Console as Terminal
from rich.text import Text

from tuner.domain.safe_text import printable
from tuner.search.events import SearchEvent
from tuner.service.live_view import LiveView

#: Seconds between two drawings of the view.
_DRAW_SECONDS = 0.25
#: Seconds in which the interpreter notices a signal.
_SIGNAL_SECONDS = 0.05
#: Widest line of the view, in characters.
_MOST_COLUMNS = 120
#: Number of lines of events that are printed again after the terminal was resized.
_MOST_LINES = 200
#: Width of the time at the beginning of an event's line, under which the line is not continued.
_INDENT = 10
#: Size of a terminal that does not say its size.
_COLUMNS, _ROWS = 80, 24


class Screen:
    """The lower part of a terminal, which is drawn again and again.

    The cursor stays visible, at the beginning of the line below the drawn lines. So however the process ends,
    the terminal can be used as before.

    Args:
        stream: Stream of the terminal.
        size: Function that returns the columns and rows of the terminal.
        was_used: Function that says whether another program may have used the terminal since its last call.
            It is called immediately before the lines are written.
    """

    def __init__(
        self,
        stream: TextIO,
        size: Callable[[], tuple[int, int]],
        was_used: Callable[[], bool] = lambda: False,
    ) -> None:
        self._stream = stream
        self._size = size
        self._was_used = was_used
        self._terminal = Terminal(file=stream, highlight=False, soft_wrap=False)
        self._drawn: list[str] = []
        self._drawn_size: tuple[int, int] | None = None
        self._history: deque[Text] = deque(maxlen=_MOST_LINES)

    @property
    def width(self) -> int:
        """Number of columns that lines may use. The last column stays free, so that no line wraps."""
        return max(min(self._size()[0] - 1, _MOST_COLUMNS), 20)

    def forget(self) -> None:
        """Draws the next lines at the place of the cursor, as after another program has used the terminal."""
        self._drawn = []

    def draw(self, above: Sequence[Text], lines: Sequence[Text]) -> None:
        """Prints lines that stay, and draws the lower lines below them.

        Args:
            above: Lines that stay. They may be longer than the terminal is wide.
            lines: The lines that are drawn again by the next call.
        """
        columns, rows = size = self._size()
        self._history.extend(above)
        drawn = [self._rendered(line, columns - 1)[0] for line in lines[: max(rows - 1, 1)]]
        printed = [part for line in above for part in self._rendered(line, columns - 1, wrap=True)]
        if self._was_used():
            self.forget()
        out = f"\r\x1b[{len(self._drawn)}A" if self._drawn else "\r"
        if self._drawn and size != self._drawn_size:
            # The terminal may have wrapped or cut the old lines, so their places are not known.
            out = "\x1b[2J\x1b[H"
            printed = [
                part for line in self._history for part in self._rendered(line, columns - 1, wrap=True)
            ]
            printed = printed[-max(rows - 1 - len(drawn), 0) :] if rows - 1 > len(drawn) else []
        elif not printed and drawn == self._drawn:
            return
        out += "".join(f"{line}\x1b[K\n" for line in [*printed, *drawn]) + "\x1b[J"
        self._drawn, self._drawn_size = drawn, size
        self._stream.write(out)
        self._stream.flush()

    def _rendered(self, line: Text, width: int, *, wrap: bool = False) -> list[str]:
        """Returns a line as it is sent to the terminal, in parts that fit; only one part without `wrap`."""
        width = max(width, 10)
        if wrap:
            parts = _wrapped(line, self._terminal, width)
        else:
            parts = [line.copy()]
            parts[0].truncate(width, overflow="ellipsis" if self._terminal.encoding == "utf-8" else "crop")
        found = []
        for part in parts:
            with self._terminal.capture() as capture:
                self._terminal.print(part, end="", no_wrap=True, crop=False, overflow="ignore")
            found.append(capture.get())
        return found


def _wrapped(line: Text, terminal: Terminal, width: int) -> list[Text]:
    """Returns a line in parts that fit, all but the first with an indent."""
    if line.cell_len <= width:
        return [line]
    head, *tail = line.divide([_INDENT])
    parts = list((tail[0] if tail else Text()).wrap(terminal, max(width - _INDENT, 10)))
    indent = Text(" " * _INDENT)
    return [(indent if number else head) + part for number, part in enumerate(parts)]


class LiveConsole:
    """Prints the events of a search as lines, and draws the live view below them.

    Only one thread draws, so a signal never interrupts a drawing. While the view is shown, lines that other
    code prints to stdout or stderr appear above it.

    Args:
        view: Composes the live view.
        stream: Stream of the terminal.
        size: Function that returns the columns and rows of the terminal.
        is_foreground: Function that says whether this process may draw on the terminal now.
        clock: Function that returns the seconds on a monotonic clock.
    """

    def __init__(
        self,
        view: LiveView,
        stream: TextIO | None = None,
        *,
        size: Callable[[], tuple[int, int]] | None = None,
        is_foreground: Callable[[], bool] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._view = view
        stream = stream or sys.stderr
        self._stops = _Stops()
        self._screen = Screen(stream, size or (lambda: _size_of(stream)), self._stops.happened)
        self._is_foreground = is_foreground or (lambda: _is_foreground(stream))
        self._clock = clock
        self._started = clock()
        self._lines: deque[Text] = deque()
        self._wake = threading.Event()
        self._is_closed = False
        self._thread: threading.Thread | None = None
        self._cleanup = contextlib.ExitStack()

    def show(self, event: SearchEvent) -> None:
        """Prints an event as a line. The first decision of the search starts the live view."""
        if event.kind != "progress":
            self.add(self._view.event_line(event, self._clock() - self._started))
        if self._thread is None:
            if event.kind == "decision":
                self._start()
            else:
                self.draw(with_view=False)

    def add(self, line: Text) -> None:
        """Adds a line, which appears above the view."""
        self._lines.append(line)
        self._wake.set()

    def draw(self, *, with_view: bool = True) -> None:
        """Prints the added lines, and draws the view unless `with_view` is False."""
        if not self._is_foreground():
            self._screen.forget()
            return
        above = [self._lines.popleft() for _ in range(len(self._lines))]
        lines = self._view.lines(self._clock() - self._started, self._screen.width) if with_view else []
        self._screen.draw(above, lines)

    def close(self) -> None:
        """Removes the view; the lines of the events stay."""
        self._is_closed = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._cleanup.close()
        self.draw(with_view=False)

    def _start(self) -> None:
        self._cleanup.enter_context(self._stops.noticed())
        self._cleanup.enter_context(contextlib.redirect_stderr(LinesAbove(self, sys.stderr)))
        if sys.stdout.isatty():
            self._cleanup.enter_context(contextlib.redirect_stdout(LinesAbove(self, sys.stdout)))
        self._thread = threading.Thread(target=self._draw_always, name="live view", daemon=True)
        self._thread.start()

    def _draw_always(self) -> None:
        while not self._is_closed:
            # If the terminal is gone, or the view has an error, the search continues without the view.
            try:
                self.draw()
            except Exception:
                self._is_closed = True
            self._wake.wait(_DRAW_SECONDS)
            self._wake.clear()


class LinesAbove(io.TextIOBase):
    """A text stream whose lines appear above the live view.

    Args:
        console: Shows the live view.
        stream: The stream that this one replaces.
    """

    def __init__(self, console: LiveConsole, stream: TextIO) -> None:
        self._console = console
        self._stream = stream
        self._part = ""

    def write(self, text: str) -> int:
        """Adds all complete lines; the last part waits for its line break."""
        *lines, self._part = (self._part + text).split("\n")
        for line in lines:
            self._console.add(Text(printable(line)))
        return len(text)

    def flush(self) -> None:
        """Does nothing, since incomplete lines cannot be shown."""

    def isatty(self) -> bool:
        """Whether the replaced stream is a terminal."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """Returns the file descriptor of the replaced stream."""
        return self._stream.fileno()


def _size_of(stream: TextIO) -> tuple[int, int]:
    try:
        columns, rows = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        return _COLUMNS, _ROWS
    return columns or _COLUMNS, rows or _ROWS


def _is_foreground(stream: TextIO) -> bool:
    """Whether this process may use the terminal, and was not put into the background."""
    try:
        return os.tcgetpgrp(stream.fileno()) == os.getpgrp()
    except (OSError, ValueError):
        return True


class _Stops:
    """Tells a thread whether this process was stopped, as by Ctrl-Z, and then continued.

    The handler of a signal in Python runs only when the main thread is free, which may be after the next
    drawing. So this class reads the pipe into which the interpreter writes the number of a signal at once.
    """

    def __init__(self) -> None:
        self._read: int | None = None
        self._asked = time.monotonic()

    @contextlib.contextmanager
    def noticed(self) -> Iterator[None]:
        """Context manager in which stops are noticed. Outside the main thread it does nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        read, write = os.pipe()
        os.set_blocking(read, False)
        os.set_blocking(write, False)
        pipe_before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        handler_before = signal.signal(signal.SIGCONT, lambda _number, _frame: None)
        self._read = read
        try:
            yield
        finally:
            self._read = None
            signal.signal(signal.SIGCONT, handler_before)
            signal.set_wakeup_fd(pipe_before)
            os.close(read)
            os.close(write)

    def happened(self) -> bool:
        """Returns whether the process continued after a stop since the last call."""
        if self._read is None:
            return False
        waited, self._asked = time.monotonic() - self._asked, time.monotonic()
        if waited > 2 * _DRAW_SECONDS:
            # Perhaps the process continues just now, and this thread runs before the one with the signal.
            time.sleep(_SIGNAL_SECONDS)
        try:
            return signal.SIGCONT in os.read(self._read, 65536)
        except BlockingIOError:
            return False
