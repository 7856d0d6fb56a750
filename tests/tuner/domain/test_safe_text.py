from __future__ import annotations

import csv
import io

import pytest

from tuner.domain.safe_text import csv_text, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b]52;c;never ended", "52;c;never ended"),
        ("\x1bPdata\x1b\\x", "x"),
        ("50%\rfaked", "50%faked"),
        ("a\x00\x07\x08\x7f\x9bb", "ab"),
        ("\x1b(0lines\x1b(B", "lines"),
        ("txt.\u202eexe", "txt.exe"),
        ("name \udcff", "name \\udcff"),
        ("Größe: 2 µs → 3\n\ttwo lines", "Größe: 2 µs → 3\n\ttwo lines"),
    ],
)
def test_a_terminal_obeys_nothing_of_a_text(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_no_cell_is_a_formula() -> None:
    hostile = ["=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "=cmd|' /C calc'!A0", "-x"]
    text = csv_text(["=head"], [{"=head": value} for value in hostile])
    header, *cells = [row[0] for row in csv.reader(io.StringIO(text, newline=""))]
    assert header == "'=head"
    assert all(cell.startswith("'") for cell in cells)
    assert cells[0] == "'=1+1"


def test_numbers_stay_numbers() -> None:
    values = [-1.5, 3, True, None, "-1.5e-3", "+7", "a-b", "2024"]
    cells = [row[0] for row in csv.reader(io.StringIO(csv_text(["x"], [{"x": v} for v in values])))][1:]
    assert cells == ["-1.5", "3", "True", "", "-1.5e-3", "+7", "a-b", "2024"]
