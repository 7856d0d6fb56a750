"""Prints the output of commands: results (table, JSON, CSV) on stdout; progress and questions on stderr."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import typer

from tuner.domain.safe_text import csv_text, printable
from tuner.service.options import Format, LogFormat


@dataclass(kw_only=True)
class LogSettings:
    """How progress and messages are printed on stderr.

    Args:
        format: Text, or one JSON object per line.
        is_quiet: Whether only warnings, errors and results are printed.
    """

    format: LogFormat = LogFormat.TEXT
    is_quiet: bool = False


_log = LogSettings()


def log_settings() -> LogSettings:
    """Returns how progress and messages are printed."""
    return _log


def set_log(log_format: LogFormat = LogFormat.TEXT, *, quiet: bool = False) -> None:
    """Sets how progress and messages are printed."""
    _log.format, _log.is_quiet = log_format, quiet


def say(line: str, kind: str = "message") -> None:
    """Prints a line on stderr, without control sequences. In a JSON log, it is an object of this kind."""
    if _log.format is LogFormat.JSON:
        write_log({"time": round(time.time(), 3), "kind": kind, "text": line})
    else:
        typer.echo(printable(line), err=True)


def write_log(entry: dict[str, Any]) -> None:
    """Prints an entry of a JSON log on stderr, as one line."""
    typer.echo(json.dumps(entry, allow_nan=False), err=True)


def show(text: str, *, nl: bool = True) -> None:
    """Prints a text on stdout, without control sequences; `nl` adds a line break."""
    typer.echo(printable(text), nl=nl)


def ask(question: str, names: Sequence[str]) -> str:
    """Asks the user a question on the terminal. Returns one of the offered names, or another text."""
    say(question)
    for number, name in enumerate(names, start=1):
        say(f"  {number}. {name}")
    answer = str(typer.prompt("Name or number" if names else "Value", err=True)).strip()
    is_place = answer.isdecimal() and len(answer) < 6 and 1 <= int(answer) <= len(names)
    return names[int(answer) - 1] if is_place else answer


def print_rows(rows: list[dict[str, Any]], output_format: Format) -> None:
    """Prints rows on stdout as a table, JSON or CSV. The keys of the rows are the columns."""
    if output_format is Format.JSON:
        show(json.dumps(rows, indent=2, default=str))
        return
    columns = list(dict.fromkeys(key for row in rows for key in row))
    if output_format is Format.CSV:
        show(csv_text(columns, rows), nl=False)
        return
    texts = [[_text(row.get(column)) for column in columns] for row in rows]
    widths = [
        max(len(column), *(len(line) for text in texts for line in text[i].splitlines() or [""]))
        for i, column in enumerate(columns)
    ]
    show("  ".join(c.ljust(w) for c, w in zip(columns, widths, strict=True)).rstrip())
    for text in texts:
        show("  ".join(t.ljust(w) for t, w in zip(text, widths, strict=True)).rstrip())


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else printable(str(value))
