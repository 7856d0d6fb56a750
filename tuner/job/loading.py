"""Loads and checks job files; one error message names everything wrong."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tuner.domain.errors import JobError
from tuner.job.command_check import check_command
from tuner.job.feasibility import check_feasible
from tuner.job.known_keys import KeyPath, spelled
from tuner.job.model import Job, missing_section
from tuner.job.problems import problems_of
from tuner.job.recorded_job import completed, is_recorded

#: Sections that a job which trains cannot do without; [goal] is one for every job.
_NEEDED = ("workload", "space")
#: A message shows so many problems, each of so many characters at most.
_MOST_PROBLEMS = 20
_LONGEST_PROBLEM = 1_000


def load_job(path: Path) -> Job:
    """The job that a file describes.

    Args:
        path: A TOML file; its stem names the job where the file does not.

    Raises:
        JobError: The file cannot be read, or is not a job; the message lists every problem with
            file, key, what was given and what is allowed.
        InfeasibleError: The job is valid, but no configuration in its space can run.
    """
    data: Mapping[str, Any] = {"name": job_name(path), **_read(path)}
    if unusable := list(_keys_with_nul(data)):
        raise JobError(_message(path, [f"{key} holds a NUL character; take it out" for key in unusable]))
    problems: list[str] = []
    if is_recorded(data):
        try:
            data, problems = completed(data, path.parent)
        except JobError as error:
            raise JobError(f"{path}: {error}") from error
    elif not _means_a_recording(data):
        problems = [missing_section(name) for name in _NEEDED if name not in data]
    workload = data.get("workload")
    if isinstance(workload, Mapping) and {"path", "command"} <= set(workload):
        problems.append(
            "workload.path and workload.command are both stated: a job trains a Workload class, or runs a "
            "command. Take one out"
        )
    try:
        # From JSON, pydantic takes lists for tuples and yet no "1" or true for a number.
        job = Job.model_validate_json(json.dumps(data, default=str), strict=True)
    except ValidationError as error:
        found = dict.fromkeys([*problems, *problems_of(error, data)])
        raise JobError(_message(path, list(found))) from error
    if problems:
        raise JobError(_message(path, problems))
    check_feasible(job, path)
    if job.runs_command:
        check_command(job, path)
    return job


def _means_a_recording(data: Mapping[str, Any]) -> bool:
    """Whether a job is meant to replay a recording, even if it does not name one."""
    probe = data.get("probe")
    return isinstance(probe, Mapping) and ("recording" in probe or probe.get("kind") == "recorded")


def job_name(path: Path) -> str:
    """The name of a job whose file states none: the file's stem, with forbidden characters replaced."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).lstrip("-._") or "job"


def _read(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise JobError(
            f"{path}: there is no such file. Name a job file, or write one with `paceline init`"
        ) from None
    except IsADirectoryError:
        found = sorted(inside.name for inside in path.glob("*.toml"))
        there = f" It holds {', '.join(found)}" if found else ""
        raise JobError(f"{path}: is a folder; name the job file in it.{there}") from None
    except OSError as error:
        raise JobError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise JobError(f"{path}: is not text in UTF-8: {error.reason} at byte {error.start}") from error
    except tomllib.TOMLDecodeError as error:
        raise JobError(
            f"{path}: is not valid TOML: {error}. Strings need quotes, tables [brackets]"
        ) from error
    except ValueError as error:
        # Python itself refuses whole numbers of more than some thousand digits.
        raise JobError(f"{path}: holds a number that cannot be read: {error}") from error
    except RecursionError:
        raise JobError(f"{path}: is nested too deeply; no key has more than a few levels") from None


def _keys_with_nul(value: Any, above: KeyPath = ()) -> Iterator[str]:
    """Keys whose text contains characters that no path, command or database can contain."""
    if isinstance(value, str) and "\0" in value:
        yield spelled(above)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            if "\0" in str(key):
                yield spelled((*above, str(key).replace("\0", "\\0")))
            yield from _keys_with_nul(inner, (*above, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _keys_with_nul(inner, (*above, number))


def _message(path: Path, problems: list[str]) -> str:
    if len(problems) == 1:
        return f"{path}: {_readable(problems[0])}"
    shown = [_readable(problem) for problem in problems[:_MOST_PROBLEMS]]
    if len(problems) > len(shown):
        shown.append(f"and {len(problems) - len(shown)} more")
    return "\n  - ".join([f"{path}: {len(problems)} problems", *shown])


def _readable(problem: str) -> str:
    """The problem, without the middle of a value that fills pages."""
    if len(problem) <= _LONGEST_PROBLEM:
        return problem
    half = _LONGEST_PROBLEM // 2
    return f"{problem[:half]} ... {problem[-half:]}"
