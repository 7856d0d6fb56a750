"""What a configuration means to the user's script: every variable's value, and the command they make."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from search_spaces import KNOBS, BatchSplitsEvenly, Configuration
from tuner.job.command_template import Template, variable_name
from tuner.job.model import Job

Values = dict[str, object]


def stated_values(job: Job, configuration: Configuration) -> Values:
    """The variables that follow from job and configuration alone."""
    devices = job.cluster.devices_per_node
    split = BatchSplitsEvenly(devices_per_node=devices, max_per_rank=job.probe.max_batch_size_per_rank)
    per_rank, accumulation = split.split(configuration)
    return {
        "nodes": configuration.nodes,
        "devices_per_node": devices,
        "num_ranks": configuration.nodes * devices,
        "batch_size": configuration.batch_size,
        "batch_size_per_rank": per_rank,
        "micro_batch_size": per_rank // accumulation,
        "accumulation": accumulation,
        "learning_rate": configuration.learning_rate,
        "strategy": configuration.strategy,
        **{knob: configuration[knob] for knob in KNOBS if knob in configuration},
        "seed": job.seed,
    }


def rendered_command(job: Job, values: Mapping[str, object], *, resumes: bool) -> str:
    """The command line for the shell.

    Args:
        job: A job with a command.
        values: Every variable's value but `resume`.
        resumes: Whether the run goes on from its checkpoint.
    """
    section = job.command
    template = Template(section.command)
    resume = ""
    if resumes and section.resume is not None:
        resume = Template(section.resume).rendered(values, for_shell=True)
    line = template.rendered({**values, "resume": resume}, for_shell=True)
    return line if not resume or "resume" in template.variables else f"{line} {resume}"


def rendered_environment(job: Job, values: Mapping[str, object]) -> dict[str, str]:
    """The variables of `workload.environment`."""
    section = job.command
    return {
        name: Template(text).rendered(values, for_shell=False) for name, text in section.environment.items()
    }


@dataclass(frozen=True, kw_only=True)
class OwnLaunch:
    """The user's own command as it runs without Paceline.

    Args:
        command: Lines for the shell, run in the folder; what is known on a node only, unless it was given, is
            read from the node's environment (`PACELINE_NODE_RANK`, `PACELINE_MAIN_ADDRESS`,
            `PACELINE_MAIN_PORT`).
        environment: Variables it is given: those of the job file, and values that no template names.
        folder: Its working folder.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str]
    folder: Path


def own_launch(
    job: Job, job_folder: Path, configuration: Configuration, place: Mapping[str, object] | None = None
) -> OwnLaunch:
    """The user's own command with a configuration's values.

    Args:
        job: A job with a command.
        job_folder: Where the job file lies.
        configuration: What is to be trained.
        place: Values of what is known on a node only; None leaves them to the node.
    """
    section = job.command
    values = stated_values(job, configuration)
    told = {
        **values,
        **(place or {}),
        "checkpoint": "checkpoint",
        "output": "output",
        "metrics": "metrics.jsonl",
        "values": "values.json",
    }
    named = {name for template in section.templates() for name in template.variables}
    environment = {variable_name(name): str(value) for name, value in values.items() if name not in named}
    lines = []
    if "output" in named:
        lines.append("mkdir -p output")
    if "values" in named:
        lines.append(f"printf %s {shlex.quote(json.dumps(values))} > values.json")
    return OwnLaunch(
        command=(*lines, rendered_command(job, told, resumes=False)),
        environment=environment | rendered_environment(job, told),
        folder=(job_folder / section.folder).resolve(),
    )


def own_command(job: Job, job_folder: Path, configuration: Configuration) -> str:
    """The same in one line.

    On one node what is known there only is filled in; on several it is read from the environment of each.
    """
    place = {"node_rank": 0, "main_address": "127.0.0.1", "main_port": 29500}
    launch = own_launch(job, job_folder, configuration, place if configuration.nodes == 1 else None)
    steps = [f"cd {shlex.quote(str(launch.folder))}"]
    if launch.environment:
        words = (f"{name}={shlex.quote(value)}" for name, value in launch.environment.items())
        steps.append(f"export {' '.join(words)}")
    return " && ".join([*steps, *launch.command])
