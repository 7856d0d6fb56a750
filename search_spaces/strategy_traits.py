"""Traits of the training strategies: data on how each one synchronizes ranks; does not import torch."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal

from search_spaces.choices import Choice, CountRange, FloatRange, OneOf
from search_spaces.configuration import AxisValue, Configuration


@dataclass(frozen=True, kw_only=True)
class Knob:
    """A parameter that only some strategies have, such as `tau`; it is an axis of the search space.

    Args:
        default: Value of the axis if the job does not state one.
        levels: Values that the search considers if the job lists none.
        allowed: All values that a job may state.
    """

    default: AxisValue
    levels: Choice
    allowed: Choice


@dataclass(frozen=True, kw_only=True)
class StrategyTraits:
    """The properties of a strategy that the cost models and the search use.

    A strategy defines how ranks synchronize their model replicas. In an exchange, a rank sends gradients or
    parameters to other ranks, and receives theirs.

    Args:
        name: Value of the `strategy` axis.
        title: Name of the strategy in reports.
        rule: Import path `"package.module:Class"` of the class that trains: a `PeerRule`, an
            `AveragingRule` or a `Strategy`, with the knobs as arguments. Empty if Paceline cannot train with
            the strategy.
        step_time_law: Cost model of seconds per step, a key of
            `tuner.analytic.strategy_laws.STEP_TIME_LAWS`.
        samples_law: Cost model of samples to target, a key of `tuner.analytic.strategy_laws.SAMPLES_LAWS`;
            None if all ranks always have the same parameters.
        exchanged: Content of an exchange: `gradients` or `parameters`.
        partners: Partners of an exchange: `all` ranks, a rank and a `server`, or a rank and a `peer`.
        barrier: Whether all ranks wait for the slowest rank at an exchange.
        draws_itself: Whether a rank draws its peer at random among all ranks including itself. A rank that
            draws itself exchanges nothing in that step.
        vectors: Number of parameter vectors that one rank sends and receives in one exchange.
        counted_batch: Batch size that determines the gradient noise: the `global` one or that of one `rank`.
        statistics_depend_on_nodes: Whether the number of ranks changes the metric as a function of the
            number of samples processed, at a fixed global batch size. If false, one metric curve applies to
            all numbers of nodes.
        statistics_depend_on_machine: Whether the machine type changes the metric as a function of the number
            of samples processed.
        scored: Parameters that are evaluated: `common` (all ranks have the same), `center` (those of the
            server), or `average` (mean over ranks).
        knobs: Further axes that only this strategy has, by name.
    """

    name: str
    title: str
    rule: str = ""
    step_time_law: str
    samples_law: str | None
    exchanged: Literal["gradients", "parameters"] = "parameters"
    partners: Literal["all", "server", "peer"]
    barrier: bool = False
    draws_itself: bool = False
    vectors: float = 1.0
    counted_batch: Literal["global", "rank"] = "global"
    statistics_depend_on_nodes: bool = True
    scored: Literal["common", "center", "average"] = "average"
    knobs: dict[str, Knob] = field(default_factory=dict)
    statistics_depend_on_machine: bool = False

    def statistics_of(self, configuration: Configuration) -> Configuration:
        """Returns the configuration without the axes that do not change the number of samples to target."""
        return _without(
            configuration, not self.statistics_depend_on_nodes, not self.statistics_depend_on_machine
        )

    @property
    def has_outer_step(self) -> bool:
        """Whether an outer optimizer steps on the averaged parameters, even on one rank (DiLoCo)."""
        return "outer_learning_rate" in self.knobs

    def vectors_per_exchange(self, num_ranks: int) -> float:
        """Returns the expected number of parameter vectors that one rank sends and receives in one exchange.

        It is 0 for a single rank.
        """
        if num_ranks == 1:
            return 0.0
        # A rank that draws itself as its peer, or that hosts the server, sends nothing over the network.
        share = (num_ranks - 1) / num_ranks if self.draws_itself or self.partners == "server" else 1.0
        return self.vectors * share

    def tau_of(self, configuration: Configuration) -> int:
        """Returns the number of steps between two exchanges: the knob `tau`, or 1 without that knob."""
        knob = self.knobs.get("tau")
        return 1 if knob is None else int(configuration.get("tau", knob.default))


@lru_cache(maxsize=8192)
def _without(configuration: Configuration, nodes: bool, machine: bool) -> Configuration:
    return configuration.without(*(["nodes"] if nodes else []), *(["machine"] if machine else []))


def tau_knob(default: int, *levels: int) -> Knob:
    """Creates the strategy parameter `tau`, the number of steps between two exchanges of parameters.

    Args:
        default: Value of `tau` if the job does not state one.
        levels: Values that the search considers if the job lists none.
    """
    return Knob(default=default, levels=OneOf(levels), allowed=CountRange(low=1, high=10_000))


def _rate_knob(default: float, high: float) -> Knob:
    return Knob(default=default, levels=OneOf([default]), allowed=FloatRange(low=1e-3, high=high))


_STRATEGIES = (
    StrategyTraits(
        name="all_reduce",
        title="synchronous all-reduce",
        rule="tuner.strategies.all_reduce:AllReduce",
        step_time_law="all_reduce",
        samples_law=None,
        exchanged="gradients",
        partners="all",
        barrier=True,
        statistics_depend_on_nodes=False,
        scored="common",
    ),
    StrategyTraits(
        name="elastic_averaging",
        title="elastic averaging",
        rule="tuner.strategies.elastic_averaging:ElasticAveraging",
        step_time_law="server",
        samples_law="elastic_averaging",
        partners="server",
        vectors=2.0,
        scored="center",
        knobs={"tau": tau_knob(10, 1, 10), "beta": _rate_knob(0.8, 1.0)},
    ),
    StrategyTraits(
        name="gossip_pull",
        title="gossip, pulled",
        rule="tuner.strategies.gossip_pull:GossipPull",
        step_time_law="peer",
        samples_law="gossip_pull",
        partners="peer",
        draws_itself=True,
        knobs={"tau": tau_knob(1, 1, 4)},
    ),
    StrategyTraits(
        name="gossip_push",
        title="gossip, pushed",
        rule="tuner.strategies.gossip_push:GossipPush",
        step_time_law="peer",
        samples_law="gossip_push",
        partners="peer",
        draws_itself=True,
        knobs={"tau": tau_knob(1, 1, 4)},
    ),
    StrategyTraits(
        name="gossip_pairs",
        title="gossip in pairs",
        rule="tuner.strategies.gossip_pairs:GossipPairs",
        step_time_law="peer",
        samples_law="gossip_pairs",
        partners="peer",
        knobs={"tau": tau_knob(1, 1, 4)},
    ),
    StrategyTraits(
        name="parameter_server",
        title="parameter server",
        rule="tuner.strategies.parameter_server:ParameterServer",
        step_time_law="server",
        samples_law="parameter_server",
        partners="server",
        vectors=2.0,
        counted_batch="rank",
        scored="center",
        knobs={"tau": tau_knob(1, 1, 4)},
    ),
    StrategyTraits(
        name="local_sgd",
        title="local SGD",
        rule="tuner.strategies.averaging:AveragingRule",
        step_time_law="averaging",
        samples_law="averaging",
        partners="all",
        barrier=True,
        knobs={"tau": tau_knob(8, 4, 16)},
    ),
    StrategyTraits(
        name="diloco",
        title="local SGD with an outer Nesterov step",
        rule="tuner.strategies.diloco:DiLoCo",
        step_time_law="averaging",
        samples_law="averaging",
        partners="all",
        barrier=True,
        knobs={
            "tau": tau_knob(16, 16),
            "outer_learning_rate": _rate_knob(0.7, 2.0),
            "outer_momentum": _rate_knob(0.9, 0.999),
        },
    ),
    # New strategies go here.
)

#: Every strategy that Paceline can train with, by name.
STRATEGIES: dict[str, StrategyTraits] = {traits.name: traits for traits in _STRATEGIES}

#: Every knob of any strategy, in display order.
KNOBS: tuple[str, ...] = tuple(dict.fromkeys(knob for t in STRATEGIES.values() for knob in t.knobs))

#: Strategies that appear only in recordings; Paceline cannot train with them.
_RECORDED: dict[str, StrategyTraits] = {}


def traits_of(name: str) -> StrategyTraits:
    """Returns the traits of one of Paceline's strategies or of a recording's strategy.

    Raises:
        KeyError: No strategy has this name; the message lists the known names and the most similar one.
    """
    traits = STRATEGIES.get(name) or _RECORDED.get(name)
    if traits is None:
        raise KeyError(unknown_strategy(name))
    return traits


def unknown_strategy(name: str) -> str:
    """Returns the error message for an unknown strategy: the known names and the most similar one."""
    near = difflib.get_close_matches(name, STRATEGIES, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown strategy {name!r}; known are {', '.join(sorted(STRATEGIES))}{hint}"


def declare_recorded_strategy(name: str) -> StrategyTraits:
    """Registers a strategy that exists only in a recording, so that `traits_of` returns its traits.

    A recording states only the strategy's name, so the traits are assumed:

    - They are those of the asynchronous parameter server if the name contains `async`, otherwise those of
      synchronous all-reduce.
    - Metric curves may depend on the number of nodes and on the machine type, because a recording has a
      curve for every configuration.

    A strategy that is registered already is not changed.
    """
    if name in STRATEGIES or name in _RECORDED:
        return traits_of(name)
    nearest = STRATEGIES["parameter_server" if "async" in name.lower() else "all_reduce"]
    _RECORDED[name] = replace(
        nearest,
        name=name,
        title=f"{name}, as recorded",
        rule="",
        statistics_depend_on_nodes=True,
        statistics_depend_on_machine=True,
        knobs={},
    )
    return _RECORDED[name]


def with_knobs(configuration: Configuration) -> Configuration:
    """Returns a copy of the configuration with all knobs (parameters) of its strategy.

    Knobs that the configuration does not state have their default value.
    """
    knobs = traits_of(configuration.strategy).knobs
    missing = {name: knob.default for name, knob in knobs.items() if name not in configuration}
    return configuration.replaced(**missing) if missing else configuration
