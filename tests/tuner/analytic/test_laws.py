from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.analytic.all_reduce_cost import ring_all_reduce_seconds
from tuner.analytic.laws import (
    expected_maximum,
    log_best_rate,
    log_samples_at_best_rate,
    overlapped_seconds,
    rate_penalty,
)

small_seconds = st.floats(1e-5, 1.0)
bandwidths = st.floats(1e6, 1e11)
jitters = st.floats(0.0, 0.5)
overlaps = st.floats(1.0, 10.0)
noise_scales = st.floats(1.0, 1e5)
BATCHES = 2.0 ** np.arange(4, 15)
RANKS = np.arange(1, 65, dtype=float)


def test_blom_s_maximum_is_that_of_simulated_normals() -> None:
    ranks = np.array([1, 2, 3, 4, 8, 32, 128, 1024])
    rng = np.random.default_rng(0)
    simulated = [rng.standard_normal((20_000, p)).max(axis=1).mean() for p in ranks]
    # The mean of 20,000 maxima is known to 0.007; Blom's formula is good to about 2%.
    np.testing.assert_allclose(expected_maximum(ranks)[1:], simulated[1:], rtol=0.03, atol=0.02)
    assert expected_maximum(ranks)[0] == 0.0


def test_the_expected_maximum_keeps_the_shape_of_what_it_is_asked() -> None:
    assert expected_maximum(np.ones((2, 3))).shape == (2, 3)


def test_a_ring_all_reduce_costs_its_hops_and_twice_the_bytes() -> None:
    found = ring_all_reduce_seconds(np.array([1, 2, 4]), 8e6, latency=1e-3, bytes_per_second=1e9)
    np.testing.assert_allclose(found, [0.0, 2e-3 + 8e-3, 6e-3 + 12e-3], rtol=1e-12)


def test_a_ring_all_reduce_moves_twice_the_bytes_however_many_ranks() -> None:
    found = ring_all_reduce_seconds(np.array([1e6]), 8e6, latency=0.0, bytes_per_second=1e9)
    np.testing.assert_allclose(found, 16e-3, rtol=1e-5)


@given(compute=small_seconds, communication=small_seconds)
def test_overlap_runs_from_the_sum_to_the_longer_part(compute: float, communication: float) -> None:
    def step(overlap: float) -> float:
        return float(overlapped_seconds(np.array([compute]), np.array([communication]), overlap)[0])

    assert step(1.0) == pytest.approx(compute + communication)
    # At g = 10 two equal parts still cost 2^(1/10), 7% above the longer one.
    assert step(10.0) == pytest.approx(max(compute, communication), rel=0.0718)
    assert max(compute, communication) * (1 - 1e-9) <= step(10.0) <= step(3.0) <= step(1.0) * (1 + 1e-9)


@given(fixed=small_seconds, per_sample=st.floats(1e-7, 1e-2), jitter=jitters, overlap=overlaps)
def test_throughput_never_falls_with_batch_size(
    fixed: float, per_sample: float, jitter: float, overlap: float
) -> None:
    ranks = np.full_like(BATCHES, 4.0)
    slowest = (fixed + per_sample * BATCHES / ranks) * (1 + jitter * expected_maximum(ranks))
    exchange = ring_all_reduce_seconds(ranks, 4e6, latency=1e-3, bytes_per_second=1e9)
    step = overlapped_seconds(slowest, exchange, overlap)
    throughput = BATCHES / step
    assert np.all(np.diff(throughput) >= -1e-9 * throughput[1:])


@given(compute=small_seconds, latency=small_seconds, bandwidth=bandwidths, jitter=jitters, overlap=overlaps)
def test_a_step_never_gets_shorter_with_more_ranks_at_one_batch_a_rank(
    compute: float, latency: float, bandwidth: float, jitter: float, overlap: float
) -> None:
    exchange = ring_all_reduce_seconds(RANKS, 4e6, latency=latency, bytes_per_second=bandwidth)
    step = overlapped_seconds(compute * (1 + jitter * expected_maximum(RANKS)), exchange, overlap)
    assert np.all(np.diff(step) >= -1e-9 * step[1:])


@given(noise_scale=noise_scales)
def test_larger_batches_need_more_samples_and_fewer_steps(noise_scale: float) -> None:
    samples = np.exp(log_samples_at_best_rate(BATCHES, log_samples=10.0, noise_scale=noise_scale))
    steps = samples / BATCHES
    assert np.all(np.diff(samples) > 0)
    assert np.all(np.diff(steps) < 0)


def test_a_batch_of_the_noise_scale_needs_twice_the_samples_of_a_small_one() -> None:
    found = log_samples_at_best_rate(np.array([300.0]), log_samples=10.0, noise_scale=300.0)
    assert found[0] == pytest.approx(10.0 + math.log(2))


@given(noise_scale=st.floats(50.0, 1e5), share=st.floats(1e-3, 0.3))
def test_a_noise_floor_gives_samples_a_minimum_in_the_batch(noise_scale: float, share: float) -> None:
    floor = share * noise_scale
    batches = np.geomspace(floor / 50, 50 * noise_scale, 4001)
    samples = log_samples_at_best_rate(batches, log_samples=10.0, noise_scale=noise_scale, noise_floor=floor)
    best = int(np.argmin(samples))
    assert 0 < best < len(batches) - 1
    assert batches[best] == pytest.approx((2 * noise_scale * floor**2) ** (1 / 3), rel=0.01)
    assert np.all(np.diff(samples[: best + 1]) < 0)
    assert np.all(np.diff(samples[best:]) > 0)


def test_far_above_its_noise_floor_a_batch_needs_what_it_needs_without_one() -> None:
    batches = np.array([4.0, 16.0, 64.0]) * 30.0
    plain = log_samples_at_best_rate(batches, log_samples=10.0, noise_scale=500.0)
    raised = log_samples_at_best_rate(batches, log_samples=10.0, noise_scale=500.0, noise_floor=30.0)
    assert np.all(raised > plain)
    assert np.all(raised - plain <= np.log1p(1 / 16))


@given(noise_scale=noise_scales, exponent=st.sampled_from([0.5, 1.0]))
def test_the_best_rate_rises_with_the_batch_no_faster_than_its_power(
    noise_scale: float, exponent: float
) -> None:
    best = log_best_rate(BATCHES, log_rate=-1.0, noise_scale=noise_scale, exponent=exponent)
    slope = np.diff(best) / np.diff(np.log(BATCHES))
    assert np.all(slope >= 0)
    assert np.all(slope <= exponent + 1e-9)
    assert np.all(best <= -1.0)


def test_the_best_rate_of_small_batches_is_linear_for_sgd_and_a_root_for_adam() -> None:
    tiny = np.array([1.0, 4.0])
    sgd = log_best_rate(tiny, log_rate=0.0, noise_scale=1e6, exponent=1.0)
    adam = log_best_rate(tiny, log_rate=0.0, noise_scale=1e6, exponent=0.5)
    assert math.exp(sgd[1] - sgd[0]) == pytest.approx(4.0, rel=1e-4)
    assert math.exp(adam[1] - adam[0]) == pytest.approx(2.0, rel=1e-4)


@given(
    below=st.floats(0.3, 1.5), above=st.floats(0.5, 4.0), width=st.floats(0.3, 4.0), z=st.floats(0.01, 8.0)
)
def test_the_penalty_is_a_basin_around_the_best_rate(
    below: float, above: float, width: float, z: float
) -> None:
    ratios = np.array([-1.1 * z, -z, 0.0, z, 1.1 * z])
    found = rate_penalty(ratios, slope_below=below, slope_above=above, width=width)
    assert found[2] == 0.0
    assert found[0] > found[1] > 0
    assert found[4] > found[3] > 0
    # No steeper anywhere than the slope it tends to.
    assert found[4] - found[3] <= above * 0.1 * z * (1 + 1e-6)


def test_far_below_the_best_rate_a_run_crawls_in_proportion() -> None:
    found = rate_penalty(np.array([-20.0, -21.0]), slope_below=1.0, slope_above=2.0, width=1.0)
    assert found[1] - found[0] == pytest.approx(1.0, rel=0.002)
