"""Rules that end a search: the target was reached, the budget is used up, or too many trainings failed.

These rules need no model. One more rule needs forecasts: a search also ends when no slice is expected to save
more than it costs (`Acquisition.best_option`). `ModelPolicy.decide` applies all rules.
"""

from __future__ import annotations

import math

from search_spaces import Configuration
from tuner.search.policy import Stop, StopKind
from tuner.search.state import SearchState

SECONDS_PER_HOUR = 3600.0
#: Reason for the end of a search whose job has a fault that every further probe would have too.
JOB_FAULT = "the job's command, or the keys that say how its output is read, must be corrected"
#: A search without scores ends after this number of consecutive failed probes. It ends, too, if at least half
#: of all probes failed, and their number is at least twice this number.
_FAULTS_IN_A_ROW = 3
#: After this number of consecutive failed probes, no new probe is started, even if earlier probes have
#: scores.
_FAULTS_WITH_SCORES = 6


def ended_by_fault(state: SearchState) -> frozenset[int]:
    """Returns the IDs of the probes (trial trainings) that have failed so far."""
    return frozenset(probe.probe_id for probe in state.probes if probe.outcome.is_fault)


def arrival(state: SearchState) -> Stop | None:
    """Returns the end of the search if a run has reached the target and no other training is planned."""
    arrived = [run for run in state.runs.values() if run.arrived]
    if not arrived or state.further_trainings > 0:
        return None
    return Stop(kind=StopKind.ARRIVED, reason=f"a run reached the target: {arrived[0].configuration}")


def limit_reached(state: SearchState) -> Stop | None:
    """Returns the end of the search if the budget is used up or too many trainings failed; None otherwise.

    - Without an evaluation, the search ends after several failed trainings (`_FAULTS_IN_A_ROW`).
    - Once a configuration that has not failed has been evaluated, only several failures of the infrastructure
      in a row end the search. Configurations that fail are just not tried again.
    - A failure that affects every training of the job (`Measurement.job_fault`) ends the search immediately.

    Args:
        state: State of the search.
    """
    recent = [probe for probe in state.probes if probe.probe_id not in state.past_faults]
    # A fault of the job itself would occur in every probe. Probes before this process are not in `recent`,
    # because the user may have removed the cause of their faults.
    if any(measurement.job_fault for probe in recent for measurement in probe.slices):
        return Stop(kind=StopKind.FAULTS, reason=JOB_FAULT)
    budget = state.job.budget
    used = budget_used(state)
    if used is not None:
        return Stop(kind=StopKind.BUDGET, reason=used)
    if budget.probes is not None and len(state.tried) >= budget.probes:
        running = [run for run in state.runs.values() if run.can_continue]
        if not running and not state.capacity.under_way:
            return Stop(kind=StopKind.BUDGET, reason=f"the budget of {budget.probes} probes is used up")
    ended = [probe for probe in recent if not probe.outcome.can_continue]
    faults = sum(p.outcome.is_fault for p in ended)
    last = ended[-_FAULTS_IN_A_ROW:]
    in_a_row = len(last) == _FAULTS_IN_A_ROW and all(p.outcome.is_fault for p in last)
    if state.has_scores:
        lost = in_a_row and all(p.slices and p.slices[-1].infrastructure_fault for p in last)
        words = (
            f"the last {_FAULTS_IN_A_ROW} probes failed because of the infrastructure, such as nodes or ports"
        )
        if lost and last[-1].slices[-1].error:
            words += f": {last[-1].slices[-1].error}"
        return Stop(kind=StopKind.FAULTS, reason=words) if lost else None
    many = len(ended) >= 2 * _FAULTS_IN_A_ROW and 2 * faults >= len(ended)
    if in_a_row or many:
        return Stop(kind=StopKind.FAULTS, reason=f"{faults} of {len(ended)} ended probes failed")
    return None


def budget_used(state: SearchState) -> str | None:
    """Returns words that say which part of the budget is used up; None if none is.

    The parts are time, dollars and node hours. The cost of running slices so far is included.

    Args:
        state: State of the search.
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
    """Whether a new training may start: the budget allows it, and the last ones have not all failed."""
    limit = state.job.budget.probes
    return (limit is None or len(state.tried) < limit) and not all_fail(state)


def all_fail(state: SearchState) -> bool:
    """Whether so many of the last trainings have failed in a row that no new one is started.

    The number is `_FAULTS_WITH_SCORES`.
    """
    ran = [p for p in state.probes if p.slices and p.probe_id not in state.past_faults]
    last = ran[-_FAULTS_WITH_SCORES:]
    return len(last) == _FAULTS_WITH_SCORES and all(p.outcome.is_fault for p in last)


def seconds_left(
    state: SearchState, configuration: Configuration, *, after: tuple[Configuration, float] | None = None
) -> float:
    """Returns for how many seconds the budget still allows a configuration to be trained.

    The time budget limits the elapsed time of the search. From the budgets of dollars and node hours, the
    expected cost of all running slices is subtracted.

    Args:
        state: State of the search.
        configuration: The configuration to run.
        after: Another configuration that is run first, and its expected charged seconds; None if no other
            configuration is run first.

    Returns:
        The seconds; infinite without a budget.
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
