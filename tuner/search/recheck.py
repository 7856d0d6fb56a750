"""Time the present settings again if they ran in the first slice, whose steps may have been slow."""

from __future__ import annotations

from search_spaces import Configuration
from tuner.domain.measurement import Measurement, Purpose
from tuner.probes import Until
from tuner.search.policy import Continue, Start
from tuner.search.state import SearchState, run_of
from tuner.search.stopping import may_start
from tuner.search.timings import timing_key

#: The first slice counts as slow if its steps took more than this multiple of later ones.
COLD_FACTOR = 1.25


def recheck(state: SearchState, best: Configuration) -> Start | Continue | None:
    """A slice that times the present settings again; None if there is no need.

    It is needed if another configuration is about to be recommended, and the present settings of the user's
    script were timed in the first slice of the study only.

    Args:
        state: State of the search.
        best: The configuration about to be recommended.
    """
    baseline = state.job.baseline_configuration()
    first, again = _timed(state, baseline)
    if baseline is None or first is None or again or best == baseline:
        return None
    if state.capacity.under_way or not may_start(state):
        return None
    reason = "the present settings ran first, when a step may take longer: their steps are timed again"
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
    """Seconds per step of the present settings in the first slice and later; None if about equal."""
    first, again = _timed(state, state.job.baseline_configuration())
    if first is None or not again:
        return None
    before = first.ranks[0].step.median
    after = sorted(m.ranks[0].step.median for m in again)[len(again) // 2]
    return (before, after) if before > COLD_FACTOR * after else None


def _timed(
    state: SearchState, baseline: Configuration | None
) -> tuple[Measurement | None, list[Measurement]]:
    """The study's first slice if it timed the present settings of a script, and the later slices that did."""
    if baseline is None or not state.job.runs_command:
        return None, []
    key = timing_key(baseline, state.cluster)
    timed = [m for m in state.slices if m.ranks and timing_key(m.configuration, state.cluster) == key]
    if not timed or timed[0] is not state.slices[0]:
        return None, []
    return timed[0], timed[1:]
