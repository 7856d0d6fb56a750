"""Strategies by name; their traits stand in `search_spaces.STRATEGIES`, which needs no torch."""

from __future__ import annotations

from collections.abc import Callable

from search_spaces import traits_of
from tuner.strategies.all_reduce import AllReduce
from tuner.strategies.strategy import Strategy

REGISTRY: dict[str, Callable[[], Strategy]] = {"all_reduce": AllReduce}


def strategy(name: str) -> Strategy:
    """A new strategy of this name.

    Raises:
        KeyError: No strategy has this name; the message lists those that exist and the nearest.
    """
    return REGISTRY[traits_of(name).name]()
