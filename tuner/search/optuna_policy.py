"""Search policy that trains what an Optuna sampler suggests, and ends runs that cannot become the best."""

from __future__ import annotations

import math
from dataclasses import replace

from search_spaces import ListedSpace
from tuner.domain.measurement import Purpose
from tuner.probes import Until
from tuner.search.policy import Abandon, Action, Ask, Continue, Decision, Start, Stop, StopKind, Wait
from tuner.search.runs import Run
from tuner.search.state import SearchState
from tuner.search.stopping import all_fail, arrival, ended_by_fault, limit_reached, may_start

#: Training seconds of a slice. A run can be ended only between two slices.
_SLICE_SECONDS = 10.0
#: While no run has reached the target, a run is ended after this share of the time budget.
_SHARE_OF_BUDGET = 0.2


class OptunaPolicy:
    """Trains the configurations that an Optuna sampler suggests, one after the other or concurrently.

    - While a configuration trains, its Optuna trial is in the state RUNNING. TPE treats such trials as bad
      ones (constant liar), and GP includes them in its acquisition function. So neither sampler suggests the
      configuration again.
    - A run ends once it has trained for longer than the fastest run took to the target. As long as no run has
      reached the target, a run ends after a fifth of the time budget, if there is a time budget.
    """

    def __init__(self) -> None:
        self._past_faults: frozenset[int] | None = None

    def decide(self, state: SearchState) -> Decision:
        """Returns the next action, without forecasts; see `Policy`."""
        return Decision(action=self._action(state))

    def _action(self, state: SearchState) -> Action:
        if self._past_faults is None:
            self._past_faults = ended_by_fault(state)
        state = replace(state, past_faults=self._past_faults)
        stop = arrival(state) or limit_reached(state)
        if stop is not None:
            return stop
        arrived = [run.seconds_to_target or math.inf for run in state.runs.values() if run.arrived]
        budget = state.job.budget.time
        limit = min(arrived, default=math.inf if budget is None else _SHARE_OF_BUDGET * budget)
        under_way, given_up = state.capacity.probe_ids, state.given_up
        for run in state.runs.values():
            if run.probe.probe_id in under_way or run.configuration in given_up:
                continue
            if run.can_continue and (run.is_open or run.measurement.training_seconds < limit):
                if not state.fits(run.configuration):
                    return Wait(reason="no nodes are free for a run that may still become the best")
                return self._go_on(state, run, limit)
        if not may_start(state):
            if under_way:
                return Wait(reason="no new training may start, so the running ones have to end first")
            if all_fail(state):
                return Stop(kind=StopKind.FAULTS, reason="the last probes have all failed")
            return Stop(kind=StopKind.BUDGET, reason="the budget of probes is used up")
        tried = {p.configuration for p in state.tried if p.purpose is not Purpose.TIMING}
        if isinstance(state.space, ListedSpace) and tried.issuperset(state.space.candidates()):
            kind = StopKind.NO_GAIN if arrived else StopKind.UNREACHABLE
            return Stop(kind=kind, reason="every recorded configuration was tried")
        slice_seconds = min(_SLICE_SECONDS, limit)
        return Ask(until=Until(training_seconds=slice_seconds), reason="suggested by the sampler")

    def _go_on(self, state: SearchState, run: Run, limit: float) -> Action:
        done = run.measurement.training_seconds
        if done >= limit:
            return Abandon(
                probe_id=run.probe.probe_id, reason="it can no longer become the best configuration"
            )
        # If each slice repeats the run from the start, at least double the training time with each slice.
        slice_seconds = max(_SLICE_SECONDS, done) if not state.terms.resumes else _SLICE_SECONDS
        until = Until(training_seconds=min(done + slice_seconds, limit))
        if not run.is_open:  # the run failed, or the target has changed: it resumes as a new probe
            return Start(
                configuration=run.configuration,
                purpose=Purpose.TRAINING,
                until=until,
                reason="resumes from its checkpoint",
                resume_from=run.probe.probe_id,
            )
        return Continue(
            probe_id=run.probe.probe_id,
            purpose=Purpose.TRAINING,
            until=until,
            reason="it may still become the best configuration",
        )
