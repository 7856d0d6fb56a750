"""Peer: Hyperband of SMAC3 2.4 with its random forest, one trial at a time on the recorded prober."""

from __future__ import annotations

import logging
import math
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

from ConfigSpace import CategoricalHyperparameter, ConfigurationSpace, OrdinalHyperparameter
from ConfigSpace import Configuration as SpacePoint
from smac import MultiFidelityFacade, Scenario
from smac.main.exceptions import ConfigurationSpaceExhaustedException
from smac.runhistory.dataclasses import TrialValue

from benchmarks.peers import center
from benchmarks.peers_rungs import RungRuns, varied_axes
from benchmarks.replay_optuna import Found
from benchmarks.replay_problem import Problem
from benchmarks.replay_trace import Trace
from search_spaces import Configuration

#: One of so many trials is promoted, and a rung costs so many times the one before.
ETA = 3
#: Random configurations of the initial design, besides the center of the space.
_NUM_FIRST = 5
#: Trials that SMAC may propose, more than any search pays for; ends of what costs nothing.
_MOST_TRIALS, _IDLE_TRIALS = 5000, 200


class SmacReplay:
    """One search.

    The budget is the cost of a rung (`peers_rungs`) in that of the first. A proposal that was not recorded is
    trained as the nearest recorded configuration. SMAC minimizes the target less the best score, in the
    metric's direction.

    Args:
        problem: What is searched.
        seed: Of the search.
    """

    def __init__(self, problem: Problem, seed: int) -> None:
        self._problem, self._seed = problem, seed
        self._runs = RungRuns(problem, float(ETA))
        self._listed = list(problem.costs)
        self._axes = varied_axes(self._listed)
        self._space = ConfigurationSpace(seed=seed)
        for axis in self._axes:
            self._space.add(_hyperparameter(axis, [c[axis] for c in self._listed]))

    def run(self, limit: float) -> Trace:
        """See `Peer`."""
        found = Found()
        found.note()
        with tempfile.TemporaryDirectory(prefix="paceline-smac-") as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._search(self._facade(Path(folder)), limit, found)
        return Trace(moments=tuple(found.moments), arrived_at=found.arrived_at)

    def _search(self, smac: Any, limit: float, found: Found) -> None:
        idle = 0
        while found.spent < limit * self._problem.best and idle <= _IDLE_TRIALS:
            started, before = time.perf_counter(), found.spent
            try:
                trial = smac.ask()
            except (StopIteration, ConfigurationSpaceExhaustedException):
                return
            seconds = time.perf_counter() - started
            configuration = self._recorded(dict(trial.config))
            rung = 1 + round(math.log(trial.budget) / math.log(ETA))
            reported = self._runs.train(self._listed.index(configuration), configuration, rung, found)
            smac.tell(trial, TrialValue(cost=-reported.value))
            found.note(seconds)
            if found.arrived_at is not None and self._problem.trainings == 1:
                return
            idle = idle + 1 if found.spent == before else 0

    def _recorded(self, proposed: dict[str, Any]) -> Configuration:
        """The recorded configuration with the proposed values, else the nearest."""
        values = {**self._listed[0].as_dict(), **{axis: _plain(v) for axis, v in proposed.items()}}
        wanted = Configuration(values)
        return wanted if wanted in self._problem.costs else self._problem.recording.space.nearest(wanted)

    def _facade(self, folder: Path) -> Any:
        first = center(self._listed)
        scenario = Scenario(
            self._space,
            deterministic=True,
            n_trials=_MOST_TRIALS,
            min_budget=1,
            max_budget=float(ETA) ** (self._runs.num_rungs - 1),
            seed=self._seed,
            output_directory=folder,
        )
        middle = SpacePoint(self._space, values={axis: first[axis] for axis in self._axes})
        design = MultiFidelityFacade.get_initial_design(
            scenario, n_configs=_NUM_FIRST, additional_configs=[middle]
        )
        return MultiFidelityFacade(
            scenario,
            _never_called,
            initial_design=design,
            intensifier=MultiFidelityFacade.get_intensifier(scenario, eta=ETA),
            logging_level=logging.ERROR,
            overwrite=True,
        )


def peer(problem: Problem, name: str, seed: int) -> SmacReplay:
    """`hyperband`.

    Args:
        problem: What is searched.
        name: `hyperband`.
        seed: Of the search.
    """
    if name != "hyperband":
        raise ValueError(f"SMAC3 runs hyperband here, not {name}")
    return SmacReplay(problem, seed)


def _never_called(config: Any, seed: int = 0, budget: float = 0.0) -> float:
    """Stands for the function that SMAC's own loop would call; its parameters are those that SMAC checks."""
    raise RuntimeError(f"SMAC does not run trials here: {config}, seed {seed}, budget {budget}")


def _hyperparameter(axis: str, values: list[Any]) -> Any:
    """Numbers are ordered; everything else is a choice."""
    distinct = sorted(set(values))
    if all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        return OrdinalHyperparameter(axis, distinct)
    return CategoricalHyperparameter(axis, distinct)


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value
