"""Reads, or cuts a file down to, the first 1 MiB and the last 4 MiB of a long log."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import BinaryIO

#: How much of a file's beginning and end remains.
FIRST_BYTES = 2**20
LAST_BYTES = 4 * 2**20
#: The line between them, which says how many bytes are left out.
TEXT_NOTE = "[... %d bytes are left out here ...]"


def read_ends(path: Path, *, start: int = 0) -> str:
    """The text of the first 1 MiB and the last 4 MiB of a file; empty if it cannot be read.

    Args:
        path: The file.
        start: Bytes of it to skip.
    """
    try:
        with path.open("rb") as file:
            return b"".join(_ends(file, start, TEXT_NOTE)).decode("utf-8", errors="replace")
    except OSError:
        return ""


def trim_file(path: Path, *, start: int = 0, note: str = TEXT_NOTE) -> None:
    """Cuts a file down to its first 1 MiB and last 4 MiB, in whole lines if it has any.

    A file that cannot be changed stays as it is. No other file is written, since the disk may be full.

    Args:
        path: The file; may not exist.
        start: Bytes at the beginning that stay in addition.
        note: The line to put there instead, with `%d` for the number of bytes left out.
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
    """All of a file from `start`, or its beginning, a line about what is left out, and its end."""
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
