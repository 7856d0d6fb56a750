"""Runs a training command for a short time; records its output and finds the files that it writes."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tuner.probes.commands.failures import last_error

_MOST_BYTES = 2**26
_SAY_SECONDS, _POLL_SECONDS = 10.0, 0.1
_ERROR_LINES, _ERROR_WIDTH = 8, 300
#: Names of folders that are not searched for written files. Hidden folders are also skipped.
_SKIPPED = {"venv", "node_modules", "__pycache__", "site-packages"}
#: Maximum depth of folders and maximum number of files that are searched for changes.
_MOST_DEPTH, _MOST_FILES = 5, 20_000
#: Environment variable with a random value. It is set for the command, so all processes that the command
#: starts inherit it and can be found by its value.
_MARKER = "PACELINE_TRIAL_RUN"
#: Shell script that waits until its input is closed, because the process that started it has ended. Then it
#: kills the process group $1 and, on Linux, all processes whose environment contains the text $2.
_GUARD = """
read -r _
kill -9 -- "-$1"
for found in $(grep -ls "$2" /proc/[0-9]*/environ); do
    found=${found#/proc/}
    kill -9 "${found%/environ}"
done
"""


@dataclass(frozen=True, kw_only=True)
class TrialRun:
    """Result of a short run of the command.

    Args:
        lines: Lines of stdout and stderr together, in order. A carriage return also ends a line.
        seconds: Duration of the run, seconds.
        exit_code: Exit code of the command; None if the command was stopped.
        files: Files that the command created or changed.
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
    """Runs a command until it ends or its time is over; Ctrl-C stops only the command, not Paceline.

    Args:
        command: Shell command to run.
        folder: Working directory of the command, which is also searched for written files.
        seconds: Maximum duration in seconds, after which the command gets SIGTERM.
        environment: Environment variables to set in addition to those of this process, by name.
        watched: Folders besides `folder` that are searched for written files.
        grace: Seconds between SIGTERM and SIGKILL.
        say: Function that shows a message; called every ten seconds with a message about the progress.
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
        with _guarded(process, f"{_MARKER}={marker}"):
            try:
                _wait(process, output.fileno(), started + seconds, say)
            except KeyboardInterrupt:
                say("the command was interrupted: the draft uses its output so far")
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


@contextlib.contextmanager
def _guarded(process: subprocess.Popen[bytes], marker: str) -> Iterator[None]:
    """Context manager in whose block the processes of a command are killed if Paceline itself is killed.

    The kernel could only kill the shell of the command (`tuner.domain.parent_death`), not its children.

    Args:
        process: The shell of the command, which leads a process group.
        marker: Environment variable `NAME=value` that the processes of the command inherit.
    """
    guard = subprocess.Popen(
        ["sh", "-c", _GUARD, "paceline-guard", str(process.pid), marker],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        guard.kill()
        guard.communicate()


def _wait(process: subprocess.Popen[bytes], output: int, until: float, say: Callable[[str], object]) -> None:
    """Waits until a process ends, its output exceeds `_MOST_BYTES`, or its time is over.

    Args:
        process: The process.
        output: File descriptor of the file to which the process writes its output.
        until: End of the time, seconds on the monotonic clock.
        say: Function that shows a message to the user; it is called every ten seconds.
    """
    said_at = time.monotonic()
    while process.poll() is None and (now := time.monotonic()) < until:
        size = os.fstat(output).st_size
        if size >= _MOST_BYTES:
            return
        if now - said_at >= _SAY_SECONDS:
            said_at = now
            recent = os.pread(output, 2_000, max(size - 2_000, 0)).decode(errors="replace")
            last = re.split(r"[\r\n]+", recent.rstrip())[-1][:100]
            words = f"its last line: {last!r}" if last else "it has printed nothing yet"
            say(f"the command may run for up to {until - now:.0f} s more; {words}")
        time.sleep(_POLL_SECONDS)


def _stop_group(process: subprocess.Popen[bytes], grace: float) -> None:
    """Sends SIGTERM to a process and its process group; `grace` seconds later, kills those that still run."""
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
    """Kills the remaining processes that a command has started, even if they left its process group.

    They are found in `/proc`, so this works only on Linux.

    Args:
        marker: Environment variable `NAME=value` that was set for the command, and which its processes
            inherit.
    """
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if marker in path.read_bytes().split(b"\0"):
                os.kill(int(path.parent.name), signal.SIGKILL)


def _files(roots: tuple[Path, ...]) -> dict[Path, tuple[int, int]]:
    """Finds the files in some folders and their subfolders.

    Args:
        roots: The folders to search.

    Returns:
        Maps each file to its size in bytes and its time of last change in nanoseconds.
    """
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
