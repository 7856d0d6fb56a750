from __future__ import annotations

import pytest

from benchmarks.made_search import made_job, made_state
from benchmarks.suggestion import made_seconds
from tuner.domain.measurement import Purpose


@pytest.mark.parametrize("num_slices", [1, 7, 40])
def test_a_made_search_has_so_many_slices_and_begins_with_the_present_settings(num_slices: int) -> None:
    state = made_state(num_slices)
    assert len(state.slices) == num_slices
    assert state.probes[0].configuration == made_job().baseline_configuration()
    assert all(not run.arrived for run in state.runs.values())


def test_a_made_search_holds_timings_and_runs_of_feasible_configurations() -> None:
    state = made_state(60)
    assert {m.purpose for m in state.slices} == {Purpose.TIMING, Purpose.STATISTICS}
    others = [probe.configuration for probe in state.probes[1:]]
    assert all(state.space.is_feasible(c) for c in others)
    assert len(set(others)) == len(others)


def test_decisions_of_a_made_search_weigh_several_hundred_configurations() -> None:
    num_configurations, seconds = made_seconds(5, repeats=2)
    assert num_configurations > 400
    assert len(seconds) == 2
