"""How the replicas of a model are kept in step: one contract, one file a family of update rules."""

from tuner.strategies.all_reduce import AllReduce
from tuner.strategies.moments import Moment, moment, seconds_between
from tuner.strategies.registry import REGISTRY, strategy
from tuner.strategies.strategy import Exchange, Share, Strategy

__all__ = [
    "REGISTRY",
    "AllReduce",
    "Exchange",
    "Moment",
    "Share",
    "Strategy",
    "moment",
    "seconds_between",
    "strategy",
]
