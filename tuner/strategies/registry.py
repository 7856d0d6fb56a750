"""Creates strategies by name, from the import paths in `search_spaces.STRATEGIES`."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from search_spaces import AxisValue, traits_of
from tuner.strategies.asynchronous import Asynchronous, PeerRule
from tuner.strategies.averaging import Averaging, AveragingRule
from tuner.strategies.strategy import Strategy


def strategy_rule(name: str, knobs: Mapping[str, AxisValue] | None = None) -> Any:
    """Returns a new instance of a strategy's rule, from the class at the import path `StrategyTraits.rule`.

    Args:
        name: Name of the strategy, a key of `search_spaces.STRATEGIES`.
        knobs: Maps each knob (parameter of the strategy, such as `tau`) to its value. Missing knobs have
            their default, and keys that are no knobs of this strategy are ignored.

    Raises:
        KeyError: No strategy has this name; the message lists all names and suggests the nearest one.
    """
    traits = traits_of(name)
    given = knobs or {}
    values = {knob: given.get(knob, known.default) for knob, known in traits.knobs.items()}
    module, _, attribute = traits.rule.partition(":")
    return getattr(importlib.import_module(module), attribute)(**values)


def strategy(name: str, knobs: Mapping[str, AxisValue] | None = None) -> Strategy:
    """Returns a new strategy by its name; arguments and errors are the same as those of `strategy_rule`."""
    rule = strategy_rule(name, knobs)
    if isinstance(rule, PeerRule):
        rule = Asynchronous(rule)
    elif isinstance(rule, AveragingRule):
        rule = Averaging(rule)
    assert isinstance(rule, Strategy), (
        f"the rule of strategy {name} is not a strategy but a {type(rule).__name__}"
    )
    rule.traits = traits_of(name)
    return rule
