"""Reads files in which training scripts log metrics: long text files, CSV tables and TensorBoard events."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

#: A longer line of a text file is not read, to limit the memory that is needed. Bytes.
LONGEST_LINE = 2**20
_LONGEST_SHOWN = 120
_DELIMITERS = ",;\t"


class UnreadableError(Exception):
    """A file cannot be read. The message of the error is the reason."""


def shown(text: str) -> str:
    """Returns a text in quotes for a message, shortened if it is long."""
    text = text[: 4 * _LONGEST_SHOWN].strip()
    return repr(text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 3] + "...")


def read_lines(file: IO[bytes], longest: int = LONGEST_LINE) -> Iterator[bytes]:
    r"""Yields the lines of a file with their line ends, with little memory even if a line is huge.

    Args:
        file: The file, opened for binary reading.
        longest: Largest number of bytes of a line that is yielded as a whole. Of a longer line, the first
            `longest + 1` bytes are yielded, before the others are read and left out.
    """
    while line := file.readline(longest + 1):
        yield line
        while len(line) > longest and not line.endswith(b"\n"):
            line = file.readline(longest + 1)
            if not line:
                return


def too_long(text: str | bytes, place: str) -> str:
    """Returns a message about a line that is longer than `LONGEST_LINE`.

    Args:
        text: The beginning of the line.
        place: The file, or the file and the number of the line.
    """
    words = text.decode("utf-8", errors="replace") if isinstance(text, bytes) else text
    return f"the line in {place} that begins with {shown(words)} is longer than {LONGEST_LINE // 2**20} MiB"


def csv_lines(
    path: Path, skip: Callable[[str], None], *, most_bytes: float = math.inf, has_ended: bool = True
) -> Iterator[str]:
    """Yields the lines of a CSV file.

    Args:
        path: Path of the file.
        skip: Is called with a message about each line that is too long to be read, and about the lines after
            `most_bytes`.
        most_bytes: Number of bytes at the beginning of the file that are read at most.
        has_ended: Whether the last line is complete even without a line end.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        for i, line in enumerate(read_lines(file)):
            if file.tell() > most_bytes:
                skip(
                    f"{path} is larger than {most_bytes / 2**20:g} MiB; rows after that are not read: let "
                    "each run write a file of its own"
                )
                return
            if len(line) > LONGEST_LINE:
                skip(too_long(line, f"{path}, line {i + 1},"))
            elif has_ended or line.endswith(b"\n"):
                text = line.decode("utf-8-sig" if i == 0 else "utf-8", errors="replace")
                yield from io.StringIO(text, newline=None)  # a carriage return also ends a line


def csv_table(lines: Iterable[str]) -> tuple[list[str], Iterator[dict[str, str]]]:
    """Parses the lines of a CSV file with a header.

    The delimiter is the comma, semicolon or tab, whichever is most frequent in the header.

    Args:
        lines: The lines, such as those of `csv_lines`.

    Returns:
        The column names, which are empty if there is no line, and an iterator over the rows. A row maps
        column names to texts; empty fields, empty rows and repetitions of the header are left out. The
        iterator raises `csv.Error` if a row cannot be parsed.
    """
    lines = iter(lines)
    first = next(lines, "")
    delimiter = max(_DELIMITERS, key=first.count)
    header = [name.strip() for name in next(csv.reader([first], delimiter=delimiter), [])]

    def rows() -> Iterator[dict[str, str]]:
        for cells in csv.reader(lines, delimiter=delimiter):
            found = {
                name: text
                for name, cell in zip(header, cells, strict=False)
                if name and (text := cell.strip())
            }
            if found and any(name != text for name, text in found.items()):
                yield found

    return header, rows()


def event_reader(path: Path) -> Any:
    """Returns TensorBoard's `EventAccumulator` for an event file, or for all event files in a folder.

    The file is not read before `read_events` is called.
    """
    from tensorboard.backend.event_processing import event_accumulator

    everything = {event_accumulator.SCALARS: 0, event_accumulator.TENSORS: 0}
    return event_accumulator.EventAccumulator(str(path), size_guidance=everything)


def read_events(reader: Any) -> dict[str, list[str]]:
    """Reads the new events of an `EventAccumulator`, and returns the tags by kind, such as `scalars`.

    Raises:
        UnreadableError: The files are damaged, or are not event files.
    """
    try:
        reader.Reload()
        found: dict[str, list[str]] = reader.Tags()
    except Exception as error:  # damaged files raise errors of many kinds
        words = (str(error).splitlines() or [""])[0]
        raise UnreadableError(f"it is not an event file: {type(error).__name__}: {words}") from error
    return found
