"""Writes all files of a report into a folder. If it is interrupted, no file is incomplete."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from tuner.domain.output_file import (
    EXECUTABLE,
    PRIVATE,
    READABLE,
    check_replaceable,
    unwritable,
    write_output,
)
from tuner.domain.safe_text import printable
from tuner.report.content import ReportContent, UnansweredContent
from tuner.report.data_files import trials_csv, unanswered_json
from tuner.report.launch_files import launch_text, secret_text
from tuner.report.launch_plan import launch_plan
from tuner.report.pages import (
    report_context,
    report_html,
    report_markdown,
    unanswered_html,
    unanswered_markdown,
)

_SECRET = "launch.sh.secret.env"
_MODES = {"launch.sh": EXECUTABLE, _SECRET: PRIVATE}
#: Files that are removed if an earlier report wrote them and the present report does not. Earlier versions
#: wrote `launch.secret.env`.
_REMOVED = frozenset(
    {"recommendation.json", "report.json", "report.pdf", "launch.sh", _SECRET, "launch.secret.env"}
)


def write_report(content: ReportContent, folder: Path) -> dict[str, Path]:
    """Writes the files of a recommendation's report, and replaces those of an earlier report.

    Args:
        content: Data of the report.
        folder: Folder of the files; created if it does not exist.

    Returns:
        The path of each file by name: `recommendation.json`, `report.html`, `report.md`, `trials.csv`, and
        `launch.sh` if the recommendation has a command. `launch.sh.secret.env` has the values of environment
        variables that are not published, for `launch.sh`.

    Raises:
        StorageError: The folder cannot be written.
    """
    recommendation, context = content.recommendation, report_context(content)
    texts = {
        "recommendation.json": json.dumps(recommendation.to_dict(), indent=2, allow_nan=False) + "\n",
        "report.html": printable(report_html(content, context)),
        "report.md": printable(report_markdown(content, context)),
        "trials.csv": trials_csv(content),
    }
    if recommendation.command.strip():
        plan = launch_plan(recommendation, content.job, content.job_path)
        plan = plan.written_to(folder / "launch.sh", "torchrun")
        texts["launch.sh"] = launch_text(plan, "torchrun")
        if plan.secret_file is not None:
            texts[plan.secret_file.name] = secret_text(plan, "torchrun")
    return _write_all(texts, folder)


def write_unanswered(content: UnansweredContent, folder: Path) -> dict[str, Path]:
    """Writes the report of a search without a recommendation.

    If an earlier report wrote `recommendation.json` and `launch.sh` to the folder, they are removed.

    Args:
        content: Data of the report.
        folder: Folder of the files; created if it does not exist.

    Returns:
        The path of each file by name: `report.json`, `report.html`, `report.md`.

    Raises:
        StorageError: The folder cannot be written.
    """
    texts = {
        "report.json": unanswered_json(content),
        "report.html": printable(unanswered_html(content)),
        "report.md": printable(unanswered_markdown(content)),
    }
    return _write_all(texts, folder)


def _write_all(texts: Mapping[str, str], folder: Path) -> dict[str, Path]:
    """Writes texts to files, after removing files of an earlier report.

    Args:
        texts: Maps each file name to its text.
        folder: Folder of the files; created if it does not exist.

    Returns:
        The path of each written file by name.
    """
    path = folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in {*_REMOVED, *texts}:
            check_replaceable(folder / name)
        for name in _REMOVED - texts.keys():
            path = folder / name
            path.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error
    for name, text in texts.items():
        write_output(folder / name, text, mode=_MODES.get(name, READABLE))
    return {name: folder / name for name in texts}
