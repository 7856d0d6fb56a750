"""What may be chosen: configurations, kinds of choice, feasibility, strategy traits."""

from search_spaces.choices import Choice, FloatRange, OneOf
from search_spaces.configuration import AxisValue, Configuration
from search_spaces.feasibility import BatchCoversRanks, Feasibility, RanksWithin
from search_spaces.space import SearchSpace
from search_spaces.strategy_traits import STRATEGIES, StrategyTraits, traits_of

__all__ = [
    "STRATEGIES",
    "AxisValue",
    "BatchCoversRanks",
    "Choice",
    "Configuration",
    "Feasibility",
    "FloatRange",
    "OneOf",
    "RanksWithin",
    "SearchSpace",
    "StrategyTraits",
    "traits_of",
]
