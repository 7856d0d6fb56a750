"""The `[workload]` of a job that runs the user's own command."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from tuner.domain.workload import OptimizerSettings
from tuner.job.command_template import NODE_VARIABLES, Template
from tuner.job.values import Duration, Section

#: Groups that a pattern's match may report besides the value.
_PLACES = ("step", "samples", "epoch")


def _template(text: str) -> str:
    Template(text)
    return text


def _known_before(text: str) -> str:
    for name in Template(text).variables:
        if name in NODE_VARIABLES:
            raise ValueError(
                f"{{{name}}} is known on a node only: use it in workload.command, or read "
                f"${NODE_VARIABLES[name]} there"
            )
    return text


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text):
        raise ValueError("is no name of an environment variable")
    return text


TemplateText = Annotated[str, Field(min_length=1), AfterValidator(_template)]
PlainTemplateText = Annotated[str, AfterValidator(_known_before)]
VariableName = Annotated[str, AfterValidator(_name)]


class MetricsSection(Section):
    """`[workload.metrics]`: how what the script reports is read."""

    source: Literal["json", "csv", "tensorboard", "output"] = Field(
        default="json",
        description="json: lines of JSON; csv: a file with a head; tensorboard: event files; output: what "
        "the script prints",
    )
    path: PlainTemplateText | tuple[PlainTemplateText, ...] | None = Field(
        default=None,
        description="file, or for tensorboard the folder, relative to workload.folder; may hold variables "
        "such as {output_folder}; csv: also a pattern, such as {checkpoint}/version_*/metrics.csv, or a list "
        "of files; json: $PACELINE_METRICS if absent",
    )
    value: str = Field(default="value", description="key, column or tag of the metric")
    step: str = Field(default="step", description="key or column of optimizer steps done")
    samples: str = Field(
        default="samples", description="key, column or tag of samples seen; steps times batch size if absent"
    )
    epoch: str = Field(
        default="epoch",
        description="key or column of the epoch; read where steps and samples are absent, and beside steps "
        "that count within each epoch",
    )
    first_epoch: Literal[0, 1] | None = Field(
        default=None,
        description="what the script calls its first epoch; found out from its first reports if absent",
    )
    seconds: str = Field(
        default="seconds",
        description="key, column or tag of the script's own training clock: seconds since the beginning or "
        "of each report, minutes, or a date; compared with the wall clock; measured if absent",
    )
    pattern: str | tuple[str, ...] | None = Field(
        default=None,
        description="output: a regular expression with the groups value and one of step, samples, epoch: "
        "'epoch (?P<epoch>\\d+) accuracy=(?P<value>\\S+)'; or a list, if they stand on different lines",
    )
    rank: NonNegativeInt = Field(
        default=0,
        description="output: the rank whose output counts, or the node if there is one process a node",
    )

    @field_validator("pattern")
    @classmethod
    def _pattern_suffices(cls, pattern: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        if pattern is None:
            return None
        groups: set[str] = set()
        for one in (pattern,) if isinstance(pattern, str) else pattern:
            try:
                groups |= set(re.compile(one).groupindex)
            except re.error as error:
                raise ValueError(f"is no regular expression: {error}") from error
        if "value" not in groups or not set(_PLACES) & groups:
            raise ValueError(
                "needs the groups (?P<value>...) and one of (?P<step>...), (?P<samples>...), (?P<epoch>...)"
            )
        unknown = groups - {"value", "seconds", *_PLACES}
        if unknown:
            raise ValueError(
                f"has the group {min(unknown)!r}; known are value, seconds, {', '.join(_PLACES)}"
            )
        return pattern

    @model_validator(mode="after")
    def _source_is_whole(self) -> MetricsSection:
        if self.source == "output" and self.pattern is None:
            raise ValueError("workload.metrics.pattern is missing: source = 'output' needs it")
        if self.source != "output" and self.pattern is not None:
            raise ValueError(
                "workload.metrics.pattern goes with source = 'output', which is "
                f"{self.source!r}: change it, or take pattern out"
            )
        if self.source in ("csv", "tensorboard") and self.path is None:
            raise ValueError(f"workload.metrics.path is missing: source = {self.source!r} needs it")
        if self.source == "output" and self.path is not None:
            raise ValueError("workload.metrics.path: what is printed is read from the log; take path out")
        if self.source != "csv" and isinstance(self.path, tuple):
            raise ValueError(f"workload.metrics.path is a list, which source = {self.source!r} cannot read")
        return self

    @property
    def patterns(self) -> tuple[str, ...]:
        """The regular expressions; none unless the output is read."""
        if self.pattern is None:
            return ()
        return (self.pattern,) if isinstance(self.pattern, str) else self.pattern

    @property
    def paths(self) -> tuple[str, ...]:
        """The files or folders as the job states them."""
        if self.path is None:
            return ()
        return (self.path,) if isinstance(self.path, str) else self.path


class CommandSection(Section):
    """`[workload]` with `command`: the user's own script, in the user's own environment."""

    command: TemplateText = Field(
        description="command line with {variables}, run by the shell; write {{ and }} for literal braces"
    )
    one_per: Literal["node", "rank", "job"] = Field(
        default="node",
        description="how many processes to start: node: one per node, as torchrun expects; rank: one per "
        "device, with RANK, WORLD_SIZE etc. set; job: one, which starts the rest itself",
    )
    folder: str = Field(default=".", description="working folder, relative to the job file")
    environment: dict[VariableName, PlainTemplateText] = Field(
        default={}, description="additional environment variables; values may contain {variables}"
    )
    resume: PlainTemplateText | None = Field(
        default=None,
        description="inserted at {resume}, or appended, when a run resumes, such as '--resume {checkpoint}'; "
        "if absent, the script cannot resume",
    )
    epoch_samples: PositiveInt | None = Field(
        default=None, description="size of the training set; needed if the script counts in epochs"
    )
    parameter_bytes: PositiveInt | None = Field(
        default=None, description="bytes of the model's parameters; used to predict the cost of an exchange"
    )
    grace: Duration = Field(
        default=30.0, description="time to save between the request to end (SIGTERM) and the kill"
    )
    optimizer: OptimizerSettings | None = Field(
        default=None, description="what the script uses, for the law of learning rates: sgd or adamw"
    )
    metrics: MetricsSection = Field(
        default=MetricsSection(), description="how Paceline reads what the script reports"
    )

    @model_validator(mode="after")
    def _epochs_have_a_size(self) -> CommandSection:
        patterns = self.metrics.patterns
        if not patterns or self.epoch_samples is not None:
            return self
        groups = {group for pattern in patterns for group in re.compile(pattern).groupindex}
        if not groups & {"step", "samples"}:
            raise ValueError(
                "workload.epoch_samples is missing: the pattern reports epochs, and samples follow from the "
                "size of the training set"
            )
        return self

    @property
    def can_resume(self) -> bool:
        """Whether a run resumes from its checkpoint; otherwise it starts over and pays again."""
        return self.resume is not None

    def templates(self) -> tuple[Template, ...]:
        """Every template that passes values to the script: command line and environment."""
        return (Template(self.command), *(Template(text) for text in self.environment.values()))
