"""Makes the pictures of README.md and docs/start.md from one real search of the digits job.

    python -m benchmarks.readme_images

It runs what `make demo` runs, in a terminal of 110 columns, and writes `docs/images/terminal.svg` and
`docs/images/report.png`. Its output is the text of the first picture, whose end docs/start.md shows. It needs
Chromium and pyte, and takes a minute. Other programs that run meanwhile make the search slower.
"""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
from itertools import groupby
from pathlib import Path

import pyte
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

from tuner.report.pdf import browser_of_pdf

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
_COLUMNS, _ROWS = 110, 200
_PAGE = (1090, 1290)
_RUN = ("run", "examples/digits.toml", "--output", "paceline-out/digits", "--verify", "--yes")


def run_in_terminal(command: list[str], folder: Path) -> pyte.Screen:
    """Runs a command in a terminal, and returns what the terminal shows at the end."""
    screen = pyte.Screen(_COLUMNS, _ROWS)
    stream = pyte.ByteStream(screen)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, _COLUMNS, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(_COLUMNS)}
    with subprocess.Popen(
        command, cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    ) as process:
        os.close(theirs)
        try:
            while shown := os.read(ours, 1 << 16):
                stream.feed(shown)
        except OSError:
            pass  # Linux reports the end of the last program of a terminal as an error.
    os.close(ours)
    if process.returncode != 0:
        raise SystemExit("\n".join(screen.display))
    return screen


def text_of(screen: pyte.Screen, hidden: str) -> Text:
    """Returns the lines of a terminal with their colors, without empty lines at the end.

    Args:
        screen: The terminal.
        hidden: Part of paths that is left out.
    """
    lines = []
    for row in range(screen.lines):
        line = Text()
        cells = [screen.buffer[row][column] for column in range(screen.columns)]
        for (bold, color), part in groupby(cells, key=lambda cell: (cell.bold, cell.fg)):
            line.append("".join(cell.data for cell in part), f"{'bold ' if bold else ''}{_color(color)}")
        line.rstrip()
        lines.append(Text("").join(line.split(hidden)))
    found = Text("\n").join(lines)
    found.rstrip()
    return found


def _color(name: str) -> str:
    """Returns the name that rich has for a color of pyte."""
    if re.fullmatch(r"[0-9a-f]{6}", name):
        return f"#{name}"
    return name.replace("brown", "yellow").replace("bright", "bright_")


def terminal_svg(text: Text) -> str:
    """Draws a terminal; the picture loads no fonts from elsewhere."""
    console = Console(record=True, width=_COLUMNS, file=io.StringIO())
    console.print(text)
    form = re.sub(r"@font-face \{\{.*?\}\}\n", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    form = form.replace("Fira Code, monospace", "Menlo, Consolas, 'DejaVu Sans Mono', monospace")
    title = f"paceline {' '.join(_RUN[:2])}"
    return console.export_svg(title=title, code_format=form, unique_id="paceline")


def take_picture(page: Path, image: Path) -> None:
    """Stores a picture of the top of a page."""
    with tempfile.TemporaryDirectory() as profile:
        command = [
            *(browser_of_pdf(), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
            *(f"--user-data-dir={profile}", f"--window-size={_PAGE[0]},{_PAGE[1]}"),
            *(f"--screenshot={image}", page.as_uri()),
        ]
        subprocess.run(command, check=True, timeout=120, stderr=subprocess.DEVNULL)


def main() -> None:
    """Searches, and writes both pictures."""
    with tempfile.TemporaryDirectory(prefix="demo-") as name:
        folder = Path(name)
        shutil.copytree(ROOT / "examples", folder / "examples")
        program = Path(sys.executable).with_name("paceline")
        screen = run_in_terminal([str(program), *_RUN], folder)
        hidden = f"{folder}/"
        text = text_of(screen, hidden)
        (IMAGES / "terminal.svg").write_text(terminal_svg(text), encoding="utf-8")
        page = folder / "paceline-out" / "digits" / "report.html"
        page.write_text(page.read_text(encoding="utf-8").replace(hidden, ""), encoding="utf-8")
        take_picture(page, IMAGES / "report.png")
    print(text.plain)


if __name__ == "__main__":
    main()
