"""Runs a training command for a short time, and records its output and the files that it writes."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tuner.probes.commands.failures import last_error

_MOST_BYTES = 2**26
_SAY_SECONDS, _POLL_SECONDS = 10.0, 0.1
_ERROR_LINES, _ERROR_WIDTH = 8, 300
#: Folders in which no results of a training are expected. Hidden folders are skipped too.
_SKIPPED = {"venv", "node_modules", "__pycache__", "site-packages"}
#: Maximum depth of folders and maximum number of files that are searched for changes.
_MOST_DEPTH, _MOST_FILES = 5, 20_000
#: Environment variable by which the processes that a run started are found.
_MARKER = "PACELINE_TRIAL_RUN"


@dataclass(frozen=True, kw_only=True)
class TrialRun:
    """Result of a short run of the command.

    Args:
        lines: Lines of stdout and stderr together; a carriage return ends a line too.
        seconds: Duration of the run.
        exit_code: Exit code of the command; None if the command was stopped.
        files: Files that the command wrote.
    """

    lines: tuple[str, ...]
    seconds: float
    exit_code: int | None
    files: tuple[Path, ...]

    @property
    def failed(self) -> bool:
        """Whether the command ended by itself with an error."""
        return self.exit_code not in (None, 0)

    def error(self) -> str:
        """Returns the error message of the command, or the last lines of its output if there is none."""
        usage = [i for i, line in enumerate(self.lines) if re.search(r"(^|\s)error: ", line)]
        if self.exit_code == 2 and usage:
            words = "\n".join(self.lines[usage[-1] :][:_ERROR_LINES])
        else:
            words = last_error("\n".join(self.lines)) or "\n".join(self.lines[-_ERROR_LINES:])
        lines = [line.rstrip()[:_ERROR_WIDTH] for line in words.splitlines() if line.strip()]
        return "\n".join(f"  {line}" for line in lines[-_ERROR_LINES:])


def run_for(
    command: str,
    *,
    folder: Path,
    seconds: float,
    environment: Mapping[str, str],
    watched: tuple[Path, ...] = (),
    grace: float = 10.0,
    say: Callable[[str], object] = str,
) -> TrialRun:
    """Runs a command until it ends or its time is over; Ctrl-C ends only the command.

    Args:
        command: Shell command.
        folder: Working directory.
        seconds: Maximum duration, after which the command gets SIGTERM.
        environment: Additional environment variables.
        watched: Further folders that are searched for written files.
        grace: Seconds between SIGTERM and SIGKILL.
        say: Called with a line of progress every ten seconds.
    """
    roots = (*watched, folder)
    marker = uuid.uuid4().hex
    before = _files(roots)
    started = time.monotonic()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command,
            shell=True,
            cwd=folder,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environment, _MARKER: marker},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            _wait(process, output.fileno(), started + seconds, say)
        except KeyboardInterrupt:
            say("interrupted: continuing with the output so far")
        was_stopped = process.poll() is None
        _stop_group(process, grace)
        _kill_daemons(f"{_MARKER}={marker}".encode())
        text = os.pread(output.fileno(), _MOST_BYTES, 0).decode("utf-8", errors="replace")
    return TrialRun(
        lines=tuple(re.split(r"\r\n|\n|\r", text)),
        seconds=time.monotonic() - started,
        exit_code=None if was_stopped else process.returncode,
        files=tuple(sorted(path for path, stat in _files(roots).items() if before.get(path) != stat)),
    )


def _wait(process: subprocess.Popen[bytes], output: int, until: float, say: Callable[[str], object]) -> None:
    """Waits until a process ends, its output is too large, or its time is over."""
    said_at = time.monotonic()
    while process.poll() is None and (now := time.monotonic()) < until:
        size = os.fstat(output).st_size
        if size >= _MOST_BYTES:
            return
        if now - said_at >= _SAY_SECONDS:
            said_at = now
            recent = os.pread(output, 2_000, max(size - 2_000, 0)).decode(errors="replace")
            last = re.split(r"[\r\n]+", recent.rstrip())[-1][:100]
            words = f"last line: {last!r}" if last else "no output yet"
            say(f"running, {until - now:.0f} s left; {words}")
        time.sleep(_POLL_SECONDS)


def _stop_group(process: subprocess.Popen[bytes], grace: float) -> None:
    """Sends SIGTERM to the group of a process, and SIGKILL if processes are left after `grace` seconds."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # the group is gone
        for number, timeout in ((signal.SIGTERM, grace), (signal.SIGKILL, 1.0)):
            os.killpg(process.pid, number)
            until = time.monotonic() + timeout
            while time.monotonic() < until:
                process.poll()
                os.killpg(process.pid, 0)
                time.sleep(0.05)
    process.wait()


def _kill_daemons(marker: bytes) -> None:
    """Kills all processes with the marker in their environment, also outside the process group (Linux)."""
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if marker in path.read_bytes().split(b"\0"):
                os.kill(int(path.parent.name), signal.SIGKILL)


def _files(roots: tuple[Path, ...]) -> dict[Path, tuple[int, int]]:
    """Maps each file below some folders to its size and time of change."""
    found: dict[Path, tuple[int, int]] = {}
    for root in roots:
        most = len(found) + _MOST_FILES
        for name, folders, files in os.walk(root):
            here = Path(name)
            if len(found) > most or len(here.parts) - len(root.parts) >= _MOST_DEPTH:
                folders.clear()
            folders[:] = [one for one in folders if one not in _SKIPPED and one[0] != "."]
            for file in files[: most - len(found)]:
                with contextlib.suppress(OSError):
                    stat = (here / file).stat()
                    found[here / file] = (stat.st_size, stat.st_mtime_ns)
    return found
