"""The next sensible command after each command, which the command line prints at its end."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from tuner.domain.errors import JobError, StorageError, TunerError
from tuner.service.options import Format, LogFormat, MachineFormat

#: The next command after each command that has succeeded, without `paceline`. `{job}` is the job file,
#: `{number}` the number of a job of the service. A command may choose another one by `suggest`.
NEXT_STEPS = {
    "init": "check {job}",
    "check": "run {job}",
    "run": "export {job} --target torchrun",
    "train": "run {job}",
    "status": "trials {job}",
    "trials": "report {job}",
    "explain": "trials {job}",
    "report": "export {job} --target torchrun",
    "predict": "run {job}",
    "compare": "report {job}",
    "record": "report {job}",
    "import-runs": "run {job}",
    "export": "outcome add {job} --seconds SECONDS",
    "calibrate": "check {job}",
    "schema": "init",
    "doctor": "init",
    "db upgrade": "status {job}",
    "db clean": "db upgrade URL",
    "db recover": "run {job}",
    "outcome add": "status {job}",
    "submit": "watch {number}",
    "jobs": "submit {job}",
    "watch": "jobs",
    "cancel": "jobs",
    "approve": "watch {number}",
    "pause": "resume {number}",
    "resume": "watch {number}",
    "serve": "serve",
    "worker": "jobs",
    "token create": "submit {job}",
    "token list": "token create NAME",
    "token revoke": "token list",
}
#: The next command after an error: of this kind, in any command that reads a job file.
_AFTER_JOB_ERROR, _AFTER_STORAGE_ERROR, _AFTER_FAILED_PROBES = "check {job}", "doctor", "trials {job}"
#: Commands whose errors 3 and 5 are about the study of a job.
_SEARCHES = ("run", "train", "report", "export", "record")
_chosen: dict[str, str] = {}


def suggest(step: str, **fields: object) -> None:
    """Chooses the next command that is printed at the end of the present one."""
    _chosen["step"] = step.format(**{name: shlex.quote(str(value)) for name, value in fields.items()})


def suggest_command(command: str) -> None:
    """Chooses the next command, which is given as a whole, such as `paceline report job.toml`."""
    _chosen["step"] = command.removeprefix("paceline ")


def pop_suggestion() -> str | None:
    """Returns the next command, and forgets it; None if none should be printed."""
    return _chosen.pop("step", None)


def add_next_steps(app: typer.Typer, group: str = "") -> None:
    """Lets every command of a command line suggest the next one.

    Args:
        app: The command line, with all its commands.
        group: Name of the group of commands that `app` is; empty for the whole command line.
    """
    for info in app.registered_commands:
        assert info.callback is not None
        name = f"{group} {info.name or info.callback.__name__.replace('_', '-')}".strip()
        if name in NEXT_STEPS:
            info.callback = _with_next_step(name, info.callback)
    for inner in app.registered_groups:
        assert inner.typer_instance is not None
        add_next_steps(inner.typer_instance, inner.name or str(inner.typer_instance.info.name))


def _with_next_step(name: str, command: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function of a command that also chooses the next command."""

    @functools.wraps(command)
    def call(**given: Any) -> Any:
        _chosen.clear()
        fields = {
            "job": given.get("job") or given.get("path") or given.get("first") or "job.toml",
            "number": given.get("number", 1),
        }
        try:
            result = command(**given)
        except TunerError as error:
            if "step" not in _chosen:
                suggest(_step_after(error, name, fields["job"]), **fields)
            _forget_for_programs(given)
            raise
        except typer.Exit:
            if "step" not in _chosen:
                suggest(NEXT_STEPS[name], **fields)
            _forget_for_programs(given)
            raise
        if "step" not in _chosen:
            suggest(NEXT_STEPS[name], **fields)
        _forget_for_programs(given)
        return result

    return call


def _step_after(error: TunerError, name: str, job: object) -> str:
    if error.exit_code == 0:
        return f"{name} {{job}}"
    if isinstance(error, StorageError):
        return _AFTER_STORAGE_ERROR
    if isinstance(error, JobError):
        if not _is_file(str(job)):
            return "init {job}" if str(job).endswith(".toml") else f"{name} --help"
        return f"{name} --help" if name in ("init", "submit") else _AFTER_JOB_ERROR
    return _AFTER_FAILED_PROBES if name in _SEARCHES else f"{name} --help"


def _is_file(path: str) -> bool:
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        # The name is too long, or no name at all.
        return False


def _forget_for_programs(given: dict[str, Any]) -> None:
    """Drops the suggestion if the output is for a program, or if the user wants little output."""
    formats = (Format.JSON, Format.CSV, MachineFormat.JSON)
    is_json_log = given.get("log_format") is LogFormat.JSON
    if given.get("output_format") in formats or given.get("quiet") or is_json_log:
        _chosen.clear()
