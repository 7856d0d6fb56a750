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
from tuner.domain.section import (
    BatchSize,
    Count,
    DeviceCount,
    Duration,
    DurationOrZero,
    NodeCount,
    Section,
)
from tuner.domain.workload import METRICS, OptimizerSettings, ScheduleSettings
from tuner.job.values import Bandwidth, ImportPath, NodeCounts, StrategyName, configuration_with_knobs
from tuner.launchers.registry import LAUNCHERS, LauncherSection, launcher_entry


class WorkloadSection(Section):
    """`[workload]` of a job that trains a Workload class.

    Python searches for the module of the class in the folder of the job file, then in the installed packages.
    """

    path: ImportPath = Field(description="import path of the Workload, 'module:Class'")
    parameters: dict[str, Any] = Field(default={}, description="keyword arguments of the Workload")
    optimizer: OptimizerSettings | None = Field(
        default=None,
        description="optimizer of the Workload: sgd, with `momentum`, `nesterov` and `weight_decay`, "
        "or adamw",
    )
    schedule: ScheduleSettings | None = Field(
        default=None,
        description="learning-rate schedule: constant, step or cosine, as a function of samples processed",
    )


class DelaySection(Section):
    """`[[cluster.emulate.delay]]`: a delay added to every step of some ranks."""

    ranks: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] | None = Field(
        default=None, description="ranks to delay, numbered from 0; all ranks if absent"
    )
    low: Annotated[float, Field(ge=0)] = Field(default=0.0, description="shortest delay of a step, seconds")
    high: PositiveFloat = Field(
        description="longest delay of a step, seconds; each delay is random, uniform from low to high"
    )

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
    """`[cluster.emulate]`: delays steps on purpose, to show how training runs on a slower cluster."""

    delay: Annotated[
        Annotated[DelaySection, Tag("table")] | Annotated[tuple[DelaySection, ...], Tag("list")],
        Discriminator(_table_or_list),
    ] = Field(
        default=(),
        description="delays after the backward pass of a step: a table {ranks, low, high}, or a list of "
        "tables",
    )

    @property
    def delays(self) -> tuple[DelaySection, ...]:
        """The delays as a tuple, also if the job file states a single delay."""
        return (self.delay,) if isinstance(self.delay, DelaySection) else self.delay


class MachineSection(Section):
    """`[cluster.machine]`: speed of emulated nodes and of the network links between emulated nodes.

    One process of this host trains all ranks of emulated nodes under a virtual clock, which advances by the
    times that this section defines.
    """

    fixed_seconds: DurationOrZero = Field(
        description="the part of a rank's step time that does not depend on its number of samples"
    )
    seconds_per_sample: Duration = Field(description="time that each sample adds to the step of its rank")
    jitter: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.05, description="standard deviation of a rank's step times, divided by their mean"
    )
    persistent: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.5,
        description="share of the variance of step times that is constant for a rank, as on a slow node",
    )
    latency: DurationOrZero = Field(
        description="time of an empty message from one rank to another, such as '50us'; for an all-reduce, "
        "the time per hop"
    )
    bandwidth: Bandwidth = Field(description="bandwidth of every link, such as '10Gbit/s'")
    message_latency: DurationOrZero | None = Field(
        default=None,
        description="latency of messages between two ranks (gossip, parameter server); equal to `latency` "
        "if absent",
    )
    message_bandwidth: Bandwidth | None = Field(
        default=None,
        description="bandwidth of messages between two ranks (gossip, parameter server); equal to "
        "`bandwidth` if absent",
    )
    overlap: Annotated[float, Field(ge=1, le=10)] = Field(
        default=1.5, description="overlap of an all-reduce with compute, from 1 (none) to 10 (almost full)"
    )
    time_between_failures: Duration | None = Field(
        default=None,
        description="mean compute time until an emulated rank fails; if it is not set, ranks never fail",
    )
    restart: DurationOrZero = Field(
        default=0.0, description="time that a rank loses at each failure, such as '2m'"
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

    nodes: NodeCounts = Field(
        default=(1,), description="numbers of nodes to choose from, ascending, such as [1, 2, 4]"
    )
    devices_per_node: DeviceCount = Field(
        default=1, description="number of devices of one node; each device runs one rank"
    )
    dollars_per_node_hour: Annotated[float, Field(ge=0)] = Field(
        default=0.0, description="price of one node for an hour, in dollars; 0 if only time counts"
    )
    launcher: LauncherName = Field(
        default="local",
        description="how ranks are started, depending on the kind of nodes; "
        + "; ".join(f"{name}: {launcher_entry(name).nodes_are}" for name in LAUNCHERS),
    )
    python: str | None = Field(
        default=None,
        description="Python interpreter on the nodes (3.8 or newer, no packages needed); if ranks train a "
        "Workload, Paceline must be installed there; if absent, the interpreter that runs Paceline",
    )
    image: Annotated[str, Field(pattern=r"^[A-Za-z0-9_./][A-Za-z0-9_./:@#+~-]*$", max_length=500)] | None = (
        Field(
            default=None,
            description="container image in which workload.command runs; {python} in it is python3",
        )
    )
    container: Literal["docker", "podman", "apptainer", "pyxis"] | None = Field(
        default=None,
        description="program that runs the image; if absent, apptainer with the launcher slurm, and with the "
        "launcher local what is installed: docker, podman or apptainer",
    )
    threads_per_rank: DeviceCount = Field(
        default=1,
        description="CPU threads of one rank; the threads of a command are limited only if this key is "
        "stated",
    )
    machine: MachineSection | None = Field(
        default=None,
        description="speed of emulated nodes and links, for probe.kind = 'emulated' or 'auto'",
    )
    nodes_at_hand: NodeCount | None = Field(
        default=None,
        description="with probe.kind = 'auto': number of real nodes; configurations with more nodes are "
        "emulated",
    )
    capacity: NodeCount | None = Field(
        default=None,
        description="number of nodes that all concurrent probes may use together; if absent, the value of "
        "`nodes_at_hand`, or the number of nodes of the largest configuration",
    )
    emulate: EmulateSection = Field(
        default=EmulateSection(), description="artificial delays, to show the effect of slow nodes"
    )

    @property
    def launcher_section(self) -> LauncherSection | None:
        """The section `[cluster.LAUNCHER]` of the job's launcher; None if the launcher has no section."""
        section: LauncherSection | None = getattr(self, self.launcher, None)
        return section

    @property
    def nodes_share_host(self) -> bool:
        """Whether all nodes are processes of this host."""
        return launcher_entry(self.launcher).nodes_share_host

    @property
    def states_threads(self) -> bool:
        """Whether the job file sets `threads_per_rank`. Only then are the threads of a command limited."""
        return "threads_per_rank" in self.model_fields_set

    @model_validator(mode="after")
    def _container_fits(self) -> ClusterSection:
        if self.container is not None and self.image is None:
            raise ValueError("container is stated, but no image: state image, or remove container")
        if self.container == "pyxis" and self.launcher != "slurm":
            raise ValueError(
                f"container = 'pyxis' needs launcher = 'slurm', which is {self.launcher!r}: change one"
            )
        return self

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
                f"nodes go up to {self.nodes[-1]}, but [cluster.{self.launcher}] has {max_nodes} nodes. "
                "Remove the larger numbers from nodes"
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
    """`[goal]`: the target, and whether to minimize seconds or dollars to target."""

    metric: str = Field(
        default="accuracy", description="the metric that the workload reports, such as accuracy or loss"
    )
    target: float = Field(description="the value of the metric that training has to reach")
    direction: Literal["maximize", "minimize"] | None = Field(
        default=None,
        description="whether to maximize or minimize the metric; not needed for a metric that Paceline "
        "knows, such as accuracy",
    )
    minimize: Literal["seconds", "dollars"] = Field(
        default="seconds", description="quantity to minimize: seconds to target or dollars to target"
    )
    trainings: Count = Field(
        default=1,
        description="number of trainings that will use the recommendation; if it is 1, the search itself "
        "makes this training, up to the target",
    )
    deadline: Duration | None = Field(
        default=None,
        description="longest training time to the target that a recommended configuration may have",
    )
    max_dollars: PositiveFloat | None = Field(
        default=None,
        description="highest cost of a training to the target that a recommended configuration may have, in "
        "dollars",
    )
    consecutive_scores: Count = Field(
        default=1,
        description="number of consecutive scores past the target that are needed to reach it; the time to "
        "target is that of the first of these scores",
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
            is_percent = known.upper == 1.0 < self.target <= 100.0
            percent = f"; write {self.target:g}% as {self.target / 100:g}" if is_percent else ""
            raise ValueError(
                f"goal.target = {self.target:g} is not a value {self.metric} can have; "
                f"allowed is {known.lower:g} to {known.upper:g}{percent}"
            )
        return self

    @property
    def maximize(self) -> bool:
        """Whether larger values of the metric are better."""
        direction = self.direction or METRICS[self.metric].direction
        return direction == "maximize"

    @property
    def sign(self) -> float:
        """1.0 if larger values of the metric are better, else -1.0."""
        return 1.0 if self.maximize else -1.0

    def target_count(self) -> TargetCount:
        """Returns a new object that decides, score by score, whether a training has reached the target."""
        return TargetCount(self.target, maximize=self.maximize, consecutive=self.consecutive_scores)

    def crossing(self, curve: Sequence[CurvePoint]) -> tuple[float, float] | None:
        """Returns samples and training seconds at which a curve reaches the target; None if it does not.

        Args:
            curve: Evaluations in order of samples processed, without the evaluation of the untrained model.
        """
        return crossing(curve, self.target, maximize=self.maximize, consecutive=self.consecutive_scores)


class BaselineSection(Section):
    """`[baseline]`: your present settings; probed first, and compared with the recommendation."""

    nodes: NodeCount = Field(default=1, description="number of nodes that you train on now")
    batch_size: BatchSize = Field(description="global batch size that you train with now")
    learning_rate: PositiveFloat = Field(description="peak learning rate that you train with now")
    strategy: StrategyName = Field(
        default="all_reduce", description="name of the strategy that you train with now"
    )
    tau: Count | None = Field(
        default=None, description="present number of steps between two exchanges of parameters"
    )
    beta: PositiveFloat | None = Field(
        default=None, description="elastic averaging: moving rate times number of ranks"
    )
    outer_learning_rate: PositiveFloat | None = Field(
        default=None, description="diloco: learning rate of the outer steps"
    )
    outer_momentum: PositiveFloat | None = Field(
        default=None, description="diloco: momentum of the outer steps"
    )

    @model_validator(mode="after")
    def _knobs_are_of_the_strategy(self) -> BaselineSection:
        self.configuration()
        return self

    def configuration(self) -> Configuration:
        """Returns the present settings as a configuration; missing strategy parameters have their default."""
        stated = self.model_dump()
        knobs = {name: stated.pop(name) for name in KNOBS}
        return configuration_with_knobs(Configuration(stated), **knobs)


class ProbeSection(Section):
    """`[probe]`: how configurations are probed."""

    kind: Literal["training", "command", "emulated", "auto", "recorded"] = Field(
        default="training",
        description="training: ranks train the Workload; command: the command runs (the default if "
        "workload.command is stated); emulated: one process trains all ranks of "
        "[cluster.machine] under a virtual clock; auto: real ranks on up to cluster.nodes_at_hand nodes, "
        "emulated ranks on more nodes; recorded: a recording is replayed",
    )
    recording: str | None = Field(
        default=None,
        description="with probe.kind = 'recorded': path of the recording, relative to the job file; the "
        "recording states workload, cluster and space",
    )
    timing_steps: Annotated[int, Field(ge=10, le=1_000_000)] = Field(
        default=30,
        description="number of steps of a timing probe, which only measures step times; includes the slow "
        "first steps",
    )
    slice_seconds: Duration | None = Field(
        default=None,
        description="training seconds of one slice (part of a probe); if absent, the search chooses it from "
        "its predictions",
    )
    first_score_samples: PositiveInt | None = Field(
        default=None,
        description="number of samples processed before the first evaluation; if absent, 1/32 of an epoch, "
        "but at least 1024",
    )
    score_growth: Annotated[float, Field(gt=1, le=2)] = Field(
        default=1.15,
        description="smallest ratio of the numbers of samples processed at two successive evaluations",
    )
    max_scoring: PositiveFloat = Field(
        default=0.25,
        description="longest time of an evaluation, as a share of the training time between two evaluations; "
        "evaluations that would exceed it are skipped",
    )
    max_batch_size_per_rank: BatchSize | None = Field(
        default=None,
        description="largest number of samples that a rank processes at once; a rank with a larger part of "
        "the batch splits this part into micro-batches and accumulates gradients",
    )
    hang_timeout: Duration | None = Field(
        default=None,
        description="a probe ends if a rank or a command reports nothing for this long; if absent, 60 s, or "
        "10 min for a command, since a script may report only once per epoch",
    )

    @property
    def hang_seconds(self) -> float:
        """A probe ends after this number of seconds without a report: `hang_timeout`, or its default."""
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
    """`[budget]`: limits of the search, which ends at the first limit that it reaches."""

    time: Duration | None = Field(
        default=None, description="longest wall-clock time of the search, such as '10m'"
    )
    dollars: PositiveFloat | None = Field(
        default=None, description="highest cost of all probes together, in dollars"
    )
    node_hours: PositiveFloat | None = Field(
        default=None,
        description="maximum node hours of all probes together: number of nodes times hours in use",
    )
    probes: Count | None = Field(default=None, description="maximum number of probes to start")
