"""Strategies: how the replicas of a model are kept in step; one contract, one file per family of rules."""

from tuner.strategies.all_reduce import AllReduce
from tuner.strategies.moments import Moment, moment, seconds_between
from tuner.strategies.registry import REGISTRY, strategy
from tuner.strategies.strategy import Exchange, Links, Share, Strategy
from tuner.strategies.timeouts import AdaptiveTimeout, deadline_seconds, median_and_deviation

__all__ = [
    "REGISTRY",
    "AdaptiveTimeout",
    "AllReduce",
    "Exchange",
    "Links",
    "Moment",
    "Share",
    "Strategy",
    "deadline_seconds",
    "median_and_deviation",
    "moment",
    "seconds_between",
    "strategy",
]
