"""Runs that peers train from rung to rung of equal cost, and what they report there."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers import first_unit, rung_costs
from benchmarks.replay_optuna import Found
from benchmarks.replay_problem import Problem
from search_spaces import Configuration
from tuner.domain.measurement import CurvePoint, Purpose, crossing
from tuner.probes import Until


@dataclass(frozen=True, kw_only=True)
class Reported:
    """What a run reports at a rung.

    Args:
        value: Its best score less the target, in the metric's direction. A run without a score reports the
            worst that any run has shown.
        has_ended: Whether it trains no further: it arrived, or it can no longer win, or its recording ends.
    """

    value: float
    has_ended: bool


class RungRuns:
    """Runs of one search, each known by a number.

    A rung is an equal cost for all configurations (`peers.rung_costs`). A first rung lasts until the run's
    first score at least. A run ends where it arrives, at the deadline, or where its cost passes that of the
    best run that arrived.

    Args:
        problem: What is searched.
        growth: One rung costs so many times the one before.
    """

    def __init__(self, problem: Problem, growth: float) -> None:
        self._problem = problem
        self._target, self._sign = problem.job.goal.target, 1.0 if problem.job.goal.maximize else -1.0
        self._prober = problem.prober()
        self._costs = rung_costs(problem, first_unit(problem), growth)
        self._curves: dict[int, list[CurvePoint]] = {}
        self._ended: set[int] = set()
        self._worst = math.inf

    @property
    def num_rungs(self) -> int:
        """How many rungs there are."""
        return len(self._costs)

    def train(self, number: int, configuration: Configuration, rung: int, found: Found) -> Reported:
        """Trains a run up to a rung.

        Args:
            number: Of the run; a new one is started.
            configuration: Of the run.
            rung: From 1.
            found: What the search came to, which is charged.
        """
        curve = self._curves.setdefault(number, [])
        if number in self._ended:
            return Reported(value=self._value(curve), has_ended=True)
        price = self._problem.price(configuration)
        last = min(found.cost / price, self._problem.deadline or math.inf)
        wanted = max(self._costs[rung - 1] / price, self._first_score(configuration))
        until = Until(training_seconds=min(wanted, last))
        handle = self._prober.start(configuration, Purpose.TRAINING, until, Path(str(number)))
        measurement = self._prober.poll(handle)
        found.spent += self._problem.charged(measurement)
        curve.extend(point for point in measurement.curve if point.samples > 0)
        crossed = crossing(curve, self._target, maximize=self._sign > 0)
        if crossed is not None:
            found.arrived(configuration, crossed[1], price, self._problem.deadline)
        if crossed is not None or wanted >= last or not measurement.outcome.can_continue:
            self._ended.add(number)
        return Reported(value=self._value(curve), has_ended=number in self._ended)

    def _value(self, curve: list[CurvePoint]) -> float:
        values = [self._sign * (point.value - self._target) for point in curve]
        finite = [value for value in values if math.isfinite(value)]
        self._worst = min([self._worst, *finite])
        return max(finite, default=self._worst if math.isfinite(self._worst) else -1.0)

    def _first_score(self, configuration: Configuration) -> float:
        """Training seconds until the first score of a run; 0 where there is none."""
        curve = self._problem.recording.run(configuration).curve
        trained = curve[curve[:, 1] > 0]
        return float(trained[0, 0]) if len(trained) else 0.0


def varied_axes(configurations: list[Configuration]) -> list[str]:
    """Axes with more than one value.

    Raises:
        ValueError: Not all configurations have the same axes.
    """
    axes = sorted(configurations[0])
    if any(sorted(c) != axes for c in configurations):
        raise ValueError("the configurations differ in their axes, which the spaces of peers cannot")
    return [axis for axis in axes if len({c[axis] for c in configurations}) > 1]
