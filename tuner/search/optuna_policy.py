"""Search policy that uses an Optuna sampler and stops runs that cannot win."""

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

#: Length of a slice in seconds; a run can be given up between slices.
_SLICE_SECONDS = 10.0
#: Before any run has reached the target, a run is given up after this share of the time budget.
_SHARE_OF_BUDGET = 0.2


class OptunaPolicy:
    """Trains the configurations that an Optuna sampler suggests, one after the other or concurrently.

    A slice in flight is a running trial of the Optuna study. TPE treats running trials as bad ones (constant
    liar), and GP accounts for them in its acquisition function, so neither suggests the same again.

    A run is given up once it has trained for longer than the best run took to the target. Before any run has
    reached the target, a run is given up after a fifth of the time budget, if there is one.
    """

    def __init__(self) -> None:
        self._past_faults: frozenset[int] | None = None

    def decide(self, state: SearchState) -> Decision:
        """See `Policy`."""
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
                    return Wait(reason="no nodes are free for a run that may still win")
                return self._go_on(state, run, limit)
        if not may_start(state):
            if under_way:
                return Wait(reason="no new probe may start")
            if all_fail(state):
                return Stop(kind=StopKind.FAULTS, reason="the last configurations failed one after the other")
            return Stop(kind=StopKind.BUDGET, reason="the budget of probes is used up")
        tried = {p.configuration for p in state.probes if p.purpose is not Purpose.TIMING}
        if isinstance(state.space, ListedSpace) and tried.issuperset(state.space.candidates()):
            kind = StopKind.NO_GAIN if arrived else StopKind.UNREACHABLE
            return Stop(kind=kind, reason="every recorded configuration was tried")
        slice_seconds = min(_SLICE_SECONDS, limit)
        return Ask(until=Until(training_seconds=slice_seconds), reason="suggested by the sampler")

    def _go_on(self, state: SearchState, run: Run, limit: float) -> Action:
        done = run.measurement.training_seconds
        if done >= limit:
            return Abandon(probe_id=run.probe.probe_id, reason="it can no longer win")
        # If each slice starts over, at least double the training time with each slice.
        slice_seconds = max(_SLICE_SECONDS, done) if not state.terms.resumes else _SLICE_SECONDS
        until = Until(training_seconds=min(done + slice_seconds, limit))
        if not run.is_open:  # a rank failed, or the target was moved: it resumes as a new probe
            return Start(
                configuration=run.configuration,
                purpose=Purpose.TRAINING,
                until=until,
                reason="resumes from its checkpoint",
                resume_from=run.probe.probe_id,
            )
        return Continue(
            probe_id=run.probe.probe_id, purpose=Purpose.TRAINING, until=until, reason="it may still win"
        )
