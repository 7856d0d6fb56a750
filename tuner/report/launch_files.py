"""Renders launch files of a recommendation for torchrun, SLURM, Ray, Kubernetes and SkyPilot."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from tuner.domain.errors import JobError
from tuner.domain.safe_text import printable
from tuner.job import required_variables
from tuner.launchers import OnePer
from tuner.launchers.containers import contained
from tuner.report.launch_plan import LaunchPlan


@dataclass(frozen=True, kw_only=True)
class Target:
    """A kind of launch file; its template is `templates/launch/NAME.j2`.

    Args:
        executable: Whether the file is made executable.
        needs_command: Whether this kind of file is possible only for a recommendation with a training
            command.
    """

    executable: bool = False
    needs_command: bool = True


TARGETS: Mapping[str, Target] = {
    "torchrun": Target(executable=True),
    "slurm": Target(executable=True),
    "ray": Target(executable=True),
    "k8s": Target(),
    "skypilot": Target(),
    "env": Target(needs_command=False),
}

#: Targets that start the container of a job themselves.
_STARTS_CONTAINERS = frozenset({"k8s", "skypilot"})
#: Maximum length of the name of a Kubernetes object, in characters.
_LONGEST_NAME = 63


def launch_text(plan: LaunchPlan, target: str) -> str:
    """Returns the text of a launch file.

    Args:
        plan: The training to launch.
        target: Kind of launch file, a key of `TARGETS`.

    Raises:
        JobError: A launch file of this kind cannot run the training.
    """
    reason = _why_not(plan, target)
    if reason is not None:
        raise JobError(f"{plan.name} cannot be exported to {target}: {reason}")
    return _environment().get_template(f"launch/{target}.j2").render(plan=_contained(plan, target))


def _contained(plan: LaunchPlan, target: str) -> LaunchPlan:
    """Returns a copy of a plan that runs its command in the container of the job, if it has one.

    Kubernetes and SkyPilot start the container themselves; elsewhere, the command does.
    """
    container = plan.container
    if container is None or target == "env":
        return plan
    if target in _STARTS_CONTAINERS:
        return replace(plan, image=plan.image or container.image)
    container = replace(
        container,
        working_folder=Path(plan.working_folder),
        variables=(*plan.variables, *plan.private, "PACELINE_TOKEN"),
    )
    return replace(plan, command=contained(plan.command, container))


def secret_text(plan: LaunchPlan, target: str) -> str:
    """Returns the text of a file with the environment variables whose values must not be published.

    Args:
        plan: The training to launch.
        target: Kind of launch file that reads the values, a key of `TARGETS`.
    """
    if target == "k8s":
        return _yaml(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": _kubernetes_name(plan.name, "-environment")},
                "stringData": dict(plan.private),
            }
        )
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in plan.private.items())


def _why_not(plan: LaunchPlan, target: str) -> str | None:
    if TARGETS[target].needs_command and not plan.command:
        return (
            "the search replayed a recording or trained on this host under a virtual clock, so there is no "
            "training command. `--target env` writes the recommended values for your own training command"
        )
    if target == "k8s" and plan.one_per is OnePer.JOB and plan.num_nodes > 1:
        return (
            "a TrainJob starts the command on every node, but this command must be started only once, and "
            "starts the other nodes itself: use a command that is started once per node"
        )
    if target == "env":
        broken = [name for name, value in plan.variables.items() if "\n" in value]
        if broken:
            return f"the value of {broken[0]} has several lines, which an environment file cannot contain"
    return None


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("tuner.report"),
        # Values are quoted by the filters below, in the syntax of the shell, Python or YAML.
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "comment": lambda words: f"# {' '.join(printable(words).split())}",
        "json": json.dumps,
        "kubernetes_name": _kubernetes_name,
        # Kubernetes replaces `$(NAME)` by a variable, and `$$` by a dollar sign.
        "kubernetes_text": lambda text: re.sub(r"\$(?=[$(])", "$$", text),
        # sbatch parses an option's value like a shell, within one line.
        "option": lambda value: shlex.quote(" ".join(str(value).split())),
        "python": repr,
        "quote": shlex.quote,
        "required": required_variables,
        # In arguments, torchrun replaces `$local_rank` by the rank, and `$$` by a dollar sign.
        "torchrun_argument": lambda text: re.sub(r"\$(?=\$|\{?local_rank)", "$$", text),
        "without_empty": lambda data: {key: value for key, value in data.items() if value},
        "yaml": _yaml,
    }
    return environment


def _kubernetes_name(name: str, ending: str = "") -> str:
    """Converts a name to lower case, digits and hyphens, starting with a letter, as Kubernetes requires."""
    words = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    found = words if words[:1].isalpha() else f"job-{words}"
    return found[: _LONGEST_NAME - len(ending)].strip("-") + ending


class _Block(str):
    """A text of several lines that PyYAML writes as a block. Other strings are written as usual."""


yaml.add_representer(
    _Block,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", str(text), style="|"),
    Dumper=yaml.SafeDumper,
)


def _yaml(data: Any) -> str:
    dumped: str = yaml.safe_dump(_blocks(data), sort_keys=False, allow_unicode=True, width=1_000_000)
    return dumped


def _blocks(data: Any) -> Any:
    if isinstance(data, Mapping):
        return {key: _blocks(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_blocks(item) for item in data]
    return _Block(data) if isinstance(data, str) and "\n" in data else data
