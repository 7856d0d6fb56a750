"""A terminal of some size in which a test runs a command, and what the terminal shows."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyte

#: The end of a test that waits for something that does not come.
TIMEOUT_SECONDS = 120.0


class ShownTerminal:
    """Runs a command on a pseudo-terminal. The command leads a session, as if a shell had started it.

    Args:
        arguments: The command.
        folder: Its working folder.
        columns: Width of the terminal.
        rows: Height of the terminal.
        environment: Variables to add to the environment.
    """

    def __init__(
        self, arguments: list[str], folder: Path, *, columns: int, rows: int, environment: dict[str, str]
    ) -> None:
        self.screen = pyte.HistoryScreen(columns, rows, history=2000)
        self._stream = pyte.ByteStream(self.screen)
        self.written = b""
        self.code: int | None = None
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            # The size must be known before the command asks for it.
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            os.execve(arguments[0], arguments, {**os.environ, "TERM": "xterm-256color", **environment})

    def read(self, seconds: float = 0.1) -> None:
        """Reads what the command writes in so many seconds."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if not select.select([self._fd], [], [], left)[0]:
                return
            try:
                data = os.read(self._fd, 65536)
            except OSError:
                data = b""
            if not data:
                self._ended()
                return
            self.written += data
            self._stream.feed(data)

    def _ended(self) -> None:
        if self.code is None:
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def type(self, text: str) -> None:
        """Types on the keyboard; `\\x03` is Ctrl-C."""
        os.write(self._fd, text.encode())

    def resize(self, columns: int, rows: int) -> None:
        """Changes the size of the terminal."""
        self.screen.resize(rows, columns)
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        os.kill(self.pid, signal.SIGWINCH)

    @property
    def lines(self) -> list[str]:
        """The lines on the screen, without the empty ones at the end."""
        return [line.rstrip() for line in "\n".join(self.screen.display).rstrip().split("\n")]

    @property
    def text(self) -> str:
        """The text on the screen, with single spaces."""
        return " ".join(" ".join(self.lines).split())

    @property
    def log(self) -> str:
        """All text that was ever printed, without colors."""
        return self.written.decode(errors="replace")

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        """Reads until something is true."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not condition():
            shown = "\n".join(self.lines)
            assert time.monotonic() < deadline, f"waited in vain for {what}:\n{shown}"
            assert self.code is None, f"ended with {self.code} before {what}:\n{shown}"
            self.read()

    def wait_for_end(self) -> int:
        """Reads until the command has ended, and returns its exit code."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while self.code is None:
            assert time.monotonic() < deadline, "\n".join(self.lines)
            self.read()
        return self.code

    @property
    def is_usable(self) -> bool:
        """Whether the cursor is visible, and at the beginning of a line."""
        return not self.screen.cursor.hidden and self.screen.cursor.x == 0


@contextlib.contextmanager
def terminal(
    arguments: list[str], folder: Path, *, columns: int = 100, rows: int = 30, **environment: str
) -> Iterator[ShownTerminal]:
    """Context manager of a command on a terminal, which is killed at the end."""
    shown = ShownTerminal(arguments, folder, columns=columns, rows=rows, environment=environment)
    try:
        yield shown
    finally:
        if shown.code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(shown.pid, signal.SIGKILL)
            shown._ended()
        os.close(shown._fd)
