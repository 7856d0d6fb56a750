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

#: After this time, a command is killed.
_ANSWER_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class Answer:
    """How a command ended and what it printed; `code` is None if it was killed after its time limit."""

    code: int | None
    output: str
    errors: str


class Question:
    """A command that runs in the background.

    Args:
        command: What runs.
        seconds: Time limit, after which it is killed.
        clock: Seconds, never going back.
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
        """The result; None while the command runs. Do not call this again after it returned a result."""
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
        """Kills the command."""
        self._kill()
        self._output.close()
        self._errors.close()

    def wait(self) -> Answer:
        """Waits for the result."""
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
