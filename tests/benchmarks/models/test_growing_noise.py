from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.models.growing_noise import growing_noise, relative_samples, without_own_noise

Array = npt.NDArray[np.float64]
BATCHES = np.array([64.0, 128.0, 1024.0, 16384.0])


def constant(noise_scale: float) -> Array:
    return np.full((len(BATCHES), 1), 1 / noise_scale)


@given(st.lists(st.floats(1.0, 1e6), min_size=1, max_size=8))
def test_samples_rise_with_the_batch_and_steps_fall(scales: list[float]) -> None:
    inverse = np.broadcast_to(1 / np.array(scales), (len(BATCHES), len(scales)))
    found = relative_samples(BATCHES, 64.0, inverse, np.full(len(scales), 1 / len(scales)))
    assert found[0] == pytest.approx(1.0)
    assert np.all(np.diff(found) >= -1e-12)
    assert np.all(np.diff(found / BATCHES) <= 1e-12)


def test_one_noise_scale_along_the_run_is_the_law_of_mccandlish() -> None:
    found = relative_samples(BATCHES, 64.0, constant(1000.0), np.ones(1))
    np.testing.assert_allclose(found, (1 + BATCHES / 1000) / (1 + 64 / 1000))


def test_where_noise_is_far_below_the_batch_a_step_is_a_step() -> None:
    found = relative_samples(BATCHES, 64.0, constant(0.01), np.ones(1))
    np.testing.assert_allclose(found, BATCHES / 64, rtol=1e-3)


@given(st.floats(10.0, 1e6), st.floats(0.0, 5.0))
def test_what_the_runs_own_noise_adds_is_taken_off(noise_scale: float, share: float) -> None:
    batches = np.array([32.0, 64.0, 128.0])
    measured = 1 / (1 / noise_scale + share / batches)
    # Closer to the truth than a factor of four above the largest measured one is out of its reach.
    inverse, found = without_own_noise(batches, measured[:, None])
    assert 1 / inverse[0] == pytest.approx(min(noise_scale, 4 * measured.max()), rel=1e-4)
    assert found[0] == pytest.approx(share, rel=0.35, abs=1e-4 * batches.max() / noise_scale)


def test_a_noise_scale_that_falls_with_the_batch_is_averaged_not_extrapolated() -> None:
    inverse, share = without_own_noise(np.array([32.0, 64.0]), np.array([[120.0], [80.0]]))
    assert 80.0 < 1 / inverse[0] < 120.0
    assert share[0] == 0.0


def test_one_run_says_nothing_of_its_own_noise() -> None:
    inverse, share = without_own_noise(np.array([32.0]), np.array([[50.0, 200.0]]))
    np.testing.assert_allclose(inverse, [1 / 50, 1 / 200])
    np.testing.assert_array_equal(share, 0.0)


def test_what_was_measured_stays_and_the_rest_grows_as_a_power() -> None:
    noise = growing_noise(np.array([0.1, 0.2]), np.array([32.0]), np.array([[50.0, 100.0]]))
    assert noise.weights.sum() == pytest.approx(1.0)
    flat, grown = 1 / noise.inverse_scales(np.array([32.0]), np.array([0.0, 1.5]))[:, 0]
    np.testing.assert_allclose(flat[:2], [50.0, 100.0])
    np.testing.assert_allclose(grown[:2], [50.0, 100.0])
    np.testing.assert_allclose(flat[2:], 100.0)
    assert grown[-1] == pytest.approx(100.0 * 5**1.5)


def test_noise_that_grows_makes_large_batches_cheaper_than_early_statistics_say() -> None:
    noise = growing_noise(np.array([0.01]), np.array([64.0]), np.array([[100.0]]))
    inverse = noise.inverse_scales(BATCHES, np.array([0.0, 0.5, 1.0]))
    found = relative_samples(BATCHES, 64.0, inverse, noise.weights)
    assert np.all(np.diff(found[:, 1:], axis=0) < 0)


def test_statistics_of_the_whole_run_leave_nothing_to_grow() -> None:
    noise = growing_noise(np.array([0.5, 1.0]), np.array([64.0]), np.array([[100.0, 400.0]]))
    inverse = noise.inverse_scales(BATCHES, np.array([0.0, 2.0]))
    np.testing.assert_array_equal(inverse[0], inverse[1])
