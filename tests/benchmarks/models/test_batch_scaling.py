from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.models.batch_scaling import PRIORS, fit_batch_scaling, weighted_quantiles
from benchmarks.models.growing_noise import growing_noise, relative_samples
from tests.levels import examples

Array = npt.NDArray[np.float64]
SMALL = np.array([64.0, 256.0, 1024.0])
LARGE = np.array([4096.0, 16384.0])
INTERVAL = (0.05, 0.5, 0.95)


def by_law(batches: Array, critical: float) -> Array:
    return 1e6 * (1 + batches / critical)


@pytest.mark.parametrize("critical", [1000.0, 4000.0])
def test_a_critical_batch_within_reach_is_found_and_predicts_beyond(critical: float) -> None:
    fitted = fit_batch_scaling(SMALL, by_law(SMALL, critical), [0.01] * 3)
    low, middle, high = fitted.quantiles(LARGE, INTERVAL)
    truth = by_law(LARGE, critical)
    # A recipe of its own (5%) at each batch leaves the bend this uncertain four octaves further.
    np.testing.assert_allclose(middle, truth, rtol=0.3)
    assert np.all((low < truth) & (truth < high))


def test_flat_small_batches_rule_a_small_critical_batch_out() -> None:
    flat = fit_batch_scaling(SMALL, [1e6, 1e6, 1e6], [0.01] * 3)
    bent = fit_batch_scaling(SMALL, by_law(SMALL, 1000.0), [0.01] * 3)
    assert flat.quantiles(LARGE, (0.95,))[0, 0] < bent.quantiles(LARGE, (0.5,))[0, 0]


def test_statistics_of_a_growing_noise_scale_predict_batches_never_run() -> None:
    progress = np.linspace(0.02, 1.0, 50)
    scales = 20_000 * progress
    truth = relative_samples(LARGE, 64.0, np.broadcast_to(1 / scales, (2, 50)), np.full(50, 0.02))
    early = growing_noise(progress[:12], SMALL[:1], scales[None, :12])
    low, middle, high = fit_batch_scaling(SMALL[:1], [1.0], [0.0], noise=early).quantiles(LARGE, INTERVAL)
    np.testing.assert_allclose(middle, truth, rtol=0.25)
    assert np.all((low < truth) & (truth < high))


def test_holding_the_early_noise_scale_would_overstate_what_large_batches_cost() -> None:
    first = np.array([0.01]), SMALL[:1], np.array([[200.0]])
    grown = fit_batch_scaling(SMALL[:1], [1.0], [0.0], noise=growing_noise(*first)).quantiles(LARGE, (0.5,))
    assert np.all(grown[0] < 0.5 * (1 + LARGE / 200) / (1 + 64 / 200))


@examples(20)
@given(st.floats(1.0, 1e9), st.floats(0.2, 50.0))
def test_units_of_samples_and_of_batch_do_not_matter(unit: float, batch_unit: float) -> None:
    plain = fit_batch_scaling(SMALL, by_law(SMALL, 3000.0), [0.02] * 3).quantiles(LARGE, INTERVAL)
    scaled = fit_batch_scaling(batch_unit * SMALL, unit * by_law(SMALL, 3000.0), [0.02] * 3)
    np.testing.assert_allclose(scaled.quantiles(batch_unit * LARGE, INTERVAL), unit * plain, rtol=1e-6)


def test_intervals_widen_with_distance_and_with_the_spread_of_runs() -> None:
    fitted = fit_batch_scaling(SMALL, by_law(SMALL, 8000.0), [0.02] * 3)
    low, high = fitted.quantiles(np.array([1024.0, 2048.0, 8192.0, 32768.0]), (0.05, 0.95))
    assert np.all(np.diff(np.log(high / low)) > 0)
    wider = fitted.quantiles(LARGE, (0.05, 0.95), relative_sd=0.2)
    narrow = fitted.quantiles(LARGE, (0.05, 0.95))
    assert np.all(wider[1] / wider[0] > narrow[1] / narrow[0])


def test_intervals_cover_what_the_priors_themselves_would_bring() -> None:
    rng = np.random.default_rng(0)
    batches = np.concatenate([SMALL, LARGE])
    inside = []
    for _ in range(120):
        critical = SMALL[-1] * math.exp(rng.normal(PRIORS.log_critical, PRIORS.log_critical_sd))
        steepness = rng.normal(PRIORS.steepness, PRIORS.steepness_sd)
        smooth = PRIORS.residual.covariance(np.log(batches)[:, None], np.log(batches)[:, None])
        left = rng.multivariate_normal(np.zeros(5), smooth + PRIORS.own_sd**2 * np.eye(5))
        log_samples = steepness * np.log1p(batches / critical) + left
        low, high = fit_batch_scaling(SMALL, np.exp(log_samples[:3]), [0.0] * 3).quantiles(
            LARGE, (0.05, 0.95)
        )
        inside += list((low < np.exp(log_samples[3:])) & (np.exp(log_samples[3:]) < high))
    assert 0.84 < np.mean(inside) < 0.96


def test_quantiles_of_equal_weights_are_plain_ones() -> None:
    values = np.arange(1001.0)[::-1]
    found = weighted_quantiles(values, np.full(1001, 1 / 1001), (0.1, 0.5, 0.9))
    np.testing.assert_allclose(found, [100.0, 500.0, 900.0], atol=1.0)


@pytest.mark.parametrize("batches", [[], [128.0, 64.0], [64.0, 64.0]])
def test_batches_that_do_not_rise_are_refused(batches: list[float]) -> None:
    with pytest.raises(ValueError, match="batch_sizes must rise"):
        fit_batch_scaling(batches, [1.0] * len(batches), [0.0] * len(batches))
