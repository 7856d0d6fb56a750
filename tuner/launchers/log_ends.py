"""Reads the first 1 MiB and the last 4 MiB of a long log file, or shortens the file to these parts."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import BinaryIO

#: Number of bytes at the beginning and at the end of a file that are kept.
FIRST_BYTES = 2**20
LAST_BYTES = 4 * 2**20
#: The line that replaces the middle of a file.
TEXT_NOTE = "[... %d bytes are left out here ...]"


def read_ends(path: Path, *, start: int = 0) -> str:
    """Returns the text of the first 1 MiB and the last 4 MiB of a file; empty if it cannot be read.

    Args:
        path: The file.
        start: Number of bytes at the beginning of the file to skip.
    """
    try:
        with path.open("rb") as file:
            return b"".join(_ends(file, start, TEXT_NOTE)).decode("utf-8", errors="replace")
    except OSError:
        return ""


def trim_file(path: Path, *, start: int = 0, note: str = TEXT_NOTE) -> None:
    """Shortens a file to its first 1 MiB and last 4 MiB, without cutting lines if possible.

    A file that cannot be written is not changed. The file is changed in place, without a temporary file,
    since the disk may be full.

    Args:
        path: The file, which need not exist.
        start: Number of bytes at the beginning that are kept in addition.
        note: The line that replaces the middle of the file, with `%d` for the number of bytes left out.
    """
    with contextlib.suppress(OSError):
        if path.stat().st_size - start <= FIRST_BYTES + LAST_BYTES:
            return
        with path.open("r+b") as file:
            first, *after = _ends(file, start, note)
            file.seek(start + len(first))
            file.write(b"".join(after))
            file.truncate()


def _ends(file: BinaryIO, start: int, note: str) -> list[bytes]:
    """Returns the content of a file after the first `start` bytes, in parts.

    If it is longer than 5 MiB, the parts are the first 1 MiB, a line in place of the middle, and the last
    4 MiB.
    """
    size = file.seek(0, 2)
    file.seek(start)
    if size - start <= FIRST_BYTES + LAST_BYTES:
        return [file.read()]
    first = file.read(FIRST_BYTES)
    first = first[: first.rfind(b"\n") + 1 or len(first)]
    file.seek(size - LAST_BYTES)
    last = file.read(LAST_BYTES)
    last = last[last.find(b"\n") + 1 :]
    left_out = size - start - len(first) - len(last)
    separator = b"" if first.endswith(b"\n") else b"\n"
    return [first, separator + (note % left_out).encode() + b"\n", last]
