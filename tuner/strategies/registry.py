"""Strategies by name; their traits are in `search_spaces.STRATEGIES`, which needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from search_spaces import AxisValue, StrategyTraits, traits_of
from tuner.strategies.all_reduce import AllReduce
from tuner.strategies.asynchronous import Asynchronous
from tuner.strategies.elastic_averaging import ElasticAveraging
from tuner.strategies.gossip_pairs import GossipPairs
from tuner.strategies.gossip_pull import GossipPull
from tuner.strategies.gossip_push import GossipPush
from tuner.strategies.local_sgd import LocalSGD, Outer
from tuner.strategies.parameter_server import ParameterServer
from tuner.strategies.peer_rule import PeerRule
from tuner.strategies.strategy import Strategy

_RULES: dict[str, Callable[[dict[str, Any]], PeerRule]] = {
    "elastic_averaging": lambda knobs: ElasticAveraging(knobs["beta"]),
    "gossip_pull": lambda knobs: GossipPull(knobs["tau"]),
    "gossip_push": lambda knobs: GossipPush(knobs["tau"]),
    "gossip_pairs": lambda knobs: GossipPairs(knobs["tau"]),
    "parameter_server": lambda _: ParameterServer(),
}


def _all_reduce(_traits: StrategyTraits, _knobs: dict[str, Any]) -> Strategy:
    return AllReduce()


def _outer(knobs: dict[str, Any]) -> Outer:
    return Outer(learning_rate=knobs["outer_learning_rate"], momentum=knobs["outer_momentum"])


def _asynchronous(traits: StrategyTraits, knobs: dict[str, Any]) -> Strategy:
    return Asynchronous(traits, _RULES[traits.name](knobs), knobs["tau"])


REGISTRY: dict[str, Callable[[StrategyTraits, dict[str, Any]], Strategy]] = {
    "all_reduce": _all_reduce,
    "local_sgd": lambda traits, knobs: LocalSGD(traits, knobs["tau"]),
    "diloco": lambda traits, knobs: LocalSGD(traits, knobs["tau"], _outer(knobs)),
    **dict.fromkeys(_RULES, _asynchronous),
}


def strategy(name: str, knobs: Mapping[str, AxisValue] | None = None) -> Strategy:
    """A new strategy of this name.

    Args:
        name: A key of `search_spaces.STRATEGIES`.
        knobs: Its knobs; other axes are passed over, what is missing has its default.

    Raises:
        KeyError: No strategy has this name; the message lists those that exist and the nearest.
    """
    traits = traits_of(name)
    given = knobs or {}
    values = {knob: given.get(knob, known.default) for knob, known in traits.knobs.items()}
    return REGISTRY[name](traits, values)
