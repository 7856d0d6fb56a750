"""Runs a training command for a short time and stores what it prints and which files it writes."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tuner.probes.commands.failures import last_error

_MOST_BYTES, _READ_BYTES = 2**26, 2**16
_SAY_SECONDS, _POLL_SECONDS = 10.0, 0.2
_ERROR_LINES, _ERROR_WIDTH = 8, 300
#: Folders that no training writes its results to, and how far below the working folder files are searched.
_SKIPPED = {
    ".git",
    ".venv",
    "venv",
    "node_modules",
    "__pycache__",
    ".mypy_cache",
    ".ruff_cache",
    "site-packages",
}
_MOST_DEPTH, _MOST_FILES = 5, 20_000
#: Environment variable by which the descendants of a run are found.
_MARKER = "PACELINE_TRIAL_RUN"


@dataclass(frozen=True, kw_only=True)
class TrialRun:
    """What a short run of the command showed.

    Args:
        command: The command line.
        lines: What it printed, stdout and stderr together, by lines; a carriage return ends a line too.
        seconds: How long it ran.
        exit_code: Its own exit code; None if it was ended.
        files: Files that it wrote.
    """

    command: str
    lines: tuple[str, ...]
    seconds: float
    exit_code: int | None
    files: tuple[Path, ...]

    @property
    def failed(self) -> bool:
        """Whether it ended by itself with an error."""
        return self.exit_code not in (None, 0)

    def error(self) -> str:
        """The error that it failed with, or its last lines; for messages."""
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
    """Runs a command until it ends or its time is over; Ctrl-C ends the run, not the program.

    Args:
        command: For the shell.
        folder: Where it runs.
        seconds: Longest time; then it gets SIGTERM.
        environment: Variables besides those that are set.
        watched: More folders whose files count as written by it.
        grace: Seconds between SIGTERM and SIGKILL.
        say: Gets a line of progress now and then.
    """
    roots = (*watched, folder)
    marker = f"{_MARKER}={uuid.uuid4().hex}"
    name, _, value = marker.partition("=")
    before = dict(_files(roots))
    started = time.monotonic()
    process = subprocess.Popen(
        command,
        shell=True,
        cwd=folder,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **environment, name: value},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    output = bytearray()
    try:
        _collect(process, output, started + seconds, say)
    except KeyboardInterrupt:
        say("interrupted: going on with what was printed so far")
    was_ended = process.poll() is None
    _end(process, output, grace)
    _end_daemons(marker)
    after = {path: stat for path, stat in _files(roots) if before.get(path) != stat}
    return TrialRun(
        command=command,
        lines=tuple(re.split(r"\r\n|\n|\r", output.decode("utf-8", errors="replace"))),
        seconds=time.monotonic() - started,
        exit_code=None if was_ended else process.returncode,
        files=tuple(sorted(after)),
    )


def _collect(
    process: subprocess.Popen[bytes], output: bytearray, until: float, say: Callable[[str], object]
) -> None:
    """Reads what a process prints until it ends or the time is over."""
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    said_at = time.monotonic()
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while (now := time.monotonic()) < until and len(output) < _MOST_BYTES:
            if now - said_at >= _SAY_SECONDS:
                said_at = now
                last = re.split(rb"[\r\n]+", bytes(output[-2000:]).rstrip())[-1].decode(errors="replace")
                words = f"last line: {last[:100]!r}" if last else "nothing was printed yet"
                say(f"running, {until - now:.0f} s left; {words}")
            if selector.select(_POLL_SECONDS):
                data = process.stdout.read(_READ_BYTES)
                if data == b"":
                    _wait(process)
                    return
                output += data or b""
            elif process.poll() is not None:
                return


def _wait(process: subprocess.Popen[bytes]) -> None:
    """Waits a little for a process that has closed its output."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(1.0)


def _end(process: subprocess.Popen[bytes], output: bytearray, grace: float) -> None:
    """Ends a process and all that it started, and reads what is left."""
    for number, timeout in ((signal.SIGTERM, grace), (signal.SIGKILL, 1.0)):
        try:
            os.killpg(process.pid, number)
        except (ProcessLookupError, PermissionError):
            break
        until = time.monotonic() + timeout
        while time.monotonic() < until and _group_lives(process):
            _drain(process, output)
            time.sleep(0.05)
    _drain(process, output)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def _end_daemons(marker: str) -> None:
    """Kills what left the process group, by a variable that all descendants have (Linux only)."""
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if marker.encode() in path.read_bytes().split(b"\0"):
                os.kill(int(path.parent.name), signal.SIGKILL)
        except OSError:
            continue


def _group_lives(process: subprocess.Popen[bytes]) -> bool:
    process.poll()
    try:
        os.killpg(process.pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _drain(process: subprocess.Popen[bytes], output: bytearray) -> None:
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    while len(output) < _MOST_BYTES and (data := process.stdout.read(_READ_BYTES)):
        output += data


def _files(roots: tuple[Path, ...]) -> Iterator[tuple[Path, tuple[int, int]]]:
    """Files below some folders with size and time of change, up to a number and a depth."""
    for root in roots:
        count, depth = 0, len(root.parts)
        for name, folders, files in os.walk(root):
            here = Path(name)
            is_deep = len(here.parts) - depth >= _MOST_DEPTH
            folders[:] = [] if is_deep else [one for one in folders if one not in _SKIPPED and one[0] != "."]
            if count > _MOST_FILES:
                break
            for file in files:
                count += 1
                if count > _MOST_FILES:
                    break
                try:
                    stat = (here / file).stat()
                except OSError:
                    continue
                yield here / file, (stat.st_size, stat.st_mtime_ns)
