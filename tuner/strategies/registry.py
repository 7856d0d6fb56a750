"""Makes strategies by name, from the import paths in `search_spaces.STRATEGIES`."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from search_spaces import AxisValue, traits_of
from tuner.strategies.asynchronous import Asynchronous, PeerRule
from tuner.strategies.averaging import Averaging, AveragingRule
from tuner.strategies.strategy import Strategy


def strategy_rule(name: str, knobs: Mapping[str, AxisValue] | None = None) -> Any:
    """A new instance of the class that the traits of a strategy name as its `rule`.

    Args:
        name: A key of `search_spaces.STRATEGIES`.
        knobs: Values of its knobs; other axes are ignored, and missing knobs have their default.

    Raises:
        KeyError: No strategy has this name; the message lists the known ones and the nearest.
    """
    traits = traits_of(name)
    given = knobs or {}
    values = {knob: given.get(knob, known.default) for knob, known in traits.knobs.items()}
    module, _, attribute = traits.rule.partition(":")
    return getattr(importlib.import_module(module), attribute)(**values)


def strategy(name: str, knobs: Mapping[str, AxisValue] | None = None) -> Strategy:
    """A new strategy of this name; arguments and errors are those of `strategy_rule`."""
    rule = strategy_rule(name, knobs)
    if isinstance(rule, PeerRule):
        rule = Asynchronous(rule)
    elif isinstance(rule, AveragingRule):
        rule = Averaging(rule)
    assert isinstance(rule, Strategy), f"the rule of {name} is a {type(rule).__name__}"
    rule.traits = traits_of(name)
    return rule
