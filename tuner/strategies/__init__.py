"""Strategies, which synchronize the replicas of a model on all ranks: their interface and implementations."""

from tuner.strategies.averaging import AveragingRule
from tuner.strategies.moments import Moment, moment, seconds_between
from tuner.strategies.registry import strategy
from tuner.strategies.strategy import Exchange, Links, Share, Strategy
from tuner.strategies.timeouts import AdaptiveTimeout, deadline_seconds

__all__ = [
    "AdaptiveTimeout",
    "AveragingRule",
    "Exchange",
    "Links",
    "Moment",
    "Share",
    "Strategy",
    "deadline_seconds",
    "moment",
    "seconds_between",
    "strategy",
]
