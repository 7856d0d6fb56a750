"""Reading of logs that grow: each byte once, in bounded parts, each line with the time it was written at."""

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

#: A line that is longer is given in parts of this many bytes: something that never ends its line.
LONGEST_LINE_BYTES = 2**16
#: How long to wait for the node agent to note bytes that can be read already.
_NOTED_LATE_SECONDS = 1.0
_PART = re.compile(rb"[^\r\n]+")


@dataclass(frozen=True, kw_only=True)
class LogFile:
    """Where what one copy prints is stored.

    Args:
        path: The log; need not be there yet.
        times: Notes of how long it was when, lines of `<seconds since the epoch> <bytes>`; need not be there
            yet; None if nobody takes notes.
        start: Bytes that were there before.
    """

    path: Path
    times: Path | None = None
    start: int = 0


class LogLine(NamedTuple):
    """One line that was printed.

    Args:
        copy: Who printed it: a rank if there is a process per rank, else a node.
        text: Without its end; never empty.
        written_at: Seconds since the epoch by the clock of its node, within 0.05 s where notes are taken.
    """

    copy: int
    text: str
    written_at: float


class LogReader:
    r"""Returns the lines that were printed since the last call; never waits.

    A line ends with `\n` or `\r`, since a progress bar goes back within its line. What comes after the last
    of them is given once its line ends. Empty lines are left out. A file that became shorter is read anew.
    Memory is bounded by what one call reads, however long the logs are.

    Args:
        log_files: By copy.
        clock: Seconds since the epoch here, for lines of which no note was taken.
    """

    def __init__(self, log_files: Mapping[int, LogFile], *, clock: Callable[[], float] = time.time) -> None:
        self._logs = {copy: _Log(copy, log_file, clock) for copy, log_file in sorted(log_files.items())}
        self._first = 0

    @property
    def num_unread(self) -> int:
        """Bytes that were there at the last call and are not read yet; call again."""
        return sum(log.num_unread for log in self._logs.values())

    def read(self, max_bytes: int = 2**20, *, has_ended: bool = False) -> list[LogLine]:
        """The next lines, those of each copy in order.

        A call may return no line although `num_unread` is above 0, where a line is long.

        Args:
            max_bytes: Most bytes to read, of all logs together.
            has_ended: Whether nothing writes any more, so that the last line is complete.
        """
        logs = list(self._logs.values())
        # Nobody waits forever for others that print more than is read.
        logs = logs[self._first :] + logs[: self._first]
        self._first = (self._first + 1) % max(len(logs), 1)
        found: list[LogLine] = []
        for log in logs:
            num_read, lines = log.read(max_bytes, has_ended=has_ended)
            found += lines
            max_bytes -= num_read
        return found


class _Log:
    """The log of one copy, as far as it was read."""

    def __init__(self, copy: int, log_file: LogFile, clock: Callable[[], float]) -> None:
        self._copy, self._path, self._clock = copy, log_file.path, clock
        self._times = None if log_file.times is None else _Times(log_file.times)
        self._offset = log_file.start
        self._remainder = b""
        #: The length noted last while more was there already, and since when.
        self._waits_at, self._waits_since = -1, 0.0
        self.num_unread = 0

    def read(self, max_bytes: int, *, has_ended: bool) -> tuple[int, list[LogLine]]:
        """How many bytes were read, and the lines that ended in them."""
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
        """How much of a log is noted; all of it where the notes have not kept up for a while."""
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
    """When a log was how long, as noted by the node agent."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inode, self._offset = -1, 0
        self._sizes: list[int] = []
        self._at: list[float] = []
        self.noted_size = 0

    def read(self, begin: int) -> None:
        """Reads new notes, and forgets those of bytes before one that is not read yet."""
        try:
            with self._path.open("rb") as file:
                size, inode = file.seek(0, 2), os.fstat(file.fileno()).st_ino
                if inode != self._inode or size < self._offset:
                    # It was thinned out, and is another file now.
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
            with contextlib.suppress(ValueError):  # a full disk takes a part of it
                self._add(float(at), int(size_then))
        first = bisect_left(self._sizes, begin)
        del self._sizes[:first], self._at[:first]

    def at(self, end: int) -> float | None:
        """When the log was first seen to have so many bytes; None if that was not noted."""
        index = bisect_left(self._sizes, end)
        return self._at[index] if index < len(self._sizes) else None

    def _add(self, at: float, size: int) -> None:
        if size < self.noted_size:
            # It was truncated: what was noted before is about other bytes.
            self._sizes, self._at = [], []
        self.noted_size = size
        self._sizes.append(size)
        self._at.append(at)


def _whole_characters(part: bytes) -> int:
    """The longest length of a part to give that does not cut a character of UTF-8."""
    length = LONGEST_LINE_BYTES
    # At most three bytes of a character follow its first.
    while length > LONGEST_LINE_BYTES - 4 and part[length] & 0xC0 == 0x80:
        length -= 1
    return length
