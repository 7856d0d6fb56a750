"""Replays one search: a policy of the product decides, its recorded prober carries out, no database."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.replay_beliefs import interval, probability_of_reaching, recommended, regret_bound
from benchmarks.replay_problem import Problem
from benchmarks.replay_trace import Moment, Prediction, Trace
from search_spaces import Configuration
from tuner.domain.ledger import ProbeRecord
from tuner.domain.measurement import Outcome, Purpose
from tuner.probes import Prober, Until
from tuner.recordings.recording import NEUTRAL_EPOCH_SAMPLES
from tuner.search.policy import Abandon, Action, Continue, Decision, Policy, Start, Stop
from tuner.search.runs import RunCache
from tuner.search.state import SearchState, read_state

#: Spent so many times the best configuration's cost, beliefs are looked at, each time of so many others.
_LEVELS_CHECKED, _OTHERS = (2.0, 4.0, 8.0, 16.0), 10
#: So many decisions in a row that cost nothing mean that the policy asks for the same again and again.
_IDLE_DECISIONS = 50


class ReplayedSearch:
    """A search whose probes are kept in memory.

    Args:
        problem: What is searched.
        prober: Carries out slices; None for one that replays the problem's recording without writing.
    """

    def __init__(self, problem: Problem, prober: Prober | None = None) -> None:
        self._problem = problem
        self._prober = prober or problem.prober()
        self._cluster = problem.job.resolved_cluster()
        self.probes: list[ProbeRecord] = []
        self._runs = RunCache(problem.job)

    def state(self) -> SearchState:
        """Where the search stands."""
        job, cluster = self._problem.job, self._cluster
        return read_state(job, cluster, self.probes, NEUTRAL_EPOCH_SAMPLES, cache=self._runs)

    @property
    def spent(self) -> float:
        """Everything charged, in the goal's unit."""
        return sum(self._problem.charged(m) for probe in self.probes for m in probe.slices)

    def execute(self, action: Action) -> None:
        """Carries out what was decided; `Stop` does nothing."""
        if isinstance(action, Start):
            if action.resume_from is not None:
                raise ValueError(
                    f"probe {action.resume_from} is to go on as {action.configuration}: what two recorded "
                    "runs make together was not recorded"
                )
            self.probes.append(new_probe(len(self.probes), action.configuration, action.purpose))
            self._slice(self.probes[-1], action.purpose, action.until)
        elif isinstance(action, Continue):
            probe = self.probes[action.probe_id]
            if not probe.outcome.can_continue:
                raise ValueError(f"probe {probe.probe_id} is to go on, but ended: {probe.outcome}")
            self._slice(probe, action.purpose, action.until)
        elif isinstance(action, Abandon):
            given_up = replace(self.probes[action.probe_id], outcome=Outcome.STOPPED, reason=action.reason)
            self.probes[action.probe_id] = given_up
        elif not isinstance(action, Stop):
            raise TypeError(f"{type(action).__name__} needs an Optuna study; replay that sampler by its name")

    def _slice(self, probe: ProbeRecord, purpose: Purpose, until: Until) -> None:
        handle = self._prober.start(probe.configuration, purpose, until, Path(f"{probe.probe_id:04d}"))
        measurement = self._prober.poll(handle)
        self.probes[probe.probe_id] = replace(
            probe, slices=(*probe.slices, measurement), outcome=measurement.outcome
        )


def new_probe(probe_id: int, configuration: Configuration, purpose: Purpose) -> ProbeRecord:
    """A probe of no database, before its first slice."""
    return ProbeRecord(
        probe_id=probe_id,
        study_id=0,
        configuration=configuration,
        purpose=purpose,
        trial_number=None,
        slices=(),
        outcome=Outcome.PAUSED,
        reason="",
        lease=None,
        created_at=0.0,
    )


def steps(search: ReplayedSearch, policy: Policy) -> Iterator[tuple[SearchState, Decision, float]]:
    """The state, the decision taken in it and how long that took, each carried out before the next."""
    idle = 0
    while True:
        state, before = search.state(), search.spent
        started = time.perf_counter()
        decision = policy.decide(state)
        yield state, decision, time.perf_counter() - started
        if isinstance(decision.action, Stop):
            return
        search.execute(decision.action)
        idle = idle + 1 if search.spent == before else 0
        if idle > _IDLE_DECISIONS:
            raise RuntimeError(f"{idle} decisions in a row cost nothing; the last was {decision.action}")


def replay(problem: Problem, policy: Policy, *, limit: float, seed: int) -> Trace:
    """Searches until the policy stops, or has spent so much.

    Args:
        problem: What is searched.
        policy: Decides.
        limit: In units of the best configuration's own cost.
        seed: Of what beliefs are looked at.
    """
    search = ReplayedSearch(problem)
    moments: list[Moment] = []
    predictions: list[Prediction] = []
    levels = [level * problem.best for level in _LEVELS_CHECKED]
    stop = None
    for state, decision, seconds in steps(search, policy):
        spent = search.spent
        moments.append(
            Moment(
                spent=spent,
                recommended=recommended(decision),
                suggestion_seconds=seconds,
                regret_bound=regret_bound(decision),
            )
        )
        passed = [level for level in levels if spent >= level]
        if passed:
            levels = levels[len(passed) :]
            rng = np.random.default_rng((seed, len(levels)))
            predictions.extend(_predictions(problem, state, decision, spent, rng))
        if isinstance(decision.action, Stop):
            stop = decision.action.kind.value
        if spent >= limit * problem.best:
            break
    return Trace(
        moments=tuple(moments),
        predictions=tuple(predictions),
        arrived_at=_arrived_at(problem, search),
        stop=stop,
    )


def _predictions(
    problem: Problem, state: SearchState, decision: Decision, spent: float, rng: np.random.Generator
) -> Iterator[Prediction]:
    """Of the recommendation and of others, none of which has arrived or been seen to its end."""
    known = {
        probe.configuration
        for probe in state.probes
        for measurement in probe.slices
        if measurement.purpose is not Purpose.TIMING and not measurement.outcome.can_continue
    }
    is_scored = any(measurement.trained_curve for measurement in state.slices)
    open_ones = [c for c in problem.costs if c not in known]
    chosen = [open_ones[i] for i in rng.permutation(len(open_ones))[:_OTHERS]]
    first = recommended(decision)
    if first is not None and first not in known:
        chosen = [first, *(c for c in chosen if c != first)]
    for configuration in chosen:
        found = interval(decision, configuration)
        if found is not None:
            lower, median, upper = found
            yield Prediction(
                configuration=configuration,
                lower=lower,
                median=median,
                upper=upper,
                spent=spent,
                after_first_score=is_scored,
                reaches=probability_of_reaching(decision, configuration),
            )


def _arrived_at(problem: Problem, search: ReplayedSearch) -> float | None:
    """All that was charged, if the search has trained a model within the goal's limits."""
    arrived = {run.configuration for run in search.state().runs.values() if run.arrived}
    in_time = [c for c in arrived if np.isfinite(problem.costs[c])]
    return search.spent if in_time else None
