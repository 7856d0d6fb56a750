"""Times the user's present settings a second time if they ran only in the first slice of the study.

A slice is an uninterrupted part of a training. Steps of the first slice may be slower than later ones, for
example because caches were empty.
"""

from __future__ import annotations

from search_spaces import Configuration
from tuner.domain.measurement import Measurement, Purpose
from tuner.probes import Until
from tuner.search.policy import Continue, Start
from tuner.search.state import SearchState, run_of
from tuner.search.stopping import may_start
from tuner.search.timings import timing_key

#: The first slice counts as slow if its median step time is more than this multiple of that in later slices.
COLD_FACTOR = 1.25


def recheck(state: SearchState, best: Configuration) -> Start | Continue | None:
    """Returns an action that times the steps of the user's present settings a second time.

    Args:
        state: State of the search.
        best: The configuration that the search would recommend now.

    Returns:
        The action. None if it is not possible now, or not needed: it is needed only if another configuration
        would be recommended, and the present settings were timed only in the first slice of the study.
    """
    baseline = state.job.baseline_configuration()
    first, again = _timed(state, baseline)
    if baseline is None or first is None or again or best == baseline:
        return None
    if state.capacity.under_way or not may_start(state):
        return None
    reason = "steps of the first training of a search may be slow, so the present settings are timed again"
    if state.schedule.times_steps:
        steps = state.job.probe.timing_steps
        return Start(configuration=baseline, purpose=Purpose.TIMING, until=Until(steps=steps), reason=reason)
    run = run_of(state, baseline)
    if run is None or not run.is_open or run.configuration != baseline or not state.terms.resumes:
        return None
    due = state.schedule.next_after(baseline, run.measurement.samples)
    if due is None:
        return None
    return Continue(
        probe_id=run.probe.probe_id, purpose=Purpose.STATISTICS, until=Until(samples=due), reason=reason
    )


def cold_start(state: SearchState) -> tuple[float, float] | None:
    """Compares the step time of the present settings in the study's first slice with that in later slices.

    Args:
        state: State of the search.

    Returns:
        Seconds per step in the first slice, and the median over later slices. None if the first slice was not
        slow (`COLD_FACTOR`), or if the present settings were not timed in both.
    """
    first, again = _timed(state, state.job.baseline_configuration())
    if first is None or not again:
        return None
    before = first.ranks[0].step.median
    after = sorted(m.ranks[0].step.median for m in again)[len(again) // 2]
    return (before, after) if before > COLD_FACTOR * after else None


def _timed(
    state: SearchState, baseline: Configuration | None
) -> tuple[Measurement | None, list[Measurement]]:
    """Returns the slices in which the steps of the user's present settings were timed.

    Args:
        state: State of the search.
        baseline: The present settings; None if the job file has none.

    Returns:
        The measurement of the study's first slice, and those of later slices. If the first slice of the study
        did not time the present settings: None and an empty list.
    """
    if baseline is None or not state.job.runs_command:
        return None, []
    key = timing_key(baseline, state.cluster)
    timed = [m for m in state.slices if m.ranks and timing_key(m.configuration, state.cluster) == key]
    if not timed or timed[0] is not state.slices[0]:
        return None, []
    return timed[0], timed[1:]
