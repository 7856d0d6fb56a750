"""Properties of strategies that are known without running them; needs no torch."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from search_spaces.choices import Choice, CountRange, FloatRange, OneOf
from search_spaces.configuration import AxisValue, Configuration


@dataclass(frozen=True, kw_only=True)
class Knob:
    """A further axis that only some strategies have.

    Args:
        default: Its value if nobody states one.
        levels: What the search considers if the job states nothing.
        allowed: All allowed values.
    """

    default: AxisValue
    levels: Choice
    allowed: Choice


@dataclass(frozen=True, kw_only=True)
class StrategyTraits:
    """How a strategy synchronizes the replicas, as far as models and search need to know.

    Args:
        name: The value of the `strategy` axis.
        title: The words a report uses.
        exchanged: What crosses the network: `gradients` or `parameters`.
        partners: With whom: `all` ranks, a `server`, or one `peer`.
        barrier: Whether all ranks wait for the slowest at an exchange.
        draws_itself: Whether a rank draws its peer among all, itself included, and then exchanges nothing.
        vectors: Parameter vectors that one exchange of a rank puts on the network: what it sends, what it
            fetches, and what a server answers.
        counted_batch: Which batch the statistics of training depend on: the `global` one or the `rank`'s.
        statistics_depend_on_nodes: Whether curves by samples change with the number of ranks at
            one global batch; where they do not, one curve prices every number of nodes.
        statistics_depend_on_machine: Whether they change with the type of machine.
        scored: Which parameters are scored: the `common` ones, the `center`, or the `average`.
        knobs: Further axes that are active with this strategy.
    """

    name: str
    title: str
    exchanged: Literal["gradients", "parameters"]
    partners: Literal["all", "server", "peer"]
    barrier: bool
    draws_itself: bool = False
    vectors: float = 1.0
    counted_batch: Literal["global", "rank"]
    statistics_depend_on_nodes: bool
    scored: Literal["common", "center", "average"]
    knobs: dict[str, Knob] = field(default_factory=dict)
    statistics_depend_on_machine: bool = False

    def statistics_of(self, configuration: Configuration) -> Configuration:
        """The axes on which samples to target depend; what remains only changes seconds a sample."""
        return _without(
            configuration, not self.statistics_depend_on_nodes, not self.statistics_depend_on_machine
        )

    @property
    def has_outer_step(self) -> bool:
        """Whether ranks take a further step on what they agree on, so that one rank is not plain SGD."""
        return "outer_learning_rate" in self.knobs

    def vectors_per_exchange(self, num_ranks: int) -> float:
        """Parameter vectors one rank moves in one exchange, on average over its draws; 0 for one alone."""
        if num_ranks == 1:
            return 0.0
        # A rank that draws itself, or holds the server, moves nothing.
        share = (num_ranks - 1) / num_ranks if self.draws_itself or self.partners == "server" else 1.0
        return self.vectors * share

    def tau_of(self, configuration: Configuration) -> int:
        """Steps between two exchanges: the knob `tau`, or 1 where every step exchanges."""
        knob = self.knobs.get("tau")
        return 1 if knob is None else int(configuration.get("tau", knob.default))


@lru_cache(maxsize=8192)
def _without(configuration: Configuration, nodes: bool, machine: bool) -> Configuration:
    return configuration.without(*(["nodes"] if nodes else []), *(["machine"] if machine else []))


_ANY_TAU = CountRange(low=1, high=10_000)


def _tau(default: int, *levels: int) -> Knob:
    return Knob(default=default, levels=OneOf(levels), allowed=_ANY_TAU)


_BETA = Knob(default=0.8, levels=OneOf([0.8]), allowed=FloatRange(low=1e-3, high=1.0))
_OUTER_RATE = Knob(default=0.7, levels=OneOf([0.7]), allowed=FloatRange(low=1e-3, high=2.0))
_OUTER_MOMENTUM = Knob(default=0.9, levels=OneOf([0.9]), allowed=FloatRange(low=1e-3, high=0.999))

STRATEGIES: dict[str, StrategyTraits] = {
    traits.name: traits
    for traits in (
        StrategyTraits(
            name="all_reduce",
            title="synchronous all-reduce",
            exchanged="gradients",
            partners="all",
            barrier=True,
            counted_batch="global",
            statistics_depend_on_nodes=False,
            scored="common",
        ),
        StrategyTraits(
            name="elastic_averaging",
            title="elastic averaging",
            exchanged="parameters",
            partners="server",
            barrier=False,
            vectors=2.0,
            counted_batch="global",
            statistics_depend_on_nodes=True,
            scored="center",
            knobs={"tau": _tau(10, 1, 10), "beta": _BETA},
        ),
        StrategyTraits(
            name="gossip_pull",
            title="gossip, pulled",
            exchanged="parameters",
            partners="peer",
            barrier=False,
            draws_itself=True,
            counted_batch="global",
            statistics_depend_on_nodes=True,
            scored="average",
            knobs={"tau": _tau(1, 1, 4)},
        ),
        StrategyTraits(
            name="gossip_push",
            title="gossip, pushed",
            exchanged="parameters",
            partners="peer",
            barrier=False,
            draws_itself=True,
            counted_batch="global",
            statistics_depend_on_nodes=True,
            scored="average",
            knobs={"tau": _tau(1, 1, 4)},
        ),
        StrategyTraits(
            name="gossip_pairs",
            title="gossip in pairs",
            exchanged="parameters",
            partners="peer",
            barrier=False,
            counted_batch="global",
            statistics_depend_on_nodes=True,
            scored="average",
            knobs={"tau": _tau(1, 1, 4)},
        ),
        StrategyTraits(
            name="parameter_server",
            title="parameter server",
            exchanged="parameters",
            partners="server",
            barrier=False,
            vectors=2.0,
            counted_batch="rank",
            statistics_depend_on_nodes=True,
            scored="center",
            knobs={"tau": _tau(1, 1, 4)},
        ),
        StrategyTraits(
            name="local_sgd",
            title="local SGD",
            exchanged="parameters",
            partners="all",
            barrier=True,
            counted_batch="global",
            statistics_depend_on_nodes=True,
            scored="average",
            knobs={"tau": _tau(8, 4, 16)},
        ),
        StrategyTraits(
            name="diloco",
            title="local SGD with an outer Nesterov step",
            exchanged="parameters",
            partners="all",
            barrier=True,
            counted_batch="global",
            statistics_depend_on_nodes=True,
            scored="average",
            knobs={
                "tau": _tau(16, 16),
                "outer_learning_rate": _OUTER_RATE,
                "outer_momentum": _OUTER_MOMENTUM,
            },
        ),
    )
}

#: Every knob of any strategy, in the order in which they are shown.
KNOBS: tuple[str, ...] = tuple(dict.fromkeys(knob for t in STRATEGIES.values() for knob in t.knobs))


#: Strategies that only recordings name; Paceline cannot train with them.
_RECORDED: dict[str, StrategyTraits] = {}


def traits_of(name: str) -> StrategyTraits:
    """The traits of a strategy: one that Paceline trains by, or one that a recording declared.

    Raises:
        KeyError: No strategy has this name; the message lists those that exist and the nearest.
    """
    traits = STRATEGIES.get(name) or _RECORDED.get(name)
    if traits is None:
        raise KeyError(unknown_strategy(name))
    return traits


def unknown_strategy(name: str) -> str:
    """That Paceline trains by no strategy of this name, which ones it knows, and the nearest."""
    near = difflib.get_close_matches(name, STRATEGIES, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown strategy {name!r}; known are {', '.join(sorted(STRATEGIES))}{hint}"


def declare_recorded_strategy(name: str) -> StrategyTraits:
    """Makes a strategy that a recording names known to `traits_of`; one known already stays as it is.

    Only its name is known. One with `async` in it is treated as an asynchronous parameter
    server; `sync`, `all_reduce` and every other as gradients averaged among all, with a barrier. Each
    configuration of a recording has a curve of its own, so that nothing is assumed for other nodes
    or machines.
    """
    if name in STRATEGIES or name in _RECORDED:
        return traits_of(name)
    is_async = "async" in name.lower()
    _RECORDED[name] = StrategyTraits(
        name=name,
        title=f"{name}, as recorded",
        exchanged="parameters" if is_async else "gradients",
        partners="server" if is_async else "all",
        barrier=not is_async,
        vectors=2.0 if is_async else 1.0,
        counted_batch="rank" if is_async else "global",
        statistics_depend_on_nodes=True,
        statistics_depend_on_machine=True,
        scored="center" if is_async else "common",
    )
    return _RECORDED[name]


def with_knobs(configuration: Configuration) -> Configuration:
    """The configuration with the default of every knob of its strategy that it does not state."""
    knobs = traits_of(configuration.strategy).knobs
    missing = {name: knob.default for name, knob in knobs.items() if name not in configuration}
    return configuration.replaced(**missing) if missing else configuration
