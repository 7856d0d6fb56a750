"""Runs a command in the background; the caller polls for its result."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO

#: Default time limit of a command, seconds.
_ANSWER_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Result of a command.

    Args:
        code: Exit code, -1 if the command could not be started; None if it was killed at its time limit.
        output: Standard output of the command.
        errors: Standard error of the command.
    """

    code: int | None
    output: str
    errors: str


class Question:
    """A command that runs in the background.

    Args:
        command: The program and its arguments.
        seconds: Time limit, seconds; then the command is killed.
        clock: Function that returns the seconds on a monotonic clock.
    """

    def __init__(
        self,
        command: Sequence[str],
        seconds: float = _ANSWER_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.asked_at = clock()
        self._clock, self._seconds = clock, seconds
        self._output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._command = tuple(command)
        try:
            self._process: subprocess.Popen[bytes] | None = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._errors,
                start_new_session=True,
            )
        except OSError as error:
            self._process = None
            self._errors.write(str(error).encode())

    def answer(self) -> Answer | None:
        """Returns the result of the command; None while it runs.

        After this method has returned a result, do not call it again.
        """
        code = -1 if self._process is None else self._process.poll()
        if code is None:
            if self._clock() - self.asked_at < self._seconds:
                return None
            self._kill()
        texts = []
        for file in (self._output, self._errors):
            file.seek(0)
            texts.append(file.read().decode(errors="replace").strip("\n"))
            file.close()
        errors = texts[1] or ("" if code is not None else f"{self._command[0]} timed out")
        return Answer(code=code, output=texts[0], errors=errors.strip())

    def drop(self) -> None:
        """Kills the command; call this method if the result is no longer needed."""
        self._kill()
        self._output.close()
        self._errors.close()

    def wait(self) -> Answer:
        """Waits until the command has ended, and returns its result."""
        while True:
            answer = self.answer()
            if answer is not None:
                return answer
            time.sleep(0.02)

    def _kill(self) -> None:
        if self._process is not None:
            with contextlib.suppress(OSError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
