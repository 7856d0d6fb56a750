"""Tests that the picture of a terminal shows what the terminal shows, and loads nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("pyte", reason="needs the extra `dev`")

from benchmarks.readme_images import run_in_terminal, terminal_svg, text_of

pytestmark = pytest.mark.slow

PROGRAM = """
print("gone", end="\\r\\x1b[2K")
print("\\x1b[1;36mtrain\\x1b[0m 2 nodes")
print()
print("report: /secret/folder/report.html")
"""


def test_the_picture_shows_the_end_of_a_run(tmp_path: Path) -> None:
    screen = run_in_terminal([sys.executable, "-c", PROGRAM], tmp_path)
    text = text_of(screen, "/secret/folder/")
    assert text.plain == "train 2 nodes\n\nreport: report.html"
    svg = terminal_svg(text)
    assert "font-face" not in svg
    assert "font-weight: bold" in svg
    assert ">train</text>" in svg


def test_a_run_that_fails_makes_no_picture(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no such job"):
        run_in_terminal([sys.executable, "-c", "print('no such job'); raise SystemExit(2)"], tmp_path)
