"""The report as a browser shows it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from tuner.report.pages import report_html

CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="chromium is not installed: apt-get install chromium"
)


def browse(page: Path, *flags: str) -> bytes:
    """What the browser prints of a page."""
    assert CHROMIUM is not None
    profile = f"--user-data-dir={page.parent / 'profile'}"
    command = [CHROMIUM, *FLAGS, profile, "--virtual-time-budget=4000", *flags, page.as_uri()]
    return subprocess.run(command, capture_output=True, check=True, timeout=120).stdout


def test_no_text_of_the_charts_is_wider_than_the_page(builder: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    measure = """<script>
        const wide = [...document.querySelectorAll("svg")].filter(
            (svg) => [...svg.querySelectorAll("text")].some(
                (text) => text.getBoundingClientRect().right > svg.getBoundingClientRect().right + 1));
        document.body.append(Object.assign(document.createElement("output"), {
            textContent: `charts ${document.querySelectorAll("svg").length} part ${wide.length} `
                + `page ${document.documentElement.scrollWidth <= window.innerWidth}`}));
    </script>"""
    text = report_html(builder.content())
    page.write_text(text.replace("</body>", f"{measure}</body>"), encoding="utf-8")
    shown = browse(page, "--window-size=1240,900", "--dump-dom").decode()
    found = re.search(r"charts (\d+) part (\d+) page (\w+)", shown)
    assert found is not None
    charts, part, fits = found.groups()
    assert int(charts) >= 2
    assert (int(part), fits) == (0, "true")


def test_the_first_screen_shows_the_recommendation(builder: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text(report_html(builder.content()), encoding="utf-8")
    picture = tmp_path / "page.png"
    browse(page, "--window-size=1240,900", f"--screenshot={picture}")
    # A blank page of this size compresses to some kilobytes.
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 20_000
