"""Optuna's samplers on the same recorded prober, with the same start-up, kill rule and feasibility mask."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import optuna
from optuna.pruners import BasePruner, NopPruner, SuccessiveHalvingPruner
from optuna.trial import Trial, TrialState

from benchmarks.replay_problem import Problem
from benchmarks.replay_trace import Moment, Trace
from search_spaces import Configuration, ListedSpace
from tuner.domain.measurement import CurvePoint, Purpose, crossing
from tuner.probes import Until
from tuner.search.sampler import baseline_sampler, distributions

BASELINES = ("tpe", "tpe-sha", "gp", "random")

#: Successive halving: one of so many is kept at a rung; the first rung is so many start-ups long. Both were
#: chosen in its favour on the two TrimTuner recordings, of 3 and 4, and of 0.5 to 8.
REDUCTION_FACTOR, FIRST_RUNG_STARTUPS = 3, 1.0
_NUM_RUNGS = 12

optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass
class Found:
    """What the trials so far came to.

    Args:
        spent: Charged so far, in the goal's unit.
        cost: Of the best run that arrived.
        configuration: The best run that arrived; None before any.
        arrived_at: What was spent when the first arrived.
    """

    spent: float = 0.0
    cost: float = math.inf
    configuration: Configuration | None = None
    arrived_at: float | None = None
    moments: list[Moment] = field(default_factory=list)

    def note(self, suggestion_seconds: float | None = None) -> None:
        """Adds the moment that is now."""
        self.moments.append(
            Moment(spent=self.spent, recommended=self.configuration, suggestion_seconds=suggestion_seconds)
        )

    def arrived(
        self, configuration: Configuration, seconds: float, price: float, deadline: float | None
    ) -> None:
        """Notes that a run arrived after so many training seconds; one past the deadline does not count."""
        if seconds > (deadline or math.inf):
            return
        if self.arrived_at is None:
            self.arrived_at = self.spent
        if seconds * price < self.cost:
            self.cost, self.configuration = seconds * price, configuration


class OptunaReplay:
    """One search with one of Optuna's samplers; every trial trains until it arrives or can no longer win.

    A run is stopped at the deadline, and where its own cost, start-up apart, passes that of the best run
    that arrived. `tpe-sha` prunes besides by asynchronous successive halving (Li et al. 2020), its rungs in
    the goal's unit: equal seconds, or equal dollars. What is pruned tells the gap that was left to the
    target at the last rung it passed, so that TPE ranks it by how far it came; Optuna's GP sampler passes it
    over, and draws at random until five runs have arrived.

    Args:
        problem: What is searched.
        name: One of `BASELINES`.
        seed: Of the sampler.
        first: Configuration of the first trial; None to let the sampler choose it.
    """

    def __init__(self, problem: Problem, name: str, seed: int, first: Configuration | None = None) -> None:
        self._problem = problem
        self._target, self._sign = problem.job.goal.target, 1.0 if problem.job.goal.maximize else -1.0
        self._prober = problem.prober()
        space = problem.job.search_space()
        assert isinstance(space, ListedSpace)
        self._space = space
        self._halves = name == "tpe-sha"
        pruner: BasePruner = NopPruner()
        if self._halves:
            pruner = SuccessiveHalvingPruner(min_resource=1, reduction_factor=REDUCTION_FACTOR)
        sampler = baseline_sampler(name.removesuffix("-sha"), space, seed)
        self._study = optuna.create_study(sampler=sampler, pruner=pruner)
        if first is not None:
            self._study.enqueue_trial(first.as_dict())
        self._rungs = first_rung(problem) * float(REDUCTION_FACTOR) ** np.arange(_NUM_RUNGS)

    def run(self, limit: float) -> Trace:
        """Searches until everything was tried, the limit is spent, or a training arrived where one is asked.

        Args:
            limit: In units of the best configuration's own cost.
        """
        found = Found()
        found.note()
        ended = False
        while not ended and found.spent < limit * self._problem.best:
            started = time.perf_counter()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                trial = self._study.ask(distributions(self._space))
            seconds = time.perf_counter() - started
            self._train(trial, Configuration(trial.params), found)
            found.note(seconds)
            tried = len(self._study.get_trials(deepcopy=False))
            arrived = found.arrived_at is not None and self._problem.trainings == 1
            ended = arrived or tried >= len(self._space.configurations)
        return Trace(moments=tuple(found.moments), arrived_at=found.arrived_at)

    def _train(self, trial: Trial, configuration: Configuration, found: Found) -> None:
        """One trial from its start to its end, which Optuna is told."""
        curve: list[CurvePoint] = []
        folder, price = Path(str(trial.number)), self._problem.price(configuration)
        for step, end in self._ends(price, found.cost):
            handle = self._prober.start(configuration, Purpose.TRAINING, Until(training_seconds=end), folder)
            measurement = self._prober.poll(handle)
            found.spent += self._problem.charged(measurement)
            curve.extend(point for point in measurement.curve if point.samples > 0)
            crossed = crossing(curve, self._target, maximize=self._sign > 0)
            if crossed is not None:
                self._arrived(trial, configuration, crossed[1], found)
                return
            trial.report(self._gap(curve), step)
            if not measurement.outcome.can_continue or (self._halves and trial.should_prune()):
                break
        self._study.tell(trial, state=TrialState.PRUNED)

    def _arrived(self, trial: Trial, configuration: Configuration, seconds: float, found: Found) -> None:
        price = self._problem.price(configuration)
        self._study.tell(trial, seconds * price)
        found.arrived(configuration, seconds, price, self._problem.deadline)

    def _ends(self, price: float, best: float) -> Iterator[tuple[int, float]]:
        """Where a trial's slices end, training seconds, each with the step that Optuna is told.

        Args:
            price: Of a second of its configuration.
            best: Cost of the best run that arrived.
        """
        last = min(best / price, self._problem.deadline or math.inf, self._longest)
        rungs = [rung / price for rung in self._rungs] if self._halves else []
        for number, rung in enumerate(rungs):
            if rung < last:
                yield REDUCTION_FACTOR**number, rung
        yield REDUCTION_FACTOR ** sum(rung < last for rung in rungs), last

    @property
    def _longest(self) -> float:
        return max(run.seconds for run in self._problem.recording.runs) + 1.0

    def _gap(self, curve: list[CurvePoint]) -> float:
        """How far the metric's best value is from the target; infinite before any scoring."""
        return min((self._sign * (self._target - point.value) for point in curve), default=math.inf)


def first_rung(problem: Problem) -> float:
    """Where successive halving looks first, in the goal's unit: a start-up of the median configuration.

    Without start-up it is where the median configuration was scored first.
    """
    recording = problem.recording
    prices = [problem.price(c) for c in problem.costs]
    if recording.startup_seconds > 0:
        return FIRST_RUNG_STARTUPS * recording.startup_seconds * float(np.median(prices))
    runs = [recording.run(c) for c in problem.costs]
    scored = [run.curve[0, 0] * problem.price(run.configuration) for run in runs if len(run.curve)]
    return float(np.median(scored))
