"""The sections of a job file as pydantic models: workload, cluster, goal, baseline, probe, budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    Discriminator,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Tag,
    create_model,
    model_validator,
)

from search_spaces import KNOBS, Configuration
from tuner.domain.measurement import CurvePoint, TargetCount, crossing
from tuner.domain.section import Duration, DurationOrZero, Section
from tuner.domain.workload import METRICS, OptimizerSettings, ScheduleSettings
from tuner.job.values import AscendingCounts, Bandwidth, ImportPath, StrategyName, configuration_with_knobs
from tuner.launchers.registry import LAUNCHERS, LauncherSection, launcher_entry


class WorkloadSection(Section):
    """`[workload]` of a job that trains a Workload class.

    Python searches its module beside the job file first, then among the installed packages.
    """

    path: ImportPath = Field(description="import path of the Workload, 'module:Class'")
    parameters: dict[str, Any] = Field(default={}, description="keyword arguments of the Workload")
    optimizer: OptimizerSettings | None = Field(
        default=None, description="sgd (momentum, nesterov, weight_decay) or adamw"
    )
    schedule: ScheduleSettings | None = Field(
        default=None, description="constant, step or cosine; counted in samples"
    )


class DelaySection(Section):
    """`[[cluster.emulate.delay]]`: a delay added to every step of some ranks."""

    ranks: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] | None = Field(
        default=None, description="ranks to delay, from 0; all (jitter) if absent"
    )
    low: Annotated[float, Field(ge=0)] = Field(default=0.0, description="shortest delay of a step, seconds")
    high: PositiveFloat = Field(description="longest delay of a step, seconds; drawn uniformly in between")

    @model_validator(mode="after")
    def _ordered(self) -> DelaySection:
        if self.low > self.high:
            raise ValueError(f"low {self.low:g} is above high {self.high:g}")
        if self.ranks is not None and len(set(self.ranks)) != len(self.ranks):
            raise ValueError("ranks must not repeat a rank")
        return self


def _table_or_list(value: Any) -> str:
    return "table" if isinstance(value, dict | DelaySection) else "list"


class EmulateSection(Section):
    """`[cluster.emulate]`: simulates a worse cluster than the one at hand."""

    delay: Annotated[
        Annotated[DelaySection, Tag("table")] | Annotated[tuple[DelaySection, ...], Tag("list")],
        Discriminator(_table_or_list),
    ] = Field(
        default=(),
        description="delays added to steps, after their backward pass: a table {ranks, low, high}, or a list",
    )

    @property
    def delays(self) -> tuple[DelaySection, ...]:
        """The delays as a tuple."""
        return (self.delay,) if isinstance(self.delay, DelaySection) else self.delay


class MachineSection(Section):
    """`[cluster.machine]`: speed of emulated nodes and links."""

    fixed_seconds: DurationOrZero = Field(
        description="time of a step of one rank regardless of its samples: forward, backward and update"
    )
    seconds_per_sample: Duration = Field(description="time that each sample of the rank adds to a step")
    jitter: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.05, description="variation of a rank's steps: standard deviation over mean"
    )
    persistent: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.5,
        description="share of that variance that stays with a rank, such as a node that is always slow",
    )
    latency: DurationOrZero = Field(
        description="one-way time of an empty message, such as '50us'; for collectives, per hop"
    )
    bandwidth: Bandwidth = Field(description="bandwidth of every link, such as '10Gbit/s'")
    message_latency: DurationOrZero | None = Field(
        default=None, description="latency between two ranks (gossip, servers); the collectives' if absent"
    )
    message_bandwidth: Bandwidth | None = Field(
        default=None, description="bandwidth between two ranks (gossip, servers); the collectives' if absent"
    )
    overlap: Annotated[float, Field(ge=1, le=10)] = Field(
        default=1.5, description="overlap of an all-reduce with compute, from 1 (none) to 10 (almost full)"
    )
    time_between_failures: Duration | None = Field(
        default=None, description="mean compute time until a rank fails; never if absent"
    )
    restart: DurationOrZero = Field(
        default=0.0, description="time that a rank loses by a failure, such as '2m'"
    )

    @model_validator(mode="after")
    def _failures_cost(self) -> MachineSection:
        if (self.time_between_failures is None) != (self.restart == 0.0):
            raise ValueError("time_between_failures and restart need each other: state both or neither")
        return self


if TYPE_CHECKING:
    LauncherName = str
    _LauncherSections = Section
else:
    LauncherName = Literal[tuple(LAUNCHERS)]
    _LauncherSections = create_model(
        "_LauncherSections",
        __base__=Section,
        **{
            name: (
                entry.section | None if entry.required_keys else entry.section,
                Field(default=entry.default_section, description=f"{name}: {entry.section_holds}"),
            )
            for name in LAUNCHERS
            if (entry := launcher_entry(name)).section is not None
        },
    )


class ClusterSection(_LauncherSections):
    """`[cluster]`: numbers of nodes to choose from, and their price."""

    nodes: AscendingCounts = Field(
        default=(1,), description="numbers of nodes to choose from, ascending, such as [1, 2, 4]"
    )
    devices_per_node: PositiveInt = Field(default=1, description="devices of one node; each runs one rank")
    dollars_per_node_hour: Annotated[float, Field(ge=0)] = Field(
        default=0.0, description="price of one node for an hour; 0 if only time counts"
    )
    launcher: LauncherName = Field(
        default="local",
        description="how ranks start, by where nodes come from; "
        + "; ".join(f"{name}: {launcher_entry(name).nodes_are}" for name in LAUNCHERS),
    )
    python: str | None = Field(
        default=None,
        description="interpreter on the nodes that runs Paceline's node agent (3.8 or newer, no packages) "
        "and, if ranks train a Workload, Paceline itself; this interpreter if absent",
    )
    threads_per_rank: PositiveInt = Field(
        default=1, description="CPU threads of one rank; a command's are limited only if it is stated"
    )
    machine: MachineSection | None = Field(
        default=None,
        description="speed of emulated nodes and links; used with probe.kind = 'emulated' or 'auto'",
    )
    nodes_at_hand: PositiveInt | None = Field(
        default=None,
        description="auto: number of real nodes; configurations with more nodes are emulated",
    )
    capacity: PositiveInt | None = Field(
        default=None,
        description="nodes available at once, shared by concurrent probes; if absent, nodes_at_hand or the "
        "number of nodes of the largest configuration",
    )
    emulate: EmulateSection = Field(
        default=EmulateSection(), description="artificial delays, to show the effect of slow nodes"
    )

    @property
    def launcher_section(self) -> LauncherSection | None:
        """The keys of the launcher that runs the job; None if it has none."""
        section: LauncherSection | None = getattr(self, self.launcher, None)
        return section

    @property
    def nodes_share_host(self) -> bool:
        """Whether all nodes are processes of this host."""
        return launcher_entry(self.launcher).nodes_share_host

    @property
    def states_threads(self) -> bool:
        """Whether the job file states the threads of a rank, so that they limit a command."""
        return "threads_per_rank" in self.model_fields_set

    @model_validator(mode="after")
    def _launcher_fits(self) -> ClusterSection:
        required = launcher_entry(self.launcher).required_keys
        if required and self.launcher_section is None:
            keys = ", ".join(required)
            raise ValueError(f"launcher = {self.launcher!r} needs [cluster.{self.launcher}] with {keys}")
        for name in LAUNCHERS:
            if name != self.launcher and getattr(self, name, None) != launcher_entry(name).default_section:
                raise ValueError(
                    f"[cluster.{name}] is stated, but launcher = {self.launcher!r}: set launcher = {name!r}, "
                    f"or remove [cluster.{name}]"
                )
        max_nodes = None if self.launcher_section is None else self.launcher_section.max_nodes
        if max_nodes is not None and self.nodes[-1] > max_nodes:
            raise ValueError(
                f"nodes go up to {self.nodes[-1]}, but [cluster.{self.launcher}] has {max_nodes} nodes"
            )
        most = self.nodes[-1] * self.devices_per_node
        for rank in (rank for delay in self.emulate.delays for rank in delay.ranks or ()):
            if rank >= most:
                raise ValueError(
                    f"emulate.delay slows rank {rank}, but the largest number of nodes has ranks "
                    f"0 to {most - 1}"
                )
        return self


class GoalSection(Section):
    """`[goal]`: the target, and what to minimize until it is reached."""

    metric: str = Field(
        default="accuracy", description="the metric that the workload reports, such as accuracy or loss"
    )
    target: float = Field(description="the value of the metric that counts as reached")
    direction: Literal["maximize", "minimize"] | None = Field(
        default=None, description="by default, the direction of a known metric"
    )
    minimize: Literal["seconds", "dollars"] = Field(
        default="seconds", description="what to minimize until the target is reached"
    )
    trainings: PositiveInt = Field(
        default=1,
        description="number of trainings that will use the answer; 1: the search itself trains to the target",
    )
    deadline: Duration | None = Field(default=None, description="longest time to target of a recommendation")
    max_dollars: PositiveFloat | None = Field(
        default=None, description="highest price to target of a recommendation"
    )
    consecutive_scores: PositiveInt = Field(
        default=1,
        description="number of consecutive scores past the target that count as reached; the first of them "
        "is the time to target",
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
                "remove goal.direction"
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

    @property
    def sign(self) -> float:
        """1 if larger values of the metric are better, else -1."""
        return 1.0 if self.maximize else -1.0

    def target_count(self) -> TargetCount:
        """A new counter of consecutive scores past the target."""
        return TargetCount(self.target, maximize=self.maximize, consecutive=self.consecutive_scores)

    def crossing(self, curve: Sequence[CurvePoint]) -> tuple[float, float] | None:
        """Samples and training seconds at which a curve reaches the target; None if it does not.

        Args:
            curve: Evaluations in order of samples, without that of the untrained model.
        """
        return crossing(curve, self.target, maximize=self.maximize, consecutive=self.consecutive_scores)


class BaselineSection(Section):
    """`[baseline]`: your present settings; probed first, never silently worsened."""

    nodes: PositiveInt = Field(default=1, description="nodes you train on now")
    batch_size: PositiveInt = Field(description="global batch size you train with now")
    learning_rate: PositiveFloat = Field(description="peak learning rate you train with now")
    strategy: StrategyName = Field(default="all_reduce", description="strategy you train with now")
    tau: PositiveInt | None = Field(default=None, description="steps between exchanges now")
    beta: PositiveFloat | None = Field(default=None, description="elastic averaging: moving rate times ranks")
    outer_learning_rate: PositiveFloat | None = Field(default=None, description="diloco: rate of outer steps")
    outer_momentum: PositiveFloat | None = Field(default=None, description="diloco: momentum of outer steps")

    @model_validator(mode="after")
    def _knobs_are_of_the_strategy(self) -> BaselineSection:
        self.configuration()
        return self

    def configuration(self) -> Configuration:
        """The settings as a configuration, with all knobs of the strategy."""
        stated = self.model_dump()
        knobs = {name: stated.pop(name) for name in KNOBS}
        return configuration_with_knobs(Configuration(stated), **knobs)


class ProbeSection(Section):
    """`[probe]`: how configurations are probed."""

    kind: Literal["training", "command", "emulated", "auto", "recorded"] = Field(
        default="training",
        description="training: ranks run the workload; command: run your own script, which "
        "workload.command implies; emulated: one process trains for all ranks of a "
        "described cluster, under a virtual clock; auto: real ranks on up to cluster.nodes_at_hand nodes, "
        "emulated ones beyond; recorded: replay a recording",
    )
    recording: str | None = Field(
        default=None,
        description="recorded: the recording's file, relative to the job file; it states workload, cluster "
        "and space",
    )
    timing_steps: Annotated[int, Field(ge=10)] = Field(
        default=30, description="steps of a timing probe, including the first few, which warm up"
    )
    slice_seconds: Duration | None = Field(
        default=None,
        description="training seconds of one slice; follows from predictions if absent",
    )
    first_score_samples: PositiveInt | None = Field(
        default=None,
        description="samples at the first evaluation; if absent, 1/32 of an epoch, but at least 1024",
    )
    score_growth: Annotated[float, Field(gt=1, le=2)] = Field(
        default=1.15, description="smallest ratio of samples between one evaluation and the next"
    )
    max_scoring: PositiveFloat = Field(
        default=0.25,
        description="longest time of an evaluation, as a share of the training time until the next; "
        "evaluation points that come sooner are skipped",
    )
    max_batch_size_per_rank: PositiveInt | None = Field(
        default=None, description="a rank with more samples than this accumulates over micro-batches"
    )
    hang_timeout: Duration | None = Field(
        default=None,
        description="a probe ends if a rank or a command reports nothing for this long; if absent, 60 s, or "
        "10 min for a command, which may report once per epoch",
    )

    @property
    def hang_seconds(self) -> float:
        """`hang_timeout`, or its default."""
        if self.hang_timeout is not None:
            return self.hang_timeout
        return 600.0 if self.kind == "command" else 60.0

    @model_validator(mode="after")
    def _a_recording_is_replayed(self) -> ProbeSection:
        if self.kind == "recorded" and self.recording is None:
            raise ValueError("probe.recording is missing: name the file to replay, such as 'runs.jsonl.gz'")
        if self.kind != "recorded" and self.recording is not None:
            raise ValueError(
                "probe.recording is stated, but nothing is replayed: set probe.kind = 'recorded', or "
                "remove it"
            )
        return self


class BudgetSection(Section):
    """`[budget]`: what the search may spend; it ends at the first limit reached."""

    time: Duration | None = Field(default=None, description="time the search may take, such as '10m'")
    dollars: PositiveFloat | None = Field(default=None, description="dollars all probes may cost in total")
    node_hours: PositiveFloat | None = Field(
        default=None,
        description="node hours all probes may take in total: nodes times the hours they are in use",
    )
    probes: PositiveInt | None = Field(default=None, description="maximum number of probes to start")
