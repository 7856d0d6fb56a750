"""The sections of a job file, checked by pydantic, and what follows from them."""

from __future__ import annotations

import hashlib
import json
import os
import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PositiveFloat,
    PositiveInt,
    Tag,
    model_validator,
)

from search_spaces import (
    BatchCoversRanks,
    Choice,
    Configuration,
    FloatRange,
    OneOf,
    SearchSpace,
    traits_of,
)
from tuner.cluster import Cluster
from tuner.workload import METRICS, OptimizerSettings, ScheduleSettings

_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(s|m|h|d)?\s*")
_SECONDS = {None: 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(value: Any) -> Any:
    """Seconds from a number or from words like `90s`, `10m`, `1h30m`; other values pass through.

    Raises:
        ValueError: The words are not a duration.
    """
    if not isinstance(value, str):
        return value
    total, position = 0.0, 0
    while position < len(value):
        match = _DURATION.match(value, position)
        if match is None or match.end() == position:
            raise ValueError(f"{value!r} is not a duration; write 90s, 10m, 2h, 1h30m or seconds")
        total += float(match[1]) * _SECONDS[match[2]]
        position = match.end()
    return total


Duration = Annotated[float, BeforeValidator(parse_duration), Field(gt=0)]


def _ascending(values: tuple[int, ...]) -> tuple[int, ...]:
    if sorted(set(values)) != list(values):
        raise ValueError("must be ascending, without repetition")
    return values


def _distinct(values: tuple[float, ...]) -> tuple[float, ...]:
    if len(set(values)) != len(values):
        raise ValueError("must not repeat a value")
    return values


def _import_path(value: str) -> str:
    if not re.fullmatch(r"[\w.]+:\w+", value):
        raise ValueError("must be an import path like 'package.module:Class'")
    return value


class Section(BaseModel):
    """A table of the job file; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class WorkloadSection(Section):
    """`[workload]`: what is trained.

    The module is looked for beside the job file first, then among what is installed.
    """

    path: Annotated[
        str,
        AfterValidator(_import_path),
        Field(description="import path of the Workload, 'module:Class'"),
    ]
    parameters: dict[str, Any] = Field(default={}, description="keyword arguments of the Workload")
    optimizer: OptimizerSettings | None = Field(
        default=None, description="sgd (momentum, nesterov, weight_decay) or adamw"
    )
    schedule: ScheduleSettings | None = Field(
        default=None, description="constant, step or cosine; counted in samples"
    )


class ClusterSection(Section):
    """`[cluster]`: nodes that may be chosen and what they cost."""

    nodes: Annotated[tuple[PositiveInt, ...], Field(min_length=1), AfterValidator(_ascending)] = Field(
        default=(1,), description="numbers of nodes that may be chosen, ascending, such as [1, 2, 4]"
    )
    devices_per_node: PositiveInt = Field(default=1, description="devices, and so ranks, of one node")
    dollars_per_node_hour: Annotated[float, Field(ge=0)] = Field(
        default=0.0, description="price of one node for an hour; 0 where time alone counts"
    )
    launcher: Literal["local"] = Field(
        default="local", description="how ranks start; local: nodes are processes of this machine"
    )
    threads_per_rank: PositiveInt = Field(default=1, description="CPU threads of one rank")


class GoalSection(Section):
    """`[goal]`: what must be reached, and what is made small."""

    metric: str = Field(
        default="accuracy", description="what the workload's score returns, such as accuracy or loss"
    )
    target: float = Field(description="the value of the metric that counts as reached")
    direction: Literal["maximize", "minimize"] | None = Field(
        default=None, description="follows from the metric where it is a known one"
    )
    minimize: Literal["seconds", "dollars"] = Field(
        default="seconds", description="what is made small on the way to the target"
    )
    trainings: PositiveInt = Field(
        default=1,
        description="how many trainings the answer serves; 1: the search ends by training",
    )
    deadline: Duration | None = Field(
        default=None, description="longest time to target a recommendation may take"
    )
    max_dollars: PositiveFloat | None = Field(
        default=None, description="highest price to target a recommendation may have"
    )

    @model_validator(mode="after")
    def _target_is_possible(self) -> GoalSection:
        known = METRICS.get(self.metric)
        if known is None:
            if self.direction is None:
                raise ValueError(
                    f"goal.metric = {self.metric!r} is not a known one ({', '.join(METRICS)}): "
                    "set goal.direction to 'maximize' or 'minimize'"
                )
            return self
        if self.direction is not None and self.direction != known.direction:
            raise ValueError(
                f"goal.direction = {self.direction!r}: {self.metric} is a metric to {known.direction}; "
                "leave goal.direction out"
            )
        if not known.lower <= self.target <= known.upper:
            raise ValueError(
                f"goal.target = {self.target:g} is not a value {self.metric} can have; "
                f"allowed is {known.lower:g} to {known.upper:g}"
            )
        return self

    @property
    def maximize(self) -> bool:
        """Whether larger values of the metric are better."""
        direction = self.direction or METRICS[self.metric].direction
        return direction == "maximize"


class IntegerRange(Section):
    """Powers of two times `low`, up to `high`."""

    low: PositiveInt = Field(description="smallest value")
    high: PositiveInt = Field(description="largest value")

    @model_validator(mode="after")
    def _ordered(self) -> IntegerRange:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        return self

    def levels(self) -> list[int]:
        """The values that may be chosen."""
        levels = [self.low]
        while levels[-1] * 2 <= self.high:
            levels.append(levels[-1] * 2)
        return levels


class RateRange(Section):
    """A range on a logarithmic scale."""

    low: PositiveFloat = Field(description="smallest rate, above 0")
    high: PositiveFloat = Field(description="largest rate")
    levels_per_decade: PositiveInt = Field(
        default=6, description="how many rates are weighed between one power of ten and the next"
    )

    @model_validator(mode="after")
    def _ordered(self) -> RateRange:
        if self.low > self.high:
            raise ValueError(f"low {self.low:g} is above high {self.high:g}")
        return self


BatchSizes = Annotated[tuple[PositiveInt, ...], Field(min_length=1), AfterValidator(_ascending)]
Rates = Annotated[tuple[PositiveFloat, ...], Field(min_length=1), AfterValidator(_distinct)]


def _range_or_list(value: Any) -> str:
    return "range" if isinstance(value, dict | BaseModel) else "list"


def _known_strategies(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        try:
            traits_of(name)
        except KeyError as error:
            raise ValueError(str(error.args[0])) from None
    if len(set(names)) != len(names):
        raise ValueError("must not repeat a strategy")
    return names


def _known_strategy(name: str) -> str:
    return _known_strategies((name,))[0]


class SpaceSection(Section):
    """`[space]`: what may be chosen besides nodes."""

    batch_size: Annotated[
        Annotated[IntegerRange, Tag("range")] | Annotated[BatchSizes, Tag("list")],
        Discriminator(_range_or_list),
    ] = Field(description="global batch sizes: an ascending list, or {low, high} for powers of two times low")
    learning_rate: Annotated[
        Annotated[RateRange, Tag("range")] | Annotated[Rates, Tag("list")],
        Discriminator(_range_or_list),
    ] = Field(description="peak learning rates: {low, high}, or a list")
    strategy: Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_known_strategies)] = Field(
        default=("all_reduce",), description="ways of keeping the ranks in step, a list of names"
    )

    def axes(self) -> dict[str, Choice]:
        """Every axis but nodes."""
        batches = self.batch_size
        rates = self.learning_rate
        return {
            "batch_size": OneOf(batches.levels() if isinstance(batches, IntegerRange) else list(batches)),
            "learning_rate": FloatRange(
                low=rates.low, high=rates.high, levels_per_decade=rates.levels_per_decade
            )
            if isinstance(rates, RateRange)
            else OneOf(list(rates)),
            "strategy": OneOf(list(self.strategy)),
        }


class BaselineSection(Section):
    """`[baseline]`: the user's present settings; probed first, never silently worsened."""

    nodes: PositiveInt = Field(default=1, description="nodes you train on now")
    batch_size: PositiveInt = Field(description="global batch size you train with now")
    learning_rate: PositiveFloat = Field(description="peak learning rate you train with now")
    strategy: Annotated[str, AfterValidator(_known_strategy)] = Field(
        default="all_reduce", description="how the ranks are kept in step now"
    )

    def configuration(self) -> Configuration:
        """The settings as a configuration."""
        return Configuration(self.model_dump())


class ProbeSection(Section):
    """`[probe]`: how configurations are looked at."""

    kind: Literal["training"] = Field(default="training", description="training: ranks run the workload")
    timing_steps: Annotated[int, Field(ge=10)] = Field(
        default=30, description="steps of a timing probe, the first few of which warm up"
    )
    slice_seconds: Duration | None = Field(
        default=None,
        description="training seconds of one slice; follows from predictions if absent",
    )
    first_score_samples: PositiveInt | None = Field(
        default=None, description="samples at the first scoring; a sixteenth of an epoch if absent"
    )
    score_growth: Annotated[float, Field(gt=1, le=2)] = Field(
        default=1.15, description="how much further each scoring lies than the one before"
    )
    max_batch_size_per_rank: PositiveInt | None = Field(
        default=None, description="more than this a rank is accumulated over micro-batches"
    )
    hang_timeout: Duration = Field(default=60.0, description="a rank not heard of for so long ends the probe")


class BudgetSection(Section):
    """`[budget]`: what the search may spend; whichever runs out first."""

    time: Duration | None = Field(default=None, description="time the search may take, such as '10m'")
    dollars: PositiveFloat | None = Field(default=None, description="what all probes together may cost")
    probes: PositiveInt | None = Field(default=None, description="how many probes may be started")


class Job(Section):
    """A whole job file."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = Field(
        default="job",
        description="names the study and the output folder; the file's stem if absent",
    )
    seed: Annotated[int, Field(ge=0)] = Field(
        default=0, description="of initial weights, data order and the search's own draws"
    )
    workload: WorkloadSection = Field(description="what is trained")
    cluster: ClusterSection = Field(default=ClusterSection(), description="nodes and what they cost")
    goal: GoalSection = Field(description="what must be reached, and what is made small")
    space: SpaceSection = Field(description="what may be chosen besides nodes")
    baseline: BaselineSection | None = Field(
        default=None, description="your present settings; probed first, never silently worsened"
    )
    probe: ProbeSection = Field(default=ProbeSection(), description="how configurations are looked at")
    budget: BudgetSection = Field(
        default=BudgetSection(), description="what the search may spend; whichever runs out first"
    )

    @model_validator(mode="after")
    def _sections_agree(self) -> Job:
        if self.goal.minimize == "dollars" and self.cluster.dollars_per_node_hour == 0:
            raise ValueError("goal.minimize = 'dollars' needs cluster.dollars_per_node_hour above 0")
        for key, limit in (
            ("goal.max_dollars", self.goal.max_dollars),
            ("budget.dollars", self.budget.dollars),
        ):
            if limit is not None and self.cluster.dollars_per_node_hour == 0:
                raise ValueError(f"{key} needs cluster.dollars_per_node_hour above 0")
        return self

    def resolved_cluster(self) -> Cluster:
        """The cluster as the models see it; with the local launcher all nodes share this host."""
        section = self.cluster
        return Cluster(
            node_counts=section.nodes,
            devices_per_node=section.devices_per_node,
            dollars_per_node_hour=section.dollars_per_node_hour,
            launcher=section.launcher,
            threads_per_rank=section.threads_per_rank,
            cores_per_host=len(os.sched_getaffinity(0)),
            nodes_share_host=section.launcher == "local",
        )

    def search_space(self) -> SearchSpace:
        """The configurations that may be tried."""
        return SearchSpace(
            axes={"nodes": OneOf(list(self.cluster.nodes)), **self.space.axes()},
            conditions=(BatchCoversRanks(devices_per_node=self.cluster.devices_per_node),),
        )

    def baseline_configuration(self) -> Configuration | None:
        """The user's present settings, or None where the job states none."""
        return None if self.baseline is None else self.baseline.configuration()

    def fingerprint(self, workload_code: str, hardware: str) -> str:
        """Names what curves and step times depend on, so that they can be used again.

        Budget, target, space and baseline do not enter: curves measured under one hold under another.

        Args:
            workload_code: Digest of the workload's source.
            hardware: What the ranks run on.
        """
        parts = {
            "workload": self.workload.model_dump(mode="json"),
            "code": workload_code,
            "hardware": hardware,
            "metric": self.goal.metric,
            "devices_per_node": self.cluster.devices_per_node,
            "threads_per_rank": self.cluster.threads_per_rank,
            "launcher": self.cluster.launcher,
            "seed": self.seed,
        }
        text = json.dumps(parts, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
