"""Writes all files of a report into a folder. If it is interrupted, no file is incomplete."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tuner.domain.output_file import EXECUTABLE, READABLE, check_replaceable, unwritable, write_output
from tuner.domain.safe_text import printable
from tuner.report.content import ReportContent, UnansweredContent
from tuner.report.csv import trials_csv
from tuner.report.launch_files import launch_text
from tuner.report.launch_plan import launch_plan
from tuner.report.pages import report_html, report_markdown, unanswered_html, unanswered_markdown
from tuner.report.unanswered import unanswered_json


def write_report(content: ReportContent, folder: Path) -> dict[str, Path]:
    """Writes the files of a recommendation's report, and replaces those of an earlier report.

    Args:
        content: Data of the report.
        folder: Folder of the files; created if it does not exist.

    Returns:
        The path of each file by name: `recommendation.json`, `report.html`, `report.md`, `trials.csv`, and
        `launch.sh` if the recommendation has a command.

    Raises:
        StorageError: The folder cannot be written.
    """
    recommendation = content.recommendation
    texts = {
        "recommendation.json": json.dumps(recommendation.to_dict(), indent=2, allow_nan=False) + "\n",
        "report.html": printable(report_html(content)),
        "report.md": printable(report_markdown(content)),
        "trials.csv": trials_csv(content),
    }
    if recommendation.command.strip():
        plan = launch_plan(recommendation, content.job, content.job_path)
        texts["launch.sh"] = launch_text(replace(plan, file_name="launch.sh"), "torchrun")
    return _write_all(texts, folder, replaced=("report.json",))


def write_unanswered(content: UnansweredContent, folder: Path) -> dict[str, Path]:
    """Writes the report of a search without a recommendation.

    It removes `recommendation.json` and `launch.sh` of an earlier report from the folder.

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
    return _write_all(texts, folder, replaced=("recommendation.json", "launch.sh"))


def _write_all(texts: Mapping[str, str], folder: Path, replaced: Sequence[str]) -> dict[str, Path]:
    """Writes texts to files, after removing files of an earlier report.

    Args:
        texts: Maps each file name to its text.
        folder: Folder of the files; created if it does not exist.
        replaced: Names of the files to remove.

    Returns:
        The path of each written file by name.
    """
    path = folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in (*replaced, *texts):
            check_replaceable(folder / name)
        for name in replaced:
            path = folder / name
            path.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error
    for name, text in texts.items():
        write_output(folder / name, text, mode=EXECUTABLE if name == "launch.sh" else READABLE)
    return {name: folder / name for name in texts}
