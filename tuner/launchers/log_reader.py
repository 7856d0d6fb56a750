"""Reads log files line by line while processes write them, with the time at which each line was written."""

from __future__ import annotations

import contextlib
import os
import re
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

#: Largest length of a returned line, in bytes. A longer line is returned in parts, since some programs print
#: without ever ending a line.
LONGEST_LINE_BYTES = 2**16
#: Longest time in seconds to wait until the node agent has recorded the size of a log that has grown.
_NOTED_LATE_SECONDS = 1.0
_PART = re.compile(rb"[^\r\n]+")


@dataclass(frozen=True, kw_only=True)
class LogFile:
    """The log file of one process.

    Args:
        path: The log file, which need not exist yet.
        times: File with the size of the log file over time, as lines of `<seconds since the epoch> <bytes>`.
            It need not exist yet; None if the size is not recorded.
        start: Number of bytes at the beginning of the log file that belong to earlier jobs.
    """

    path: Path
    times: Path | None = None
    start: int = 0


class LogLine(NamedTuple):
    """One line that a process printed.

    Args:
        copy: The rank that printed the line, or the node if there is one process per node.
        text: The line without its newline; never empty.
        written_at: When the line was written, seconds since the epoch by the clock of the node. The error is
            at most 0.05 s if the size of the log file is recorded.
    """

    copy: int
    text: str
    written_at: float


class LogReader:
    r"""Reads the lines that processes have printed since the last call, without waiting.

    - A line ends with `\n`, or with `\r` as in a progress bar. An unfinished line is returned once it ends.
    - Empty lines are left out.
    - A file that became shorter is read again from its beginning.
    - The memory needed depends on the size of one read, not on the size of the log files.

    Args:
        log_files: Maps each rank or node to the log file of its process.
        clock: Function that returns the seconds since the epoch, for lines whose write time is not recorded.
    """

    def __init__(self, log_files: Mapping[int, LogFile], *, clock: Callable[[], float] = time.time) -> None:
        self._logs = {copy: _Log(copy, log_file, clock) for copy, log_file in sorted(log_files.items())}
        self._first = 0

    @property
    def num_unread(self) -> int:
        """Number of bytes that the log files had at the last call of `read`, but that were not read."""
        return sum(log.num_unread for log in self._logs.values())

    def read(self, max_bytes: int = 2**20, *, has_ended: bool = False) -> list[LogLine]:
        """Returns the next lines; those of each process are in order.

        If a line is long, a call may return no line although `num_unread` is above 0.

        Args:
            max_bytes: Largest number of bytes to read, from all log files together.
            has_ended: Whether all processes have ended, so that the last line is complete.
        """
        logs = list(self._logs.values())
        # Start with another log at each call, so that a long one does not keep others waiting.
        logs = logs[self._first :] + logs[: self._first]
        self._first = (self._first + 1) % max(len(logs), 1)
        found: list[LogLine] = []
        for log in logs:
            num_read, lines = log.read(max_bytes, has_ended=has_ended)
            found += lines
            max_bytes -= num_read
        return found


class _Log:
    """The log file of one process, with the position up to which it has been read."""

    def __init__(self, copy: int, log_file: LogFile, clock: Callable[[], float]) -> None:
        self._copy, self._path, self._clock = copy, log_file.path, clock
        self._times = None if log_file.times is None else _Times(log_file.times)
        self._offset = log_file.start
        self._remainder = b""
        #: The size that the node agent recorded last, and the time since which the log file is larger.
        self._waits_at, self._waits_since = -1, 0.0
        self.num_unread = 0

    def read(self, max_bytes: int, *, has_ended: bool) -> tuple[int, list[LogLine]]:
        """Reads from the log file; returns the number of bytes read, and the lines that ended in them."""
        try:
            with self._path.open("rb") as file:
                size = file.seek(0, 2)
                if size < self._offset:
                    self._offset, self._remainder = 0, b""
                if self._times is not None:
                    self._times.read(self._offset - len(self._remainder))
                    if not has_ended:
                        size = self._noted(size)
                file.seek(self._offset)
                data = file.read(max(min(max_bytes, size - self._offset), 0))
        except OSError:
            size, data = self._offset, b""
        begin = self._offset - len(self._remainder)
        self._offset += len(data)
        self.num_unread = max(size - self._offset, 0)
        return len(data), list(self._lines(begin, data, is_last=has_ended and self.num_unread == 0))

    def _noted(self, size: int) -> int:
        """Returns how many bytes of the log file can be read with a known write time.

        If the node agent has not recorded the size for too long, the result is `size`, the size of the file.
        """
        assert self._times is not None
        noted_size, now = self._times.noted_size, self._clock()
        if noted_size >= size:
            return size
        if noted_size != self._waits_at or now < self._waits_since:
            self._waits_at, self._waits_since = noted_size, now
        return noted_size if now - self._waits_since < _NOTED_LATE_SECONDS else size

    def _lines(self, begin: int, data: bytes, *, is_last: bool) -> Iterator[LogLine]:
        text = self._remainder + data
        self._remainder = b""
        for match in _PART.finditer(text):
            part, end = match.group(), match.end()
            at = begin + match.start()
            while len(part) > LONGEST_LINE_BYTES:
                length = _whole_characters(part)
                yield self._line(part[:length], at + length)
                part, at = part[length:], at + length
            if end == len(text) and not is_last:
                self._remainder = part
            else:
                yield self._line(part, begin + end)

    def _line(self, part: bytes, end: int) -> LogLine:
        at = None if self._times is None else self._times.at(end)
        return LogLine(
            self._copy, part.decode("utf-8", errors="replace"), self._clock() if at is None else at
        )


class _Times:
    """The size of a log file over time, as the node agent has recorded it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inode, self._offset = -1, 0
        self._sizes: list[int] = []
        self._at: list[float] = []
        self.noted_size = 0

    def read(self, begin: int) -> None:
        """Reads the new records of the log's size, and removes records of sizes below `begin`."""
        try:
            with self._path.open("rb") as file:
                size, inode = file.seek(0, 2), os.fstat(file.fileno()).st_ino
                if inode != self._inode or size < self._offset:
                    # The node agent has replaced the file by a shorter one.
                    self._inode, self._offset, self.noted_size = inode, 0, 0
                    self._sizes, self._at = [], []
                file.seek(self._offset)
                notes = file.read()
        except OSError:
            return
        whole = notes.rpartition(b"\n")[0]
        self._offset += len(whole) + bool(whole)
        for note in whole.splitlines():
            at, _, size_then = note.partition(b" ")
            with contextlib.suppress(ValueError):  # a full disk may cut a record
                self._add(float(at), int(size_then))
        first = bisect_left(self._sizes, begin)
        del self._sizes[:first], self._at[:first]

    def at(self, end: int) -> float | None:
        """Returns the time at which the log file first had at least `end` bytes; None if not recorded."""
        index = bisect_left(self._sizes, end)
        return self._at[index] if index < len(self._sizes) else None

    def _add(self, at: float, size: int) -> None:
        if size < self.noted_size:
            # The log was truncated: earlier records are about other bytes.
            self._sizes, self._at = [], []
        self.noted_size = size
        self._sizes.append(size)
        self._at.append(at)


def _whole_characters(part: bytes) -> int:
    """Returns the length at which a line that is too long is cut, so that no UTF-8 character is cut."""
    length = LONGEST_LINE_BYTES
    # At most three bytes of a character follow its first.
    while length > LONGEST_LINE_BYTES - 4 and part[length] & 0xC0 == 0x80:
        length -= 1
    return length
