"""Figures in README and docs come from stored results of committed programs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks.figures import FIGURES, RESULTS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_COMMENT = re.compile(r"<!-- figures: ([\w ]+) -->")
#: Words of sentences that state what was measured, with a number.
_MEASURED = re.compile(
    r"\d[\d.,]*%? (?:times as|of the 90% intervals)|(?:took|mean error of|median of|within a factor of) \d|"
    r"\bin \d+ of \d+\b|\d s each\b"
)


def paragraphs(path: Path) -> Iterator[str]:
    """Yields the paragraphs, list items and tables of a page, without blocks of code."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    for block in re.split(r"\n\s*\n|\n(?=\s*- )", text):
        if not block.startswith("    "):
            yield block


def named() -> Iterator[tuple[str, str]]:
    """Yields each name of figures in the pages, with the paragraph that states them."""
    for path in PAGES:
        for block in paragraphs(path):
            for comment in _COMMENT.finditer(block):
                for name in comment[1].split():
                    yield name, block


def test_every_figure_is_stated_once_or_more() -> None:
    assert {name for name, _ in named()} == set(FIGURES)


@pytest.mark.parametrize("name", FIGURES)
def test_the_stated_figures_are_those_of_the_stored_result(name: str) -> None:
    stated = FIGURES[name].stated()
    assert stated
    for block in (block for other, block in named() if other == name):
        words = " ".join(block.split())
        assert [text for text in stated if text not in words] == []


@pytest.mark.parametrize("name", FIGURES)
def test_the_command_is_listed_beside_the_result(name: str) -> None:
    figures = FIGURES[name]
    assert find_spec(figures.command) is not None
    rows = (RESULTS / "README.md").read_text().splitlines()
    assert any(f"`{figures.result}`" in row and f"python -m {figures.command} " in row for row in rows)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_what_was_measured_names_its_figures(path: Path) -> None:
    measured = [block for block in paragraphs(path) if _MEASURED.search(" ".join(block.split()))]
    assert [block for block in measured if not _COMMENT.search(block)] == []
