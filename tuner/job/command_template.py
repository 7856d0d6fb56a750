"""Command templates: text with `{variables}` that stand for the values of a configuration."""

from __future__ import annotations

import math
import shlex
import string
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from search_spaces import KNOBS
from tuner.domain.errors import did_you_mean

#: Variables of templates, in the order of the documentation; each is also an environment variable.
VARIABLES: dict[str, str] = {
    "nodes": "number of nodes",
    "devices_per_node": "devices, and so ranks, of one node",
    "num_ranks": "ranks of all nodes together",
    "batch_size": "global batch size: samples of one optimizer step over all ranks",
    "batch_size_per_rank": "samples of one optimizer step on one rank",
    "micro_batch_size": "samples a rank processes at once: batch_size_per_rank over accumulation",
    "accumulation": "number of micro-batches a rank accumulates; 1 unless probe.max_batch_size_per_rank "
    "asks for more",
    "learning_rate": "peak learning rate",
    "strategy": "how the ranks are kept in step",
    "tau": "steps between two exchanges; empty where the strategy has none",
    "beta": "elastic averaging: moving rate times ranks; empty elsewhere",
    "outer_learning_rate": "diloco: rate of the outer steps; empty elsewhere",
    "outer_momentum": "diloco: momentum of the outer steps; empty elsewhere",
    "seed": "the job's seed",
    "checkpoint": "path to save to and to resume from: a file or a folder, as the script needs",
    "resume": "the text of workload.resume if the run resumes; empty if it starts",
    "metrics": "path of the file for lines of JSON",
    "values": "path of a JSON file with all values by name",
    "output_folder": "a folder of this probe, for anything the script writes",
    "until_samples": "a hint: samples at which the slice ends; empty if another limit ends it",
    "until_steps": "a hint: steps at which the slice ends, or empty",
    "until_seconds": "a hint: training seconds at which the slice ends, or empty",
    "until_scores": "a hint: number of new scores after which the slice ends, or empty",
    "scored_samples": "samples up to which scores are known from earlier slices",
    "python": "cluster.python, else the interpreter that runs Paceline",
    "node_rank": "number of this node within the job, from 0",
    "main_address": "address of the first node",
    "main_port": "a free port of the first node",
}
#: Variables that only a node knows, and the environment variables from which the shell fills them in.
NODE_VARIABLES = {
    "node_rank": "PACELINE_NODE_RANK",
    "main_address": "PACELINE_MAIN_ADDRESS",
    "main_port": "PACELINE_MAIN_PORT",
}
#: Variables that pass the value of an axis to a script; any one of them is enough.
SUFFICIENT_VARIABLES: dict[str, tuple[str, ...]] = {
    "nodes": ("nodes", "num_ranks"),
    "batch_size": ("batch_size", "batch_size_per_rank", "micro_batch_size"),
    "learning_rate": ("learning_rate",),
    "strategy": ("strategy",),
    **{knob: (knob,) for knob in KNOBS},
}


def variable_name(variable: str) -> str:
    """Name of the environment variable that holds the value of a template variable."""
    return f"PACELINE_{variable.upper()}"


def written(value: object) -> str:
    """A value as text; numbers have no exponent, since YAML parsers read 3e-05 as text."""
    if isinstance(value, float) and math.isfinite(value):
        number = f"{Decimal(repr(value)):f}"
        return number if "." in number else f"{number}.0"
    return str(value)


@dataclass(frozen=True)
class Template:
    """Text with `{variables}`; doubled braces are literal braces.

    Args:
        text: The text.

    Raises:
        ValueError: It names an unknown variable, or its braces do not match.
    """

    text: str

    def __post_init__(self) -> None:
        for name in self.variables:
            if name not in VARIABLES:
                raise ValueError(_unknown(name, self.text))

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of the variables in the text, in order."""
        return tuple(name for _, name in self._parts() if name is not None)

    def rendered(self, values: Mapping[str, object], *, for_shell: bool) -> str:
        """The text with the variables replaced by their values.

        Args:
            values: Variable to value; a missing variable is replaced by nothing.
            for_shell: Whether the result is a shell command: values are quoted (except `resume`, which is
                shell text already), and unknown values of a node become references such as
                `"$PACELINE_NODE_RANK"`.
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
        """Pairs of literal text and the variable that follows it."""
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
