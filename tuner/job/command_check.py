"""Checks that the command of a job receives every value that the search varies, such as the batch size."""

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
    """Checks the command of a job without running it.

    Args:
        job: A job with a command.
        path: Path of the job file.

    Raises:
        JobError: The working folder does not exist, the script does not receive a value that has several
            choices in the space, or a package that is needed to read the scores is not installed.
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
        # Every launcher sets WORLD_SIZE for a command with one process per rank.
        is_in_world_size = axis == "nodes" and job.command.one_per == "rank"
        if not is_in_world_size and not _is_used(job, SUFFICIENT_VARIABLES[axis], text):
            raise JobError(f"{path}: {_never_passed(axis)}")
    if job.probe.max_batch_size_per_rank is not None and not _is_used(job, ("accumulation",), text):
        raise JobError(
            f"{path}: probe.max_batch_size_per_rank needs accumulation, but the script does not receive it: "
            "put {accumulation} in workload.command, or remove max_batch_size_per_rank"
        )


def _varied(job: Job) -> Iterable[str]:
    """Yields the axes of the search space, and the strategy parameters, that have more than one value."""
    space = job.search_space()
    for axis, choice in space.axes.items():
        if len(choice.levels()) > 1:
            yield axis
    strategies = [str(name) for name in space.axes["strategy"].levels()]
    for knob in KNOBS:
        having = [name for name in strategies if knob in traits_of(name).knobs]
        if any(len(space.knob_choices(name)[knob].levels()) > 1 for name in having):
            yield knob


def takes_seed(job: Job, job_folder: Path) -> bool:
    """Whether the training receives the job's seed.

    Paceline seeds a Workload. A command receives the seed if its template has `{seed}` or `{values}`, or if
    the script reads `PACELINE_SEED` or the file with all values.
    """
    return not job.runs_command or _is_used(job, ("seed",), script_text(job.command, job_folder))


def _is_used(job: Job, variables: tuple[str, ...], text: str) -> bool:
    if job.is_remote:
        return True  # a trainer gets all values with each slice
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
