"""The command `paceline report`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuner.domain.errors import TunerError
from tuner.service.options import JobPath, Output, StorageUrl
from tuner.service.output import show

if TYPE_CHECKING:
    from tuner.service.opening import StudyStore


class ReportFormat(StrEnum):
    """Formats of a report."""

    HTML = "html"
    MD = "md"
    JSON = "json"
    PDF = "pdf"


#: Files of each format, of which a report has one.
_FILES = {
    ReportFormat.HTML: ("report.html",),
    ReportFormat.MD: ("report.md",),
    ReportFormat.JSON: ("recommendation.json", "report.json"),
    ReportFormat.PDF: ("report.pdf",),
}


def report_command(open_store: Callable[..., AbstractContextManager[StudyStore]]) -> Callable[..., None]:
    """Returns the command `report`.

    Args:
        open_store: Opens the database at a URL, or the default database of a job file; with `to_read`, it
            must exist.
    """

    def report(
        job: JobPath,
        storage: StorageUrl = None,
        output: Output = None,
        formats: Annotated[
            list[ReportFormat] | None,
            typer.Option(
                "--format",
                "-f",
                help="Format whose path to print; repeatable. By default all but pdf, which needs chromium.",
                show_default=False,
            ),
        ] = None,
        opens: Annotated[bool, typer.Option("--open", help="Open the report in the browser.")] = False,
    ) -> None:
        """Write a job's report again from its study, without probing."""
        from tuner.service.opening import default_output, open_job
        from tuner.service.reporting import write_job_report

        wanted = formats or []
        if ReportFormat.PDF in wanted:
            from tuner.report.pdf import browser_of_pdf

            browser_of_pdf()  # before any work
        opened = open_job(job)
        with open_store(storage, job, to_read=True) as store:
            written = write_job_report(opened, store, output or default_output(opened.job))
        files = dict(written.files)
        if ReportFormat.PDF in wanted:
            from tuner.report.pdf import write_pdf

            files["report.pdf"] = write_pdf(files["report.html"])
        for path in _shown_paths(files, wanted):
            show(str(path))
        if opens:
            _open(files["report.pdf" if wanted == [ReportFormat.PDF] else "report.html"])
        if written.error is not None:
            raise written.error

    return report


def _shown_paths(files: Mapping[str, Path], formats: Sequence[ReportFormat]) -> list[Path]:
    """Returns the paths of the files of some formats, each once; of all files without a format."""
    names = [name for one in dict.fromkeys(formats) for name in _FILES[one]] if formats else files
    return [files[name] for name in names if name in files]


def _open(path: Path) -> None:
    """Opens a file in the browser of the user.

    Raises:
        TunerError: There is no browser.
    """
    import webbrowser

    if not webbrowser.open(path.resolve().as_uri()):
        raise TunerError(
            f"no browser was found to open {path}; set the environment variable BROWSER to its command, or "
            "copy the file to a computer with a browser: it needs no other files"
        )
