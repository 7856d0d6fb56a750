"""Reports of six real studies in Chromium: wide and narrow, light and dark, and as PDF."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.chromium import CHROMIUM, Chromium
from tests.tuner.report.studies import STUDIES, make_report
from tuner.report.pdf import write_pdf

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("report pages"),
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: apt-get install chromium"),
]

#: Texts of figures that overlap each other or leave their figure. A text has a box with some space above and
#: below its letters, so boxes may overlap a little.
OVERPRINTED = """(() => {
  const found = [];
  for (const figure of document.querySelectorAll("svg")) {
    const edge = figure.getBoundingClientRect();
    if (edge.width === 0) continue;
    const texts = [...figure.querySelectorAll("text")].filter((text) => text.textContent.trim());
    const boxes = texts.map((text) => [text.textContent, text.getBoundingClientRect()]);
    boxes.forEach(([words, box], k) => {
      if (box.left < edge.left - 1 || box.right > edge.right + 1 || box.top < edge.top - 1
          || box.bottom > edge.bottom + 1) found.push([figure.getAttribute("aria-label"), words, "leaves"]);
      for (const [others, other] of boxes.slice(k + 1)) {
        const across = Math.min(box.right, other.right) - Math.max(box.left, other.left);
        const down = Math.min(box.bottom, other.bottom) - Math.max(box.top, other.top);
        if (across > 1 && down > 4) found.push([figure.getAttribute("aria-label"), words, others]);
      }
    });
  }
  return found;
})()"""
#: Titles and numbers of tables that are broken into four lines or more.
SQUEEZED = """(() => {
  const range = document.createRange();
  return [...document.querySelectorAll("th, td.number")].filter((cell) => {
    range.selectNodeContents(cell);
    return range.getClientRects().length > 3;
  }).map((cell) => cell.textContent);
})()"""
FIGURES = 'document.querySelectorAll("svg").length'
#: Pixels by which the page is wider than the window.
TOO_WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
CLOSED = """[...document.querySelectorAll("details > :not(summary)")]
    .filter((part) => part.getBoundingClientRect().height === 0 && part.textContent.trim()).length"""


@pytest.fixture(scope="module")
def report_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Returns the report of a study, which is made once."""
    made: dict[str, Path] = {}

    def report(name: str) -> Path:
        if name not in made:
            made[name] = make_report(name, tmp_path_factory.mktemp(name.replace(" ", "_")))
        return made[name]

    return report


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chromium]:
    with Chromium(tmp_path) as browser:
        yield browser


@pytest.mark.parametrize("name", STUDIES)
def test_a_report_is_shown_without_faults(
    browser: Chromium, report_of: Callable[[str], Path], name: str
) -> None:
    page = report_of(name)
    for width, phone in ((1280, False), (390, True)):
        for dark in (False, True):
            browser.show(width, 844, dark=dark, phone=phone)
            browser.open(page.as_uri())
            assert browser.evaluate(TOO_WIDE) <= 0, width
            assert browser.evaluate(OVERPRINTED) == [], width
            background = browser.evaluate("getComputedStyle(document.body).backgroundColor")
            channels = [int(number) for number in re.findall(r"\d+", background)]
            assert (max(channels) < 60) is dark
    assert browser.problems == []
    assert set(browser.requests) <= {page.as_uri(), "about:blank"}
    browser.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true })")
    assert browser.evaluate(TOO_WIDE) <= 0
    words = " ".join(browser.text().split())
    assert all(wanted in words for wanted in STUDIES[name].words), words[:2000]
    assert "$0 " not in f"{words} "
    if name not in ("failed",):
        assert browser.evaluate(FIGURES) >= 2


@pytest.mark.parametrize("name", STUDIES)
def test_a_report_prints_all_its_content(
    browser: Chromium, report_of: Callable[[str], Path], name: str
) -> None:
    page = report_of(name)
    browser.show(720, 1000, dark=True)
    browser.open(page.as_uri())
    scheme = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.send("Emulation.setEmulatedMedia", media="print", features=scheme)
    assert browser.evaluate(CLOSED) == 0
    assert browser.evaluate(TOO_WIDE) <= 0
    assert browser.evaluate(OVERPRINTED) == []
    assert browser.evaluate("getComputedStyle(document.body).color") == "rgb(22, 25, 29)"
    # Tables and messages are as wide as the paper, since paper has no scroll bars.
    wide = "[...document.querySelectorAll('.scroll, pre')].filter((p) => p.scrollWidth > p.clientWidth + 1)"
    assert browser.evaluate(f"{wide}.length") == 0
    assert browser.evaluate(SQUEEZED) == []
    pdf = write_pdf(page)
    assert pdf.read_bytes().startswith(b"%PDF")
    assert pdf.stat().st_size > 10_000


def test_the_keyboard_reaches_the_content(browser: Chromium, report_of: Callable[[str], Path]) -> None:
    browser.show(1280, 844)
    browser.open(report_of("own script").as_uri())
    browser.press("Tab")
    focus = "document.activeElement"
    assert browser.evaluate(f"{focus}.className") == "skip"
    assert browser.evaluate(f"{focus}.getBoundingClientRect().top") >= 0
    browser.press("Enter")
    assert browser.evaluate(f"{focus}.id") == "content"
    browser.press("Tab")
    reached = browser.evaluate(f"[{focus}.tagName, {focus}.className]")
    assert reached in (["SUMMARY", ""], ["DIV", "scroll"]), json.dumps(reached)
    regions = "[...document.querySelectorAll('.scroll')]"
    assert browser.evaluate(f"{regions}.every((part) => part.tabIndex === 0 && part.ariaLabel)")
