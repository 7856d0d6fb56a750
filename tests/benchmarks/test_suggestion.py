from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.made_recording import made_problem, recorded_probes
from benchmarks.made_search import made_job, made_probes, made_state
from benchmarks.suggestion import KINDS, Kind, growing, made_decisions
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


def test_a_made_search_with_many_slices_still_has_few_enough_probes() -> None:
    state = made_state(2_000)
    assert len(state.slices) == 2_000
    configurations = [probe.configuration for probe in state.probes]
    assert len(set(configurations)) == len(configurations)


@pytest.mark.parametrize("num_slices", [1, 7, 40])
def test_probes_of_the_made_recording_have_so_many_slices(num_slices: int, tmp_path: Path) -> None:
    probes = recorded_probes(made_problem(tmp_path), num_slices)
    assert sum(len(probe.slices) for probe in probes) == num_slices
    assert len({probe.configuration for probe in probes}) == len(probes)


def test_more_slices_than_the_made_recording_has_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at most 2000"):
        recorded_probes(made_problem(tmp_path), 2_001)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_decisions_of_a_made_search_compare_400_candidates(kind: Kind) -> None:
    (timed,) = made_decisions(kind, 40, num_later=2)
    assert timed.candidates >= 400
    assert len(timed.later) == 2


def test_later_decisions_know_one_more_slice_each() -> None:
    probes = made_probes(12)
    shown = growing(probes, 3)
    assert [sum(len(probe.slices) for probe in known) for known in shown] == [9, 10, 11, 12]
    assert shown[-1] == probes
