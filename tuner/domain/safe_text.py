"""Makes texts from outside, such as names and error messages, safe to show in terminals and spreadsheets."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence

#: Matches what a terminal would obey instead of print: escape sequences, control characters except tab and
#: line feed, and characters that change the direction of text.
_CONTROL = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # control sequences: colors, cursor
    r"|\x1b[PX\]^_][^\x07\x1b\n]*(?:\x07|\x1b\\)"  # command strings: window title, clipboard, links
    r"|\x1b[ -/]*[0-~]?"  # other escape sequences
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]"
)
#: First characters of a cell that spreadsheets treat as a formula (OWASP, "CSV Injection").
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def printable(text: str) -> str:
    """Removes everything from a text that a terminal would obey instead of print."""
    return _CONTROL.sub("", text).encode("utf-8", errors="backslashreplace").decode()


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> str:
    """Returns rows as comma-separated values with a header. No cell is a formula in a spreadsheet.

    Args:
        columns: Names of the columns.
        rows: Maps column names to values, one mapping for each row. Missing values and None are empty cells.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(map(_cell, columns))
    writer.writerows([_cell(row.get(column)) for column in columns] for row in rows)
    return stream.getvalue()


def _cell(value: object) -> object:
    """Returns a value for the CSV writer: a text that would be a formula gets a leading apostrophe."""
    if value is None or isinstance(value, int | float):
        return value
    text = str(value)
    is_formula = text.startswith(_FORMULA) and not _NUMBER.fullmatch(text)
    return printable(f"'{text}" if is_formula else text)
