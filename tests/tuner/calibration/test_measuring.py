"""A calibration finds the constants of a machine that is known, and says what speaks against them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.tuner.calibration.made_timings import (
    BYTES_PER_SECOND,
    FIXED,
    JITTER,
    LATENCY,
    PARAMETER_BYTES,
    PER_SAMPLE,
    MadeLauncher,
    made_plan,
)
from tuner.calibration import Constants, calibrate
from tuner.domain.errors import ProbeError


@pytest.fixture(autouse=True)
def _two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: {0, 1}, raising=False)


def calibrated(folder: Path, launcher: MadeLauncher, *, node_counts: tuple[int, ...] = (2,)) -> Constants:
    return calibrate(made_plan(node_counts=node_counts), launcher, folder, lambda _words: None)


def test_a_known_machine_s_constants_are_found_again(tmp_path: Path) -> None:
    found = calibrated(tmp_path, MadeLauncher())
    assert found.fixed_seconds.value == pytest.approx(FIXED, rel=0.05)
    assert found.seconds_per_sample.value == pytest.approx(PER_SAMPLE, rel=0.05)
    assert found.jitter.value == pytest.approx(JITTER, rel=0.1)
    assert found.persistent < 0.1
    assert found.neighbour_slowdown == pytest.approx(1.0, abs=0.02)
    for link in (found.collective, found.messages):
        assert link.latency.value == pytest.approx(LATENCY, rel=0.06)
        assert link.bytes_per_second == pytest.approx(BYTES_PER_SECOND, rel=0.06)
    assert found.parameter_bytes == PARAMETER_BYTES
    assert found.warnings == ()


def test_of_each_all_reduce_the_rank_that_came_last_shows_how_long_it_took(tmp_path: Path) -> None:
    # The made ranks wait for each other by up to 0.1 ms, a tenth of the shortest all-reduce.
    found = calibrated(tmp_path, MadeLauncher())
    assert found.collective.latency.value < LATENCY * 1.05


def test_ranks_that_share_cores_are_warned_of_and_left_out_of_the_figures(tmp_path: Path) -> None:
    found = calibrated(tmp_path, MadeLauncher(waiting=0.02), node_counts=(2, 4))
    assert found.collective.latency.value == pytest.approx(LATENCY, rel=0.06)
    assert any("4 ranks share 2 cores" in words for words in found.warnings)
    assert {p for p, *_ in found.collective.from_law} == {4}
    assert all(seen > law + 0.01 for _, _, law, seen in found.collective.from_law)


def test_more_nodes_with_cores_enter_the_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(8)), raising=False)
    found = calibrated(tmp_path, MadeLauncher(), node_counts=(2, 4, 8))
    assert found.collective.latency.value == pytest.approx(LATENCY, rel=0.06)
    assert found.collective.from_law == ()


def test_where_even_two_ranks_share_a_core_the_figures_are_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: {0}, raising=False)
    found = calibrated(tmp_path, MadeLauncher())
    assert any("waiting for a core" in words for words in found.warnings)


def test_a_rank_that_fails_ends_it_with_its_own_words(tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match="ArithmeticError: the workload's own words"):
        calibrated(tmp_path, MadeLauncher(fails="time_overlap"))


def test_ranks_that_are_not_heard_of_are_ended(tmp_path: Path) -> None:
    launcher = MadeLauncher(hangs="time_messages")
    with pytest.raises(ProbeError, match="hang_timeout"):
        calibrated(tmp_path, launcher)
    assert launcher.cancelled


def test_all_reduces_within_a_node_of_other_hosts_are_a_link_of_their_own(tmp_path: Path) -> None:
    cluster = {"launcher": "torchrun", "torchrun": {"hosts": ["a", "b", "c", "d"]}, "devices_per_node": 2}
    plan = made_plan(node_counts=(2,), **cluster)
    found = calibrate(plan, MadeLauncher(waiting=0.02), tmp_path, lambda _words: None)
    assert found.within_node is not None
    # Two ranks of one node do not wait as the four of two nodes are made to.
    assert found.within_node.latency.value == pytest.approx(LATENCY, rel=0.06)
    assert found.collective.latency.value > 3 * LATENCY
    assert found.warnings == () or all("share" not in words for words in found.warnings)


def test_one_device_on_other_hosts_has_no_link_within(tmp_path: Path) -> None:
    plan = made_plan(launcher="torchrun", torchrun={"hosts": ["a", "b", "c", "d"]})
    found = calibrate(plan, MadeLauncher(), tmp_path, lambda _words: None)
    assert found.within_node is None
