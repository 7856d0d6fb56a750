"""Checks that a command receives every value its job varies, before anything starts."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable
from pathlib import Path

from search_spaces import KNOBS, traits_of
from tuner.domain.errors import JobError
from tuner.job.command_files import asks_for_values, script_text
from tuner.job.command_template import SUFFICIENT_VARIABLES, variable_name
from tuner.job.model import Job


def check_command(job: Job, path: Path) -> None:
    """Refuses a command that could not do what its job asks.

    Args:
        job: A job with a command.
        path: Its file.

    Raises:
        JobError: Its folder is not there, something the space varies never reaches the script, or what reads
            its metrics is not installed.
    """
    section = job.command
    folder = path.resolve().parent / section.folder
    if not folder.is_dir():
        raise JobError(f"{path}: workload.folder = {section.folder!r}: there is no folder {folder.resolve()}")
    if section.metrics.source == "tensorboard" and importlib.util.find_spec("tensorboard") is None:
        raise JobError(
            f"{path}: workload.metrics.source = 'tensorboard' needs the package tensorboard, which is not "
            "installed here: pip install 'paceline[tensorboard]'"
        )
    text = script_text(section, path.resolve().parent)
    for axis in _varied(job):
        if not _is_passed(job, axis, text):
            raise JobError(f"{path}: {_never_passed(axis)}")
    if job.probe.max_batch_size_per_rank is not None and not _is_used(job, ("accumulation",), text):
        raise JobError(
            f"{path}: probe.max_batch_size_per_rank asks for accumulation, but the script never gets it: "
            "put {accumulation} in workload.command, or take max_batch_size_per_rank out"
        )


def _varied(job: Job) -> Iterable[str]:
    """The axes of which the space allows more than one value."""
    space = job.search_space()
    for axis, choice in space.axes.items():
        if len(choice.levels()) > 1:
            yield axis
    strategies = [str(name) for name in space.axes["strategy"].levels()]
    for knob in KNOBS:
        having = [name for name in strategies if knob in traits_of(name).knobs]
        if any(len(space.knob_choices(name)[knob].levels()) > 1 for name in having):
            yield knob


def _is_passed(job: Job, axis: str, text: str) -> bool:
    # A process per rank reads WORLD_SIZE, which every launcher sets.
    if axis == "nodes" and job.command.one_per == "rank":
        return True
    return _is_used(job, SUFFICIENT_VARIABLES[axis], text)


def takes_seed(job: Job, job_folder: Path) -> bool:
    """Whether the job's seed can reach what is trained.

    A Workload is seeded by Paceline. A command has to ask for the seed: by `{seed}` or `{values}` in its
    template, or by the script's reading `PACELINE_SEED` or the file with all values.
    """
    if not job.runs_command:
        return True
    return _is_used(job, ("seed",), script_text(job.command, job_folder))


def _is_used(job: Job, variables: tuple[str, ...], text: str) -> bool:
    named = {name for template in job.command.templates() for name in template.variables}
    if named & {*variables, "values"}:
        return True
    everything = f"{job.command.command}\n{text}"
    wanted = [variable_name(name) for name in variables]
    if "nodes" in variables:
        wanted.append("PACELINE_NUM_NODES")
    if any(re.search(rf"\b{name}\b", everything) for name in wanted):
        return True
    return asks_for_values(everything)


def _never_passed(axis: str) -> str:
    names = SUFFICIENT_VARIABLES[axis]
    shown = ", ".join(f"{{{name}}}" for name in names)
    shown = shown if len(names) == 1 else f"one of {shown}"
    where = "cluster.nodes" if axis == "nodes" else f"space.{axis}"
    return (
        f"{where} has several values, but the command never uses {axis}: put {shown} in "
        f"workload.command or workload.environment, or read ${variable_name(names[0])} or the JSON file "
        "$PACELINE_VALUES in the script; for a script elsewhere, pass {values} on its command line"
    )
