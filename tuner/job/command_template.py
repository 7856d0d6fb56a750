"""Command templates: text with `{variables}` that are replaced by the values of a configuration."""

from __future__ import annotations

import math
import shlex
import string
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from search_spaces import KNOBS
from tuner.domain.errors import did_you_mean

#: Maps each variable of a template to its description, in the order of the documentation. The script also
#: gets each variable as an environment variable.
VARIABLES: dict[str, str] = {
    "nodes": "number of nodes",
    "devices_per_node": "number of devices of one node; each device has one rank",
    "num_ranks": "number of ranks on all nodes together",
    "batch_size": "global batch size: samples per optimizer step, over all ranks",
    "batch_size_per_rank": "samples per optimizer step on one rank",
    "micro_batch_size": "samples that a rank processes at once: batch_size_per_rank divided by accumulation",
    "accumulation": "number of micro-batches whose gradients a rank accumulates; above 1 only if "
    "probe.max_batch_size_per_rank is stated",
    "learning_rate": "peak learning rate",
    "strategy": "name of the strategy that synchronizes the ranks",
    "tau": "steps between two exchanges of parameters; empty if the strategy has no tau",
    "beta": "elastic averaging: moving rate times number of ranks; empty for other strategies",
    "outer_learning_rate": "diloco: learning rate of the outer steps; empty for other strategies",
    "outer_momentum": "diloco: momentum of the outer steps; empty for other strategies",
    "seed": "the job's seed",
    "checkpoint": "path to save to and to resume from: a file or a folder, as the script needs",
    "resume": "the text of workload.resume if the run resumes; empty if it starts from the beginning",
    "metrics": "path of the file to which the script may report lines of JSON",
    "values": "path of a JSON file that maps each variable to its value",
    "output_folder": "folder of this probe, for all files that the script writes",
    "until_samples": "a hint: number of samples at which the slice ends; empty if another limit ends it",
    "until_steps": "a hint: number of steps at which the slice ends; empty if another limit ends it",
    "until_seconds": "a hint: training seconds at which the slice ends; empty if another limit ends it",
    "until_scores": "a hint: number of new scores after which the slice ends; empty if another limit ends it",
    "scored_samples": "number of samples at the last score that earlier slices reported",
    "python": "cluster.python; if absent, the interpreter that runs Paceline",
    "node_rank": "number of this node within the job, from 0",
    "main_address": "address of the first node",
    "main_port": "a free port of the first node",
}
#: Maps each variable whose value differs between nodes to the environment variable in which Paceline passes
#: this value to the command.
NODE_VARIABLES = {
    "node_rank": "PACELINE_NODE_RANK",
    "main_address": "PACELINE_MAIN_ADDRESS",
    "main_port": "PACELINE_MAIN_PORT",
}
#: Maps each axis of the search space to the variables that can pass its value to a script. A command needs
#: only one of these variables.
SUFFICIENT_VARIABLES: dict[str, tuple[str, ...]] = {
    "nodes": ("nodes", "num_ranks"),
    "batch_size": ("batch_size", "batch_size_per_rank", "micro_batch_size"),
    "learning_rate": ("learning_rate",),
    "strategy": ("strategy",),
    **{knob: (knob,) for knob in KNOBS},
}


def variable_name(variable: str) -> str:
    """Returns the name of the environment variable that contains the value of a template variable."""
    return f"PACELINE_{variable.upper()}"


def written(value: object) -> str:
    """Returns a value as text. Numbers have no exponent, since YAML parsers read 3e-05 as text."""
    if isinstance(value, float) and math.isfinite(value):
        number = f"{Decimal(repr(value)):f}"
        return number if "." in number else f"{number}.0"
    return str(value)


@dataclass(frozen=True)
class Template:
    """Text with `{variables}`; doubled braces are literal braces.

    Args:
        text: The template, such as `python train.py --lr {learning_rate}`.

    Raises:
        ValueError: The text contains an unknown variable, or its braces do not match.
    """

    text: str

    def __post_init__(self) -> None:
        for name in self.variables:
            if name not in VARIABLES:
                raise ValueError(_unknown(name, self.text))

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of the variables, in the order of the text."""
        return tuple(name for _, name in self._parts() if name is not None)

    def rendered(self, values: Mapping[str, object], *, for_shell: bool) -> str:
        """Returns the text with the variables replaced by their values.

        In a shell command:

        - Values are quoted, except `resume`, which is shell text already.
        - A variable that differs between nodes and has no value is replaced by a reference to its environment
          variable, such as `"$PACELINE_NODE_RANK"`.

        Args:
            values: Maps each variable to its value. A variable without a value is replaced by the empty
                string.
            for_shell: Whether the result is a shell command.
        """
        fragments = []
        for literal, name in self._parts():
            fragments.append(literal)
            if name is None:
                continue
            value = written(values.get(name, ""))
            if not for_shell or name == "resume":
                fragments.append(value)
            elif name in NODE_VARIABLES and name not in values:
                fragments.append(f'"${NODE_VARIABLES[name]}"')
            else:
                fragments.append(shlex.quote(value))
        return "".join(fragments)

    def _parts(self) -> list[tuple[str, str | None]]:
        """Returns pairs of literal text and the variable after this text; None after the last text."""
        try:
            parts = list(string.Formatter().parse(self.text))
        except ValueError as error:
            raise ValueError(f"{str(error).lower()}: write {{{{ and }}}} for literal braces") from None
        for _, name, form, conversion in parts:
            if form or conversion:
                raise ValueError(f"{{{name}:{form}}} has a format; write {{{name}}} alone")
        return [(literal, name) for literal, name, _, _ in parts]


def _unknown(name: str, text: str) -> str:
    hint = did_you_mean(name, VARIABLES, "{{{}}}")
    if f"${{{name}}}" in text:
        hint += f" For a variable of the shell, write ${{{{{name}}}}}."
    return f"{{{name}}} is not a variable{hint} Known variables are {', '.join(VARIABLES)}"
