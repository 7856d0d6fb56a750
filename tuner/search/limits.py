"""Stopping rules that need no model: budget and faults."""

from __future__ import annotations

import math

from search_spaces import Configuration
from tuner.search.policy import Stop, StopKind
from tuner.search.state import SearchState

#: So many faults in a row, or half of at least twice as many probes, end a search.
_FAULTS_IN_A_ROW = 3


def ended_by_fault(state: SearchState) -> frozenset[int]:
    """Probes that ended by a fault so far."""
    return frozenset(probe.probe_id for probe in state.probes if probe.outcome.is_fault)


def limit_reached(state: SearchState, past_faults: frozenset[int] = frozenset()) -> Stop | None:
    """Whether budget or faults end the search now.

    Args:
        state: What is known and spent.
        past_faults: Probes that failed before this run of the search: what broke then may be fixed.
    """
    budget = state.job.budget
    if budget.time is not None and state.elapsed_seconds >= budget.time:
        return Stop(kind=StopKind.BUDGET, reason=f"the time budget of {budget.time:g} s is used up")
    if budget.dollars is not None and state.spent.dollars >= budget.dollars:
        return Stop(kind=StopKind.BUDGET, reason=f"the budget of ${budget.dollars:g} is used up")
    if budget.probes is not None and len(state.probes) >= budget.probes:
        running = [run for run in state.runs.values() if run.can_continue]
        if not running and not state.capacity.under_way:
            return Stop(kind=StopKind.BUDGET, reason=f"the budget of {budget.probes} probes is used up")
    ended = [p for p in state.probes if not p.outcome.can_continue and p.probe_id not in past_faults]
    faults = sum(p.outcome.is_fault for p in ended)
    last = ended[-_FAULTS_IN_A_ROW:]
    in_a_row = len(last) == _FAULTS_IN_A_ROW and all(p.outcome.is_fault for p in last)
    many = len(ended) >= 2 * _FAULTS_IN_A_ROW and 2 * faults >= len(ended)
    if in_a_row or many:
        return Stop(kind=StopKind.FAULTS, reason=f"{faults} of {len(ended)} ended probes failed")
    return None


def may_start(state: SearchState) -> bool:
    """Whether the budget allows one more new probe."""
    limit = state.job.budget.probes
    return limit is None or len(state.probes) < limit


def seconds_left(state: SearchState, configuration: Configuration) -> float:
    """Charged seconds the budget still allows a configuration; infinite without one.

    Time is elapsed time, however many slices ran in it; dollars are those charged, plus the expected cost of
    all slices in flight.
    """
    budget = state.job.budget
    left = math.inf if budget.time is None else budget.time - state.elapsed_seconds
    if budget.dollars is not None:
        price = state.cluster.dollars_per_second(configuration)
        if price > 0:
            unspent = budget.dollars - state.spent.dollars - state.committed_dollars
            left = min(left, unspent / price)
    return max(left, 0.0)
