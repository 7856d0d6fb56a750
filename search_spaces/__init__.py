"""Search spaces: configurations, allowed values of each axis, feasibility conditions, strategies."""

from search_spaces.choices import Choice, CountRange, FloatRange, OneOf
from search_spaces.configuration import AxisValue, Configuration
from search_spaces.feasibility import BatchCoversRanks, BatchSplitsEvenly, Feasibility, RanksWithin
from search_spaces.listed_space import ListedSpace
from search_spaces.space import ProductSpace, SearchSpace
from search_spaces.strategy_traits import (
    KNOBS,
    STRATEGIES,
    Knob,
    StrategyTraits,
    declare_recorded_strategy,
    traits_of,
    unknown_strategy,
    with_knobs,
)

__all__ = [
    "KNOBS",
    "STRATEGIES",
    "AxisValue",
    "BatchCoversRanks",
    "BatchSplitsEvenly",
    "Choice",
    "Configuration",
    "CountRange",
    "Feasibility",
    "FloatRange",
    "Knob",
    "ListedSpace",
    "OneOf",
    "ProductSpace",
    "RanksWithin",
    "SearchSpace",
    "StrategyTraits",
    "declare_recorded_strategy",
    "traits_of",
    "unknown_strategy",
    "with_knobs",
]
