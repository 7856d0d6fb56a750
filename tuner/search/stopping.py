"""When a search stops: at the target, at the end of its budget, after too many faults.

These rules need no model. The rule that does is `Acquisition.best_option` in `acquisition.py`: a search also
stops when no slice is expected to pay for itself. `ModelPolicy.decide` applies all of them.
"""

from __future__ import annotations

import math

from search_spaces import Configuration
from tuner.search.policy import Stop, StopKind
from tuner.search.state import SearchState

SECONDS_PER_HOUR = 3600.0
#: Reason for the end of a search that no further probe would help.
JOB_FAULT = "the way in which the script is run, or is read, has to change"
#: A search without scores ends after this number of faults in a row, or after twice this number of probes if
#: at least half of them failed.
_FAULTS_IN_A_ROW = 3
#: After this number of failed probes in a row, no new configurations are tried.
_FAULTS_WITH_SCORES = 6


def ended_by_fault(state: SearchState) -> frozenset[int]:
    """IDs of the probes that have ended by a fault so far."""
    return frozenset(probe.probe_id for probe in state.probes if probe.outcome.is_fault)


def arrival(state: SearchState) -> Stop | None:
    """Stops the search once a run has reached the target, if the job needs no further trainings."""
    arrived = [run for run in state.runs.values() if run.arrived]
    if not arrived or state.further_trainings > 0:
        return None
    return Stop(kind=StopKind.ARRIVED, reason=f"a run reached the target: {arrived[0].configuration}")


def limit_reached(state: SearchState) -> Stop | None:
    """Stops the search if the budget is used up or if too many probes failed; None otherwise.

    Once a healthy configuration has scores, configurations that fail are not tried again and do not end the
    search. Repeated faults of the infrastructure still do.
    """
    recent = [probe for probe in state.probes if probe.probe_id not in state.past_faults]
    # A fault of the job itself makes every probe useless. Faults before this run of the search may be fixed.
    if any(measurement.job_fault for probe in recent for measurement in probe.slices):
        return Stop(kind=StopKind.FAULTS, reason=JOB_FAULT)
    budget = state.job.budget
    used = budget_used(state)
    if used is not None:
        return Stop(kind=StopKind.BUDGET, reason=used)
    if budget.probes is not None and len(state.probes) >= budget.probes:
        running = [run for run in state.runs.values() if run.can_continue]
        if not running and not state.capacity.under_way:
            return Stop(kind=StopKind.BUDGET, reason=f"the budget of {budget.probes} probes is used up")
    ended = [probe for probe in recent if not probe.outcome.can_continue]
    faults = sum(p.outcome.is_fault for p in ended)
    last = ended[-_FAULTS_IN_A_ROW:]
    in_a_row = len(last) == _FAULTS_IN_A_ROW and all(p.outcome.is_fault for p in last)
    if state.has_scores:
        lost = in_a_row and all(p.slices and p.slices[-1].infrastructure_fault for p in last)
        words = f"the last {_FAULTS_IN_A_ROW} probes failed by faults of the infrastructure"
        return Stop(kind=StopKind.FAULTS, reason=words) if lost else None
    many = len(ended) >= 2 * _FAULTS_IN_A_ROW and 2 * faults >= len(ended)
    if in_a_row or many:
        return Stop(kind=StopKind.FAULTS, reason=f"{faults} of {len(ended)} ended probes failed")
    return None


def budget_used(state: SearchState) -> str | None:
    """A sentence on the budget (time, dollars or node hours) that is used up; None if none is.

    Slices in flight count with their cost so far.
    """
    budget = state.job.budget
    if budget.time is not None and state.elapsed_seconds >= budget.time:
        return f"the time budget of {budget.time:g} s is used up"
    if budget.dollars is not None and state.dollars() >= budget.dollars:
        return f"the budget of ${budget.dollars:g} is used up"
    if budget.node_hours is not None and state.node_seconds() >= SECONDS_PER_HOUR * budget.node_hours:
        return f"the budget of {budget.node_hours:g} node hours is used up"
    return None


def may_start(state: SearchState) -> bool:
    """Whether a new probe may start: the budget allows it, and the last probes did not all fail."""
    limit = state.job.budget.probes
    return (limit is None or len(state.probes) < limit) and not all_fail(state)


def all_fail(state: SearchState) -> bool:
    """Whether the last `_FAULTS_WITH_SCORES` probes all failed, so that no new ones are tried."""
    ran = [p for p in state.probes if p.slices and p.probe_id not in state.past_faults]
    last = ran[-_FAULTS_WITH_SCORES:]
    return len(last) == _FAULTS_WITH_SCORES and all(p.outcome.is_fault for p in last)


def seconds_left(
    state: SearchState, configuration: Configuration, *, after: tuple[Configuration, float] | None = None
) -> float:
    """Charged seconds that the budget still allows a configuration; infinite without a budget.

    The time budget limits elapsed time, in which overlapping slices count once. Dollars and node hours
    include the expected cost of all slices in flight.

    Args:
        state: State of the search.
        configuration: The configuration to run.
        after: Another configuration that runs first, and its charged seconds; None if there is none.
    """
    budget = state.job.budget
    other, seconds = after or (configuration, 0.0)
    left = math.inf if budget.time is None else budget.time - state.elapsed_seconds - seconds
    price_of = state.cluster.dollars_per_second
    if budget.dollars is not None and price_of(configuration) > 0:
        unspent = budget.dollars - state.dollars(to_end=True) - seconds * price_of(other)
        left = min(left, unspent / price_of(configuration))
    nodes_of = state.cluster.nodes_held
    if budget.node_hours is not None and nodes_of(configuration) > 0:
        unspent = SECONDS_PER_HOUR * budget.node_hours - state.node_seconds(to_end=True)
        left = min(left, (unspent - seconds * nodes_of(other)) / nodes_of(configuration))
    return max(left, 0.0)
