"""Peers of Syne Tune 0.13: DyHPO, MOBSTER and ASHA, one trial at a time on the recorded prober."""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from syne_tune.backend.trial_status import Trial
from syne_tune.config_space import choice, logordinal, ordinal
from syne_tune.optimizer.baselines import ASHA, MOBSTER, DyHPO
from syne_tune.optimizer.scheduler import SchedulerDecision

from benchmarks.peers import center, first_unit, rung_costs
from benchmarks.replay_optuna import Found
from benchmarks.replay_problem import Problem
from benchmarks.replay_trace import Trace
from search_spaces import Configuration
from tuner.domain.measurement import CurvePoint, Purpose, crossing
from tuner.probes import Until

_METRIC, _RUNG, _LAST_RUNG = "value", "rung", "last_rung"
#: One rung costs so many times the one before: DyHPO decides at each rung, the others promote one of three.
GROWTH = {"dyhpo": 1.5, "mobster": 3.0, "asha": 3.0}
#: So many decisions in a row that cost nothing end a search.
_IDLE_DECISIONS = 200

logging.getLogger("syne_tune").setLevel(logging.ERROR)


class SyneTuneReplay:
    """One search with a scheduler of Syne Tune.

    A rung is an equal cost for all configurations (`peers.rung_costs`), and its number is the scheduler's
    resource. A first rung lasts until the run's first score at least. What is reported is the best score less
    the target, in the metric's direction; a run without one reports the worst that was seen. A run ends where
    it arrives, at the deadline, or where its cost passes that of the best run that arrived.

    Args:
        problem: What is searched.
        name: `dyhpo`, `mobster` or `asha`.
        seed: Of the scheduler.
        growth: One rung costs so many times the one before.
    """

    def __init__(self, problem: Problem, name: str, seed: int, growth: float | None = None) -> None:
        self._problem = problem
        self._target, self._sign = problem.job.goal.target, 1.0 if problem.job.goal.maximize else -1.0
        self._prober = problem.prober()
        self._costs = rung_costs(problem, first_unit(problem), growth or GROWTH[name])
        self._axes = _varied_axes(list(problem.costs))
        self._by_values = {self._values(c): c for c in problem.costs}
        self._scheduler = self._made(name, seed)
        self._trials: dict[int, Trial] = {}
        self._rung_of: dict[int, int] = {}
        self._curves: dict[int, list[CurvePoint]] = {}
        self._worst = math.inf

    def run(self, limit: float) -> Trace:
        """See `Peer`."""
        found = Found()
        found.note()
        idle = 0
        while found.spent < limit * self._problem.best:
            started = time.perf_counter()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                suggestion = self._scheduler.suggest(len(self._trials))
            if suggestion is None:
                break
            number = self._number(suggestion)
            seconds = time.perf_counter() - started
            before, resumed = found.spent, not suggestion.spawn_new_trial_id
            self._train(number, suggestion.config, found)
            found.note(seconds)
            is_over = found.arrived_at is not None and self._problem.trainings == 1
            # A first score may come later than the next rung, which then costs nothing.
            idle = idle + 1 if resumed and found.spent == before else 0
            if is_over or idle > _IDLE_DECISIONS:
                break
        return Trace(moments=tuple(found.moments), arrived_at=found.arrived_at)

    def _number(self, suggestion: Any) -> int:
        """The trial that a suggestion starts or resumes."""
        if not suggestion.spawn_new_trial_id:
            return int(suggestion.checkpoint_trial_id)
        number = len(self._trials)
        trial = Trial(trial_id=number, config=suggestion.config, creation_time=datetime.now())
        self._trials[number], self._rung_of[number], self._curves[number] = trial, 0, []
        self._scheduler.on_trial_add(trial)
        return number

    def _train(self, number: int, config: Mapping[str, Any] | None, found: Found) -> None:
        """Trains a trial rung by rung until the scheduler pauses it or it ends."""
        trial = self._trials[number]
        configuration = self._by_values[tuple(trial.config[axis] for axis in self._axes)]
        del config  # A resumed trial's is that of its start, but for the rung where it pauses.
        price, curve = self._problem.price(configuration), self._curves[number]
        first_score = self._first_score(configuration)
        while True:
            rung = self._rung_of[number] = self._rung_of[number] + 1
            last = min(found.cost / price, self._problem.deadline or math.inf)
            wanted = max(self._costs[rung - 1] / price, first_score)
            until = Until(training_seconds=min(wanted, last))
            handle = self._prober.start(configuration, Purpose.TRAINING, until, Path(str(number)))
            measurement = self._prober.poll(handle)
            found.spent += self._problem.charged(measurement)
            curve.extend(point for point in measurement.curve if point.samples > 0)
            result = {_METRIC: self._value(curve), _RUNG: rung}
            crossed = crossing(curve, self._target, maximize=self._sign > 0)
            if crossed is not None:
                found.arrived(configuration, crossed[1], price, self._problem.deadline)
            is_last = rung == len(self._costs) or wanted >= last
            if crossed is not None or is_last or not measurement.outcome.can_continue:
                self._scheduler.on_trial_complete(trial, result)
                return
            if self._scheduler.on_trial_result(trial, result) != SchedulerDecision.CONTINUE:
                return

    def _value(self, curve: list[CurvePoint]) -> float:
        values = [self._sign * (point.value - self._target) for point in curve]
        finite = [value for value in values if math.isfinite(value)]
        self._worst = min([self._worst, *finite])
        return max(finite, default=self._worst if math.isfinite(self._worst) else -1.0)

    def _first_score(self, configuration: Configuration) -> float:
        """Training seconds until the first score of a run, or until its end."""
        curve = self._problem.recording.run(configuration).curve
        trained = curve[curve[:, 1] > 0]
        return float(trained[0, 0]) if len(trained) else 0.0

    def _values(self, configuration: Configuration) -> tuple[Any, ...]:
        return tuple(configuration[axis] for axis in self._axes)

    def _made(self, name: str, seed: int) -> Any:
        """The scheduler, which chooses among the recorded configurations and starts with their center."""
        listed = [{axis: c[axis] for axis in self._axes} for c in self._problem.costs]
        first = center(list(self._problem.costs))
        num_rungs = len(self._costs)
        space = {axis: _domain([row[axis] for row in listed]) for axis in self._axes}
        options: dict[str, Any] = {"debug_log": False, "restrict_configurations": listed}
        common: dict[str, Any] = {
            "metric": _METRIC,
            "mode": "max",
            "resource_attr": _RUNG,
            "max_resource_attr": _LAST_RUNG,
            "random_seed": seed,
            "points_to_evaluate": [{axis: first[axis] for axis in self._axes}],
            "search_options": options,
        }
        space[_LAST_RUNG] = num_rungs
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if name == "dyhpo":
                return _draws_from_what_is_left(DyHPO(space, rung_increment=1, grace_period=1, **common))
            halving = {"type": "promotion", "rung_levels": list(range(1, num_rungs)), **common}
            return MOBSTER(space, **halving) if name == "mobster" else ASHA(space, **halving)


def _draws_from_what_is_left(scheduler: Any) -> Any:
    """DyHPO whose list of new configurations may be exhausted, which Syne Tune does not foresee."""
    searcher = scheduler.searcher._searcher_int
    new_configurations = searcher._extended_configs_new

    def drawn(*arguments: Any) -> list[dict[str, Any]]:
        try:
            return list(new_configurations(*arguments))
        except ValueError as error:
            if "not enough values to unpack" not in str(error):
                raise
            return []

    searcher._extended_configs_new = drawn
    return scheduler


def peer(problem: Problem, name: str, seed: int) -> SyneTuneReplay:
    """`dyhpo`, `mobster` or `asha`.

    Args:
        problem: What is searched.
        name: One of these.
        seed: Of the scheduler.
    """
    return SyneTuneReplay(problem, name, seed)


def _varied_axes(configurations: list[Configuration]) -> list[str]:
    """Axes with more than one value.

    Raises:
        ValueError: Not all configurations have the same axes.
    """
    axes = sorted(configurations[0])
    if any(sorted(c) != axes for c in configurations):
        raise ValueError("the configurations differ in their axes, which Syne Tune's spaces cannot")
    return [axis for axis in axes if len({c[axis] for c in configurations}) > 1]


def _domain(values: list[Any]) -> Any:
    """Numbers are ordered, on a logarithmic scale where positive; everything else is a choice."""
    if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        return choice(sorted(set(values)))
    distinct = [v.item() if isinstance(v, np.generic) else v for v in sorted(set(values))]
    return logordinal(distinct) if min(distinct) > 0 else ordinal(distinct, kind="nn")
