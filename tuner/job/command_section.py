"""The section `[workload]` of a job that runs the user's command, as a pydantic model."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveInt, field_validator, model_validator
from pydantic_core import PydanticKnownError

from tuner.domain.section import Duration, Section
from tuner.domain.workload import OptimizerSettings
from tuner.job.command_template import NODE_VARIABLES, Template

#: Maps each allowed value of `workload.metrics.source` to the import path of its `MetricSource` class.
METRIC_SOURCES = {
    "json": "tuner.probes.commands.json_source:JsonSource",
    "csv": "tuner.probes.commands.csv_source:CsvSource",
    "tensorboard": "tuner.probes.commands.event_files:EventFileSource",
    "output": "tuner.probes.commands.output_source:OutputSource",
    # New metric sources go here.
}
#: Names of the groups in `workload.metrics.pattern` that match the training progress, such as the step.
_POSITIONS = ("step", "samples", "epoch")


def _template(text: str) -> str:
    Template(text)
    return text


def _template_for_all_nodes(text: str) -> str:
    for name in Template(text).variables:
        if name in NODE_VARIABLES:
            raise ValueError(
                f"{{{name}}} differs between nodes: use it in workload.command, or read "
                f"${NODE_VARIABLES[name]} there"
            )
    return text


def _registered(name: str) -> str:
    if name not in METRIC_SOURCES:
        *others, last = map(repr, METRIC_SOURCES)
        raise PydanticKnownError("literal_error", {"expected": f"{', '.join(others)} or {last}"})
    return name


def _variable_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text):
        raise ValueError("is not a valid name of an environment variable")
    return text


TemplateText = Annotated[str, Field(min_length=1), AfterValidator(_template)]
PlainTemplateText = Annotated[str, AfterValidator(_template_for_all_nodes)]
VariableName = Annotated[str, AfterValidator(_variable_name)]


class MetricsSection(Section):
    """`[workload.metrics]`: where and how the script reports its progress."""

    source: Annotated[str, AfterValidator(_registered)] = Field(
        default="json",
        json_schema_extra={"enum": list(METRIC_SOURCES)},
        description="json: a file with lines of JSON; csv: a file with a header; tensorboard: event files; "
        "output: the printed lines of the script",
    )
    path: PlainTemplateText | tuple[PlainTemplateText, ...] | None = Field(
        default=None,
        description="path of the file, or for tensorboard of the folder, relative to workload.folder; may "
        "contain variables such as {output_folder}; csv: also a pattern, such as "
        "{checkpoint}/version_*/metrics.csv, or a list of files; json: $PACELINE_METRICS if absent",
    )
    value: str = Field(
        default="value", description="name of the metric: key (json), column (csv) or tag (tensorboard)"
    )
    step: str = Field(default="step", description="key or column with the number of optimizer steps done")
    samples: str = Field(
        default="samples",
        description="key, column or tag with the number of samples processed; if absent, steps times batch "
        "size",
    )
    epoch: str = Field(
        default="epoch",
        description="key or column of the epoch; used if steps and samples are absent, or if steps start at "
        "0 in each epoch",
    )
    first_epoch: Literal[0, 1] | None = Field(
        default=None,
        description="number that the script gives its first epoch; found from its first reports if absent",
    )
    seconds: str = Field(
        default="seconds",
        description="key, column or tag of the script's training clock: seconds since the start, seconds "
        "since the last report, minutes, or a date (found by comparison with the wall clock); if absent, "
        "Paceline measures the time",
    )
    pattern: str | tuple[str, ...] | None = Field(
        default=None,
        description="output: a regular expression with the group value and one of the groups step, samples, "
        "epoch: 'epoch (?P<epoch>\\d+) accuracy=(?P<value>\\S+)'; or a list, if the groups are on different "
        "lines",
    )
    rank: NonNegativeInt = Field(
        default=0,
        description="output: number of the rank whose output is read; number of the node if each node has "
        "one process",
    )

    @field_validator("pattern")
    @classmethod
    def _pattern_has_groups(cls, pattern: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        try:
            groups = _groups(_as_tuple(pattern))
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"is not a regular expression: {error}") from error
        if pattern is not None and not ("value" in groups and groups & set(_POSITIONS)):
            raise ValueError(
                "needs the groups (?P<value>...) and one of (?P<step>...), (?P<samples>...), (?P<epoch>...)"
            )
        if unknown := groups - {"value", "seconds", *_POSITIONS}:
            raise ValueError(
                f"has the unknown group {min(unknown)!r}; allowed are value, seconds, {', '.join(_POSITIONS)}"
            )
        return pattern

    @model_validator(mode="after")
    def _source_fits(self) -> MetricsSection:
        source = f"source = {self.source!r}"
        if self.source == "output" and self.pattern is None:
            raise ValueError(f"workload.metrics.pattern is missing: {source} needs it")
        if self.source != "output" and self.pattern is not None:
            raise ValueError(
                f"workload.metrics.pattern needs source = 'output'; change {source}, or remove pattern"
            )
        if self.source not in ("json", "output") and self.path is None:
            raise ValueError(f"workload.metrics.path is missing: {source} needs it")
        if self.source == "output" and self.path is not None:
            raise ValueError(f"workload.metrics.path: {source} reads the printed lines; remove path")
        if self.source != "csv" and isinstance(self.path, tuple):
            raise ValueError(f"workload.metrics.path is a list, which {source} cannot read")
        return self

    @property
    def patterns(self) -> tuple[str, ...]:
        """The regular expressions of `pattern`; empty if `source` is not `output`."""
        return _as_tuple(self.pattern)

    @property
    def paths(self) -> tuple[str, ...]:
        """The files or folders of `path`, as written in the job file."""
        return _as_tuple(self.path)


def _as_tuple(stated: str | tuple[str, ...] | None) -> tuple[str, ...]:
    if stated is None:
        return ()
    return (stated,) if isinstance(stated, str) else stated


def _groups(patterns: tuple[str, ...]) -> set[str]:
    """Returns the names of all groups in the regular expressions."""
    return {group for pattern in patterns for group in re.compile(pattern).groupindex}


class CommandSection(Section):
    """`[workload]` with `command`: the user's training script, run as a command in the user's environment."""

    command: TemplateText = Field(
        description="command line with {variables}, which a shell runs; write {{ and }} for literal braces"
    )
    one_per: Literal["node", "rank", "job"] = Field(
        default="node",
        description="number of processes that Paceline starts: node: one per node, as torchrun expects; "
        "rank: one per device, with RANK, WORLD_SIZE etc. set; job: one, which starts all others",
    )
    folder: str = Field(
        default=".", description="working folder of the command, relative to the folder of the job file"
    )
    environment: dict[VariableName, PlainTemplateText] = Field(
        default={}, description="additional environment variables; values may contain {variables}"
    )
    publish_environment: bool = Field(
        default=False,
        description="whether reports, launch files and the study database may contain the values of "
        "`environment`; by default they contain only the names of these variables",
    )
    resume: PlainTemplateText | None = Field(
        default=None,
        description="option of the script to resume a run, such as '--resume {checkpoint}'; replaces "
        "{resume}, or is appended to the command; if absent, the script cannot resume",
    )
    epoch_samples: PositiveInt | None = Field(
        default=None,
        description="number of samples in the training set; needed if the script reports its progress only "
        "in epochs",
    )
    parameter_bytes: PositiveInt | None = Field(
        default=None,
        description="size of the model's parameters in bytes, to predict the time of an exchange of "
        "gradients",
    )
    grace: Duration = Field(
        default=30.0,
        description="time that the script has to save a checkpoint after SIGTERM, before SIGKILL ends it",
    )
    optimizer: OptimizerSettings | None = Field(
        default=None, description="optimizer of the script, to predict good learning rates: sgd or adamw"
    )
    metrics: MetricsSection = Field(
        default=MetricsSection(), description="where Paceline reads the scores of the script"
    )

    @model_validator(mode="after")
    def _epochs_have_a_size(self) -> CommandSection:
        groups = _groups(self.metrics.patterns)
        if groups and not groups & {"step", "samples"} and self.epoch_samples is None:
            raise ValueError(
                "workload.epoch_samples is missing: the pattern reports epochs, which needs the size of "
                "the training set"
            )
        return self

    @property
    def can_resume(self) -> bool:
        """Whether a run can resume from its checkpoint; if not, it starts from the beginning."""
        return self.resume is not None

    @property
    def private_variables(self) -> frozenset[str]:
        """Names of the variables in `environment` whose values must not be published.

        A value that is only a template variable, such as `{learning_rate}`, is no secret.
        """
        if self.publish_environment:
            return frozenset()
        return frozenset(n for n, text in self.environment.items() if not re.fullmatch(r"\{\w+\}", text))

    def templates(self) -> tuple[Template, ...]:
        """Returns the templates that pass values to the script: command line and environment variables."""
        return (Template(self.command), *(Template(text) for text in self.environment.values()))
