"""Makes `report.pdf` from `report.html` with Chromium, if it is installed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from tuner.domain.errors import TunerError
from tuner.domain.output_file import write_output

#: Names under which distributions install Chromium, the best known first.
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
TIMEOUT_SECONDS = 120.0
_FLAGS = (
    "--headless",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-pdf-header-footer",
)


def browser_of_pdf() -> str:
    """Returns the path of Chromium.

    Raises:
        TunerError: It is not installed.
    """
    for name in BROWSERS:
        found = shutil.which(name)
        if found is not None:
            return found
    raise TunerError(
        "a PDF needs the browser Chromium, which is not installed here: install it with `apt-get install "
        "chromium`, or use --format html and print the page from any browser"
    )


def write_pdf(page: Path, *, timeout_seconds: float = TIMEOUT_SECONDS) -> Path:
    """Writes the PDF of a page next to the page, with the name of the page.

    Args:
        page: Path of the HTML file, which needs no other files.
        timeout_seconds: Seconds after which the browser is ended.

    Returns:
        The path of the PDF.

    Raises:
        TunerError: Chromium is not installed, fails or takes too long.
        StorageError: The file cannot be written.
    """
    browser = browser_of_pdf()
    # Chromium refuses to run as root in its sandbox. The page is our own and has no scripts.
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory(prefix="paceline-pdf-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        made, log = folder / "page.pdf", folder / "log.txt"
        profile = f"--user-data-dir={folder / 'profile'}"
        command = [browser, *_FLAGS, *sandbox, profile, f"--print-to-pdf={made}", page.resolve().as_uri()]
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=folder,
                start_new_session=True,
            )
            try:
                process.wait(timeout_seconds)
            except subprocess.TimeoutExpired as error:
                raise TunerError(
                    f"{browser} did not print {page} within {timeout_seconds:g} s; open the page in a "
                    "browser and print it there"
                ) from error
            finally:
                _end(process)
        if process.returncode != 0 or not made.is_file():
            said = log.read_text(errors="replace").strip().splitlines()
            raise TunerError(
                f"{browser} could not print {page} (exit code {process.returncode}): "
                f"{said[-1] if said else 'it said nothing'}; open the page in a browser and print it there"
            )
        path = page.with_suffix(".pdf")
        write_output(path, made.read_bytes())
    return path


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a browser with its helper processes, if it still runs."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
