"""Limits the number of runs to which the models of a search are fitted, so that large studies fit in memory.

The models compare every run with every other run and with every candidate. Their memory and their time grow
with the square of the number of runs.
"""

from __future__ import annotations

import math
from dataclasses import replace

from tuner.search.runs import Run, run_key
from tuner.search.state import SearchState

#: The models are fitted to at most this number of runs.
MOST_RUNS = 300


def modelled(state: SearchState) -> SearchState:
    """Returns the state with the runs to which the models are fitted; the state itself if it has few runs.

    If there are more than `MOST_RUNS` runs, half of the chosen ones are the best: first the runs that reached
    the target at the least cost, then those whose best score is nearest to the target. The others are the
    runs that started last. The runs that are being trained and the run of the user's present settings are
    always chosen. The keys of the other runs are in `SearchState.left_out`.

    Args:
        state: State of the search, with all runs.
    """
    if len(state.runs) <= MOST_RUNS:
        return state
    baseline = state.job.baseline_configuration()
    chosen = {*state.keys_under_way, *([] if baseline is None else [run_key(state.job, baseline)])}
    best_first = sorted(state.runs, key=lambda key: _rank(state, state.runs[key]))
    chosen.update(best_first[: MOST_RUNS // 2])
    for key in reversed(state.runs):
        if len(chosen) >= MOST_RUNS:
            break
        chosen.add(key)
    runs = {key: run for key, run in state.runs.items() if key in chosen}
    return replace(state, runs=runs, left_out=frozenset(state.runs.keys() - chosen))


def _rank(state: SearchState, run: Run) -> tuple[bool, bool, float]:
    """Returns a key that sorts runs from the best to the worst."""
    if run.seconds_to_target is not None:
        by_price = state.job.goal.minimize == "dollars"
        price = state.cluster.dollars_per_second(run.configuration) if by_price else 1.0
        return False, False, run.seconds_to_target * price
    sign, target = state.job.goal.sign, state.job.goal.target
    distances = [sign * (target - point.value) for point in run.measurement.finite_curve]
    return True, run.has_ended, min(distances, default=math.inf)
