"""Launch files of a recommendation, from `templates/launch/`: torchrun, SLURM, Ray, Kubernetes, SkyPilot."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from tuner.domain.errors import JobError
from tuner.launchers import OnePer
from tuner.report.launch_plan import LaunchPlan


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a recommendation can be exported to; its template is `templates/launch/NAME.j2`.

    Args:
        executable: Whether the file may be executed.
        needs_command: Whether there is nothing to write without a command.
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

#: The longest name of a Kubernetes object.
_LONGEST_NAME = 63


def launch_text(plan: LaunchPlan, target: str) -> str:
    """The text of a target's file.

    Raises:
        JobError: The target cannot run what is planned.
    """
    reason = _why_not(plan, target)
    if reason is not None:
        raise JobError(f"{plan.name} cannot be exported to {target}: {reason}")
    return _environment().get_template(f"launch/{target}.j2").render(plan=plan)


def _why_not(plan: LaunchPlan, target: str) -> str | None:
    if TARGETS[target].needs_command and not plan.command:
        return (
            "what is recommended was emulated or replayed, so there is no command here that trains it. "
            "`--target env` writes its values, to be trained with what the recording was made with, or by a "
            "job whose nodes exist"
        )
    if target == "k8s" and plan.one_per is OnePer.JOB and plan.num_nodes > 1:
        return (
            "a TrainJob starts its command on every node, but this command is started once and starts the "
            "nodes itself: use a command that is started once per node"
        )
    if target == "env":
        broken = [name for name, value in plan.variables.items() if "\n" in value]
        if broken:
            return f"{broken[0]} has several lines, which an environment file cannot hold"
    return None


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("tuner.report"),
        # Shell, Python and YAML have their own ways of quoting, which are the filters below.
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "comment": lambda words: f"# {' '.join(words.split())}",
        "json": json.dumps,
        "kubernetes_name": _kubernetes_name,
        # Kubernetes takes `$(NAME)` for a variable and `$$` for a dollar.
        "kubernetes_text": lambda text: re.sub(r"\$(?=[$(])", "$$", text),
        # sbatch reads a value as a shell would, on one line.
        "option": lambda value: shlex.quote(" ".join(str(value).split())),
        "python": repr,
        "quote": shlex.quote,
        # In its arguments, torchrun replaces `$local_rank`, and `$$` by a dollar.
        "torchrun_argument": lambda text: re.sub(r"\$(?=\$|\{?local_rank)", "$$", text),
        "without_empty": lambda data: {key: value for key, value in data.items() if value},
        "yaml": _yaml,
    }
    return environment


def _kubernetes_name(name: str) -> str:
    """A name that Kubernetes allows: lower case, digits and hyphens, starting with a letter."""
    words = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    found = words if words[:1].isalpha() else f"job-{words}"
    return found[:_LONGEST_NAME].strip("-")


class _Block(str):
    """A text of several lines, which YAML shows as a block. Its own type leaves PyYAML's dumper as it is."""


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
