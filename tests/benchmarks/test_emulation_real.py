"""How emulated ranks are held against real ones: the arithmetic, and what either kind of run tells."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.emulation_links import (
    MessagesLauncher,
    namespaces_left,
    reason_against_namespaces,
    slow_links,
)
from benchmarks.emulation_real import (
    STRATEGIES,
    Case,
    Seen,
    cases,
    configuration_of,
    emulated_run,
    job_of,
    line_of,
    real_run,
    relative_error,
    row_of,
    summary,
    value_error,
)
from benchmarks.emulation_workload import (
    Watched,
    disagreement,
    recorded_disagreement,
    recorded_disagreement_in_step,
)
from search_spaces import traits_of
from tuner.domain.cluster import VirtualCluster
from tuner.launchers import LocalLauncher

CASE = Case(sleep=(0.02, 0.06), num_steps=20)
CLUSTER = VirtualCluster(fixed_seconds=2e-3, seconds_per_sample=0.0, delays=CASE.delays)


def seen(seconds: float = 1.0, value: float = 0.5, staleness: float | None = 2.0) -> Seen:
    return Seen(seconds=seconds, staleness=staleness, disagreement=0.1, value=value, samples=100)


def test_an_error_is_of_what_was_predicted_over_what_was_measured() -> None:
    assert relative_error(1.1, 1.0) == pytest.approx(0.1)
    assert relative_error(0.9, 1.0) == pytest.approx(-0.1)
    assert relative_error(None, 1.0) is None
    assert relative_error(0.0, 0.0) is None


def test_a_value_s_error_is_in_spreads_between_seeds() -> None:
    real, emulated = [0.4, 0.5, 0.6], [0.6, 0.7, 0.8]
    assert value_error(real, emulated) == pytest.approx(2.0)
    assert value_error(real, real) == 0.0
    assert value_error([0.4], [0.9]) is None


def test_seeds_are_summed_up_by_their_middle_with_their_spread() -> None:
    found = summary([seen(1.0, 0.4), seen(2.0, 0.5), seen(9.0, 0.6, staleness=None)])
    assert found["seconds"] == 2.0
    assert found["seconds_spread"] == [1.0, 9.0]
    assert found["staleness"] == 2.0
    assert found["value"] == pytest.approx(0.5)


def test_a_row_says_which_figures_are_within_their_bars() -> None:
    real = [seen(1.0, 0.4), seen(1.0, 0.6)]
    emulated = [seen(1.2, 0.41, staleness=2.1), seen(1.2, 0.61, staleness=2.1)]
    row = row_of(CASE, "gossip_pull", 4, real, emulated, 0.12)
    assert row["within"] == {"seconds": False, "staleness": True, "disagreement": True, "value": True}
    assert row["errors"]["seconds"] == pytest.approx(0.2)
    assert row["exchange_share"] == pytest.approx(0.1)
    assert json.loads(json.dumps(row)) == row
    assert "(+20% !)" in line_of(row)


def test_disagreement_is_the_mean_squared_distance_to_the_mean() -> None:
    assert disagreement(np.array([[1.0, 0.0], [-1.0, 0.0]])) == 1.0
    assert disagreement(np.ones((4, 3))) == 0.0


def write_record(folder: Path, process: int, times: list[float], values: list[float]) -> None:
    (folder / f"times-{process}.bin").write_bytes(np.array(times).tobytes())
    (folder / f"parameters-{process}.bin").write_bytes(np.array(values, dtype=np.float32).tobytes())


def test_at_each_instant_a_process_counts_with_the_step_it_is_at(tmp_path: Path) -> None:
    # In the second half of their common time, 5 to 10, one holds 3 up to 8 and 1 from then on.
    write_record(tmp_path, 7, [0.0, 2.0, 8.0, 10.0], [9.0, 3.0, 1.0, 0.0])
    write_record(tmp_path, 8, [0.0, 4.9, 12.0], [9.0, 1.0, 5.0])
    expected = (3 * 1.0 + 2 * 0.0) / 5
    assert recorded_disagreement(tmp_path, num_instants=50) == pytest.approx(expected, abs=0.03)


def test_ranks_in_step_are_compared_step_by_step_however_long_each_takes(tmp_path: Path) -> None:
    write_record(tmp_path, 7, [0.0, 1.0, 2.0, 99.0], [9.0, 9.0, 3.0, 2.0])
    write_record(tmp_path, 8, [0.0, 1.5, 2.5, 99.5], [0.0, 0.0, 1.0, 2.0])
    assert recorded_disagreement_in_step(tmp_path) == pytest.approx((1.0 + 0.0) / 2)


def test_the_workload_writes_down_what_each_step_began_with(tmp_path: Path) -> None:
    watched = Watched(width=1, folder=str(tmp_path))
    model, data = watched.model(), watched.training_data()
    batch = data.__getitems__([0, 1])  # type: ignore[attr-defined]
    for _ in range(2):
        watched.loss(model, batch)
    with torch.no_grad():
        model.eval()
        watched.loss(model, batch)
    (times,) = tmp_path.glob("times-*.bin")
    (vectors,) = tmp_path.glob("parameters-*.bin")
    num_parameters = sum(p.numel() for p in model.parameters())
    assert len(np.fromfile(times, dtype=np.float64)) == 2
    assert len(np.fromfile(vectors, dtype=np.float32)) == 2 * num_parameters


def test_every_strategy_s_jobs_are_jobs_and_are_scored_once_at_their_end() -> None:
    for strategy in STRATEGIES:
        configuration = configuration_of(strategy, 4)
        samples = CASE.num_steps * configuration.batch_size
        job = job_of(CASE, 4, 3, None, samples)
        assert job.probe.first_score_samples == samples
        assert job.resolved_cluster().delays == CASE.delays
        assert traits_of(strategy).tau_of(configuration) <= 4


def test_cases_hold_one_with_a_delayed_rank_and_one_with_slow_links() -> None:
    words = [case.disturbance for case, _ in cases(100)]
    assert "none" in words
    assert any("rank 1 sleeps" in text for text in words)
    assert any("Mbit/s" in text for text in words)
    (delayed,) = (case for case, _ in cases(100) if case.delayed is not None)
    assert [delay.slows(0) for delay in delayed.delays] == [True, False]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_emulated_run_is_reported_as_a_real_one_is(strategy: str) -> None:
    configuration = configuration_of(strategy, 3)
    found = emulated_run(CLUSTER, CASE, configuration, 0, CASE.num_steps * configuration.batch_size)
    assert found.samples >= CASE.num_steps * configuration.batch_size
    # No rank is faster than its sleeps, and none sleeps longer than the longest.
    assert 0.03 < found.seconds < 0.065
    assert (found.disagreement == 0.0) == (strategy == "all_reduce")
    assert (found.staleness is None) == traits_of(strategy).barrier
    assert 0.0 < found.value < 3.0


def _undisturbed(launcher: LocalLauncher, case: Case, strategy: str, folder: Path) -> Seen:
    """A run in which no rank was silent for so long, on a busy machine, that it counts as lost."""
    for attempt in range(3):
        own = folder / str(attempt)
        own.mkdir(parents=True)
        try:
            return real_run(launcher, case, configuration_of(strategy, 2), 0, own)
        except RuntimeError as error:
            if "lost ranks" not in str(error):
                raise
    raise AssertionError("a rank was lost in each of three runs")


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_real_ranks_that_pass_messages_are_reported_likewise(tmp_path: Path) -> None:
    case = Case(sleep=(0.005, 0.015), num_steps=30)
    with MessagesLauncher() as launcher:
        for strategy in ("gossip_push", "local_sgd"):
            found = _undisturbed(launcher, case, strategy, tmp_path / strategy)
            assert found.samples >= 30 * 16
            assert found.seconds >= 0.005
            assert found.disagreement > 0
            assert (found.staleness is None) == traits_of(strategy).barrier


@pytest.mark.slow  # needs root and network namespaces
def test_namespaces_are_gone_once_links_are_no_longer_slow() -> None:
    if (reason := reason_against_namespaces()) is not None:
        pytest.skip(reason)
    before = namespaces_left()
    with slow_links(2, megabits=10.0) as places:
        assert len({place.host for place in places}) == 2
        assert all(Path(place.namespace).exists() for place in places)
        assert len(namespaces_left()) == len(before) + 3
    assert namespaces_left() == before
