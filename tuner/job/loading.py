"""Loads and checks job files. One error message lists all problems of a file."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tuner.domain.errors import JobError
from tuner.domain.toml_file import read_toml, spelled
from tuner.job.command_check import check_command
from tuner.job.feasibility import check_feasible
from tuner.job.model import LONGEST_NAME, Job, missing_section
from tuner.job.problems import problems_of
from tuner.job.recorded_job import completed, is_recorded

#: Maps the old path of each renamed key of the job file to its new name. Old paths are accepted for one minor
#: version.
RENAMED_KEYS = {
    ("cluster", "ray", "patience"): "node_timeout",
    ("goal", "hold"): "consecutive_scores",
}

#: Sections that a job must have, besides [goal], if it does not replay a recording.
_NEEDED = ("workload", "space")
#: Maximum number of problems in a message, and of characters in each problem.
_MOST_PROBLEMS = 20
_LONGEST_PROBLEM = 1_000


def load_job(path: Path) -> Job:
    """Loads and checks a job file.

    Args:
        path: Path of a TOML file. If the file has no key `name`, the name of the job is the file name without
            `.toml`.

    Raises:
        JobError: The file cannot be read or is not a valid job. The message lists every problem.
        InfeasibleError: No configuration in the job's space can run.
    """
    data: Mapping[str, Any] = {"name": job_name(path), **with_new_keys(_read(path), path)}
    problems: list[str] = []
    if is_recorded(data):
        try:
            data, problems = completed(data, path.parent)
        except JobError as error:
            raise JobError(f"{path}: {error}") from error
    elif not _replays(data):
        problems = [missing_section(name) for name in _NEEDED if name not in data]
    workload = data.get("workload")
    if isinstance(workload, Mapping) and {"path", "command"} <= set(workload):
        problems.append(
            "workload.path and workload.command are both stated: a job trains either a Workload class or a "
            "command. Remove one"
        )
    try:
        # In strict mode, pydantic converts lists to tuples only if the input is JSON.
        job = Job.model_validate_json(json.dumps(data, default=str), strict=True)
    except ValidationError as error:
        # A message takes time, so messages that are not shown are not made.
        found = dict.fromkeys([*problems, *islice(problems_of(error, data), _MOST_PROBLEMS)])
        raise JobError(_message(path, list(found), more=error.error_count() - _MOST_PROBLEMS)) from error
    if problems:
        raise JobError(_message(path, problems))
    check_feasible(job, path)
    if job.runs_command:
        check_command(job, path)
    return job


def _replays(data: Mapping[str, Any]) -> bool:
    """Whether the content of a job file has `probe.recording` or `probe.kind = 'recorded'`."""
    probe = data.get("probe")
    return isinstance(probe, Mapping) and ("recording" in probe or probe.get("kind") == "recorded")


def job_name(path: Path) -> str:
    """Returns the default name of a job: the name of its file without `.toml`.

    Characters that a name must not contain are replaced.
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).lstrip("-._")[:LONGEST_NAME] or "job"


def _read(path: Path) -> Mapping[str, Any]:
    try:
        return read_toml(path)
    except FileNotFoundError as error:
        words = "there is no such file. Name a job file, or write one with `paceline init`"
        raise JobError(f"{path}: {words}") from error
    except IsADirectoryError as error:
        found = sorted(inside.name for inside in path.glob("*.toml"))
        inside = f" It contains {', '.join(found)}" if found else ""
        raise JobError(f"{path}: is a folder; name the job file in it.{inside}") from error
    except OSError as error:
        raise JobError(
            f"{path} cannot be read: {error.strerror}. Name another file, or correct this path"
        ) from error


def with_new_keys(data: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    """Returns the content of a job file with the new names of renamed keys. Warns of old names."""
    for old, new in RENAMED_KEYS.items():
        *above, key = old
        table: Any = data
        for name in above:
            table = table.get(name) if isinstance(table, Mapping) else None
        if isinstance(table, dict) and key in table and new not in table:
            table[new] = table.pop(key)
            warnings.warn(
                f"{path}: {spelled(old)} is now called {spelled((*above, new))}; the old name works until "
                "version 0.2",
                FutureWarning,
                stacklevel=3,
            )
    return data


def _message(path: Path, problems: list[str], *, more: int = 0) -> str:
    """Returns the error message that lists the problems of a job file.

    Args:
        path: Path of the job file.
        problems: The problems to list, one sentence each.
        more: Number of further problems, which are counted but not listed; counts as 0 if negative.
    """
    total = len(problems) + max(0, more)
    if total == 1:
        return f"{path}: {_readable(problems[0])}"
    shown = [_readable(problem) for problem in problems[:_MOST_PROBLEMS]]
    if total > len(shown):
        shown.append(f"and {total - len(shown):,} more")
    return "\n  - ".join([f"{path}: {total:,} problems", *shown])


def _readable(problem: str) -> str:
    """Returns the text of a problem; if the text is very long, its middle is removed."""
    half = _LONGEST_PROBLEM // 2
    return problem if len(problem) <= _LONGEST_PROBLEM else f"{problem[:half]} ... {problem[-half:]}"
