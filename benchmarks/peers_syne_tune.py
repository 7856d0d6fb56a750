"""Peers of Syne Tune 0.13: DyHPO, MOBSTER and ASHA, one trial at a time on the recorded prober."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
import warnings
from datetime import datetime
from typing import Any

import numpy as np

from benchmarks.peers import center
from benchmarks.peers_rungs import RungRuns, varied_axes
from benchmarks.replay_optuna import Found
from benchmarks.replay_problem import Problem
from benchmarks.replay_trace import Trace
from search_spaces import Configuration

# It prints what else could be installed, and stdout belongs to the figures.
with contextlib.redirect_stdout(sys.stderr):
    from syne_tune.backend.trial_status import Trial
    from syne_tune.config_space import choice, logordinal, ordinal
    from syne_tune.optimizer.baselines import ASHA, MOBSTER, DyHPO
    from syne_tune.optimizer.scheduler import SchedulerDecision

_METRIC, _RUNG, _LAST_RUNG = "value", "rung", "last_rung"
#: One rung costs so many times the one before. With 1.5 DyHPO took longer and was no better on
#: bank-cnn_epochs-slow for seconds, the only one tried (15.5 with 3, 23.4 with 1.5, one seed).
GROWTH = 3.0
#: After so many trials the surrogate's parameters are fitted at every fifth decision only.
_FITTED_TRIALS, _FITTED_EACH = 50, 5
#: So many decisions in a row that cost nothing end a search.
_IDLE_DECISIONS = 200

logging.getLogger("syne_tune").setLevel(logging.ERROR)


class SyneTuneReplay:
    """One search with a scheduler of Syne Tune.

    The number of a rung (`peers_rungs`) is the scheduler's resource.

    Args:
        problem: What is searched.
        name: `dyhpo`, `mobster` or `asha`.
        seed: Of the scheduler.
        growth: One rung costs so many times the one before.
    """

    def __init__(self, problem: Problem, name: str, seed: int, growth: float | None = None) -> None:
        self._problem = problem
        self._runs = RungRuns(problem, growth or GROWTH)
        self._axes = varied_axes(list(problem.costs))
        self._by_values = {self._values(c): c for c in problem.costs}
        self._scheduler = self._made(name, seed)
        self._trials: dict[int, Trial] = {}
        self._rung_of: dict[int, int] = {}

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
            self._train(number, found)
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
        self._trials[number], self._rung_of[number] = trial, 0
        self._scheduler.on_trial_add(trial)
        return number

    def _train(self, number: int, found: Found) -> None:
        """Trains a trial rung by rung until the scheduler pauses it or it ends."""
        trial = self._trials[number]
        configuration = self._by_values[tuple(trial.config[axis] for axis in self._axes)]
        while True:
            rung = self._rung_of[number] = self._rung_of[number] + 1
            reported = self._runs.train(number, configuration, rung, found)
            result = {_METRIC: reported.value, _RUNG: rung}
            if reported.has_ended or rung == self._runs.num_rungs:
                self._scheduler.on_trial_complete(trial, result)
                return
            if self._scheduler.on_trial_result(trial, result) != SchedulerDecision.CONTINUE:
                return

    def _values(self, configuration: Configuration) -> tuple[Any, ...]:
        return tuple(configuration[axis] for axis in self._axes)

    def _made(self, name: str, seed: int) -> Any:
        """The scheduler, which chooses among the recorded configurations and starts with their center."""
        listed = [{axis: c[axis] for axis in self._axes} for c in self._problem.costs]
        first = center(list(self._problem.costs))
        num_rungs = self._runs.num_rungs
        space = {axis: _domain([row[axis] for row in listed]) for axis in self._axes}
        options: dict[str, Any] = {"debug_log": False, "restrict_configurations": listed}
        if name != "asha":
            options |= {"opt_skip_init_length": _FITTED_TRIALS, "opt_skip_period": _FITTED_EACH}
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


def _domain(values: list[Any]) -> Any:
    """Numbers are ordered, on a logarithmic scale where positive; everything else is a choice."""
    if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        return choice(sorted(set(values)))
    distinct = [v.item() if isinstance(v, np.generic) else v for v in sorted(set(values))]
    return logordinal(distinct) if min(distinct) > 0 else ordinal(distinct, kind="nn")
