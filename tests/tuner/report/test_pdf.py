"""The PDF of a report, with programs that stand for Chromium."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tuner.domain.errors import TunerError
from tuner.report.pdf import write_pdf

PRINTS = "import sys; [open(a[15:], 'w').write('%PDF') for a in sys.argv if a.startswith('--print-to-pdf=')]"


def stand_in(folder: Path, program: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Puts a program in the place of Chromium; returns a page to print."""
    browser = folder / "chromium"
    browser.write_text(f"#!{sys.executable} -IS\n{program}\n")
    browser.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    page = folder / "report.html"
    page.write_text("<!doctype html>")
    return page


def test_the_pdf_lies_beside_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = stand_in(tmp_path, PRINTS, monkeypatch)
    assert write_pdf(page) == tmp_path / "report.pdf"
    assert (tmp_path / "report.pdf").read_text() == "%PDF"


@pytest.mark.parametrize(
    ("program", "seconds", "words"),
    [
        ("raise SystemExit('no display')", 30.0, r"could not print .*\(exit code 1\): no display"),
        ("pass", 30.0, "it said nothing"),
        ("import time; time.sleep(60)", 0.2, "did not print .* within 0.2 s"),
    ],
)
def test_a_browser_that_prints_nothing_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, seconds: float, words: str
) -> None:
    page = stand_in(tmp_path, program, monkeypatch)
    with pytest.raises(TunerError, match=words):
        write_pdf(page, timeout_seconds=seconds)
    assert not (tmp_path / "report.pdf").exists()
