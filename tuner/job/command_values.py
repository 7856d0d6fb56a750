"""Computes the values of template variables for a configuration, and the command line with these values."""

from __future__ import annotations

import json
import math
import re
import shlex
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from search_spaces import KNOBS, BatchSplitsEvenly, Configuration
from tuner.domain.threads import thread_variables
from tuner.job.command_files import asks_for_values, script_text
from tuner.job.command_template import NODE_VARIABLES, Template, variable_name, written
from tuner.job.model import Job

Values = dict[str, object]
#: Address and port of the first node for a training on one node.
_HERE, _PORT = "127.0.0.1", 29500


def stated_values(job: Job, configuration: Configuration) -> Values:
    """Returns the values of the template variables that depend only on the job and the configuration."""
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
        "python": "python3" if job.cluster.image else job.cluster.python or sys.executable,
    }


def rendered_command(job: Job, values: Mapping[str, object], *, resumes: bool) -> str:
    """Returns the command line for the shell.

    Args:
        job: A job with a command.
        values: Maps every template variable except `resume` to its value.
        resumes: Whether the run resumes from its checkpoint.
    """
    section = job.command
    template = Template(section.command)
    resume = ""
    if resumes and section.resume is not None:
        resume = Template(section.resume).rendered(values, for_shell=True)
    line = template.rendered({**values, "resume": resume}, for_shell=True)
    return line if not resume or "resume" in template.variables else f"{line} {resume}"


def rendered_environment(job: Job, values: Mapping[str, object]) -> dict[str, str]:
    """Returns the environment variables of the command.

    These are the variables in `workload.environment`. If the job file sets `cluster.threads_per_rank`, there
    are also variables that limit the threads of libraries, such as `OMP_NUM_THREADS`.
    """
    section, cluster = job.command, job.cluster
    threads = thread_variables(cluster.threads_per_rank) if cluster.states_threads else {}
    return threads | {
        name: Template(text).rendered(values, for_shell=False) for name, text in section.environment.items()
    }


@dataclass(frozen=True, kw_only=True)
class OwnLaunch:
    """The user's command for one configuration, to run without Paceline.

    Args:
        preparation: Shell commands that create the folders and files that the command needs.
        command: The command line. Values that differ between nodes are references to environment variables
            (`PACELINE_NODE_RANK`, `PACELINE_MAIN_ADDRESS`, `PACELINE_MAIN_PORT`).
        environment: Environment variables to set: from the job file, and `PACELINE_...` variables that the
            script reads.
        private: Environment variables to set whose values must not be published.
        folder: Working directory of the command.
        imports_client: Whether the script imports `paceline_client`.
    """

    preparation: tuple[str, ...]
    command: str
    environment: Mapping[str, str]
    private: Mapping[str, str]
    folder: Path
    imports_client: bool


def own_launch(
    job: Job,
    job_folder: Path,
    configuration: Configuration,
    place: Mapping[str, object] | None = None,
    *,
    num_samples: int | None = None,
) -> OwnLaunch:
    """Returns the user's command with the values of a configuration.

    Args:
        job: A job with a command.
        job_folder: Folder of the job file.
        configuration: The configuration to train with.
        place: Maps each variable that differs between nodes, such as `node_rank`, to its value; None if the
            command reads these values from environment variables on the node.
        num_samples: Number of samples after which the training should end: the value of `{until_samples}`,
            from which `{until_steps}` is computed; None for no limit.
    """
    section, values = job.command, stated_values(job, configuration) | dict(place or {})
    if num_samples is not None:
        num_steps = math.ceil(num_samples / configuration.batch_size)
        values |= {"until_samples": num_samples, "until_steps": num_steps}
    passed = {
        **values,
        "checkpoint": "checkpoint",
        "output_folder": "output",
        "metrics": "metrics.jsonl",
        "values": "values.json",
    }
    named = {name for template in section.templates() for name in template.variables}
    read = script_text(section, job_folder) + section.command
    environment = {
        variable_name(name): written(value)
        for name, value in values.items()
        if re.search(rf"\b{variable_name(name)}\b", read)
    }
    wants_file = "values" in named or asks_for_values(read)
    if wants_file and "values" not in named:
        environment["PACELINE_VALUES"] = "values.json"
    environment |= rendered_environment(job, passed)
    hidden = section.private_variables
    preparation = ["mkdir -p output"] if "output_folder" in named else []
    if wants_file:
        plain = {name: value for name, value in values.items() if name not in NODE_VARIABLES}
        preparation.append(f"printf %s {shlex.quote(json.dumps(plain))} > values.json")
    return OwnLaunch(
        preparation=tuple(preparation),
        command=rendered_command(job, passed, resumes=False),
        environment={name: value for name, value in environment.items() if name not in hidden},
        private={name: environment[name] for name in environment if name in hidden},
        folder=(job_folder / section.folder).resolve(),
        imports_client=bool(re.search(r"\bpaceline_client\b", read)),
    )


def user_command(
    job: Job, job_folder: Path, configuration: Configuration, *, num_samples: int | None = None
) -> str:
    """Returns one line of shell that runs the user's command for a configuration without Paceline.

    - On several nodes, each node must have `PACELINE_NODE_RANK`, `PACELINE_MAIN_ADDRESS` and
      `PACELINE_MAIN_PORT` in its environment.
    - Variables whose values must not be published must be set already; the line says so if one is not.
    - With the local launcher and `one_per = "rank"`, the line starts one process for each rank.

    The arguments have the same meaning as those of `own_launch`.
    """
    section = job.command
    here = {"node_rank": 0, "main_address": _HERE, "main_port": _PORT}
    place = here if configuration.nodes == 1 else None
    launch = own_launch(job, job_folder, configuration, place, num_samples=num_samples)
    steps = [f"cd {shlex.quote(str(launch.folder))}", *launch.preparation]
    if launch.environment:
        steps.append(f"export {_assignments(launch.environment)}")
    if launch.private:
        steps.append(required_variables(launch.private))
    if section.one_per == "rank" and job.cluster.nodes_share_host:
        ranks = configuration.nodes * job.cluster.devices_per_node
        meeting = {"MASTER_ADDR": _HERE, "MASTER_PORT": str(_PORT), "WORLD_SIZE": str(ranks)}
        steps.append(f"export {_assignments(meeting)}")
        numbers = " ".join(map(str, range(ranks)))
        all_ranks = f"for RANK in {numbers}; do export RANK LOCAL_RANK=$RANK; {launch.command} & done; wait"
        return f"{' && '.join(steps)}; {all_ranks}"
    return " && ".join([*steps, launch.command])


def required_variables(names: Iterable[str]) -> str:
    """Returns a shell command that exports variables, and ends the shell with a message if one is not set."""
    files = "workload.environment of the job file and in launch.sh.secret.env"
    where = f"is not set; its value is in {files}: export it"
    words = [f'{name}="${{{name}?{where}}}"' for name in names]
    return f"export {' '.join(words)}"


def _assignments(environment: Mapping[str, str]) -> str:
    return " ".join(f"{name}={shlex.quote(value)}" for name, value in environment.items())
