from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tuner.analytic.made_measurements import configuration, rate_prior, run
from tuner.analytic.noise_growth import (
    UNKNOWNS,
    log_measured_scale,
    noise_places,
    progress_of_share,
)
from tuner.analytic.rate_edge import RunEvidence
from tuner.analytic.samples_model import SamplesModel, fit_samples
from tuner.domain.measurement import NoiseStatistic

LOG_SCALE, LOG_SAMPLES = math.log(300.0), math.log(20_000.0)
#: No noise of the run's own, and what is measured is what counts.
PLAIN = (-30.0, 0.0)

growths = st.floats(0.0, 0.9)
batches = st.floats(1.0, 1e5)


def statistic(samples: float, scale: float, num_estimates: int = 50) -> NoiseStatistic:
    return NoiseStatistic(
        samples=int(samples), noise=scale, squared_gradient=1.0, num_estimates=num_estimates
    )


def reported(
    batch: int, growth: float, *, share: float = 0.5, seed: int = 0, spread: float = 0.2
) -> RunEvidence:
    """A run at its best rate under a noise scale that grows so, with noise measured all along."""
    rng = np.random.default_rng(seed)
    truth = math.exp(LOG_SAMPLES) * (1 + batch / math.exp(LOG_SCALE))
    what = configuration(1, batch, 0.4 / (1 + math.exp(LOG_SCALE) / batch))
    started = run(what, truth, share=share, seed=seed)
    scales = log_measured_scale(
        np.full(len(started.samples), math.log(batch)), started.samples / truth, LOG_SCALE, (growth, *PLAIN)
    )
    scales = scales + spread * rng.standard_normal(len(scales))
    statistics = (statistic(s, math.exp(n)) for s, n in zip(started.samples, scales, strict=True))
    return replace(started, noise=tuple(statistics))


def believed(model: SamplesModel, name: str) -> tuple[float, float]:
    return model.parameters()[name]


@given(growths)
def test_the_scale_of_the_whole_run_is_the_harmonic_mean_along_it(growth: float) -> None:
    middles = (np.arange(200_000) + 0.5) / 200_000
    # A very small batch without noise of its own measures N(u), and has seen the share u of its samples.
    nothing = np.full(len(middles), -50.0)
    along = np.exp(log_measured_scale(nothing, middles, LOG_SCALE, (min(growth, 0.6), -100.0, 0.0)))
    assert 1.0 / np.mean(1.0 / along) == pytest.approx(math.exp(LOG_SCALE), rel=0.01)


@given(batches, st.floats(0.01, 1.0))
def test_without_growth_there_is_one_scale_and_progress_is_the_share_of_samples(
    batch: float, share: float
) -> None:
    np.testing.assert_allclose(progress_of_share(np.array([share]), np.array([batch]), 0.0), share, rtol=0.02)
    found = log_measured_scale(np.array([math.log(batch)]), np.array([share]), LOG_SCALE, (0.0, *PLAIN))
    np.testing.assert_allclose(found, LOG_SCALE)


@given(growths, st.floats(0.0, 1e3))
def test_progress_solves_the_integral_of_samples(growth: float, relative_batch: float) -> None:
    shares = np.array([0.05, 0.3, 0.8, 1.0])
    u = progress_of_share(shares, np.full(4, relative_batch), growth)
    inside = u > 1.1e-6
    seen = (u + relative_batch * u ** (1 - growth)) / (1 + relative_batch)
    np.testing.assert_allclose(seen[inside], shares[inside], rtol=0.02)
    assert u[-1] == 1.0


@given(growths, batches)
def test_a_run_measures_more_noise_the_further_it_is(growth: float, batch: float) -> None:
    shares = np.geomspace(0.01, 1.0, 20)
    found = log_measured_scale(np.full(20, math.log(batch)), shares, LOG_SCALE, (growth, math.log(0.2), 0.3))
    assert np.all(np.diff(found) >= -1e-9)


@given(batches)
def test_a_run_s_own_noise_hides_the_scale_of_small_batches(batch: float) -> None:
    log_batch = np.array([math.log(batch)])
    share = np.array([0.5])
    plain, own = (
        log_measured_scale(log_batch, share, LOG_SCALE, (0.5, log_own, 0.0)) for log_own in (-30.0, 0.0)
    )
    assert own[0] < plain[0]
    assert own[0] <= math.log(batch)


def test_places_are_distinguished_and_averaged_within() -> None:
    early = [statistic(s, 10.0) for s in (900, 1_000)]
    late = [statistic(s, n) for s, n in ((40_000, 100.0), (50_000, 300.0))]
    first, second = noise_places([*early, *late])
    assert first.log_scale == pytest.approx(math.log(10.0))
    assert second.log_scale == pytest.approx(math.log(200.0))
    assert first.log_samples < math.log(1_000) < math.log(40_000) < second.log_samples < math.log(50_000)


def test_a_place_is_known_the_better_the_more_gradients_were_measured() -> None:
    few, many = (noise_places([statistic(1_000, 10.0, n)])[0].sd for n in (1, 100))
    assert few > 2 * many > 0


def test_a_place_lost_in_noise_shows_nothing() -> None:
    lost = NoiseStatistic(samples=1_000, noise=100.0, squared_gradient=-1.0, num_estimates=9)
    assert noise_places([lost]) == []
    assert len(noise_places([lost, statistic(50_000, 10.0)])) == 1
    assert noise_places([]) == []


@pytest.mark.parametrize("growth", [0.0, 0.4, 0.7])
def test_scale_and_growth_are_recovered_from_statistics_along_runs(growth: float) -> None:
    found = [reported(b, growth, seed=b) for b in (16, 64, 256)]
    model = fit_samples(found, rate_prior())
    mean, sd = believed(model, "log noise scale")
    assert abs(mean - LOG_SCALE) < 2 * sd < 1.5
    mean, sd = believed(model, UNKNOWNS[0].name)
    assert mean == pytest.approx(growth, abs=0.25)
    assert sd < 0.9 * UNKNOWNS[0].sd
    assert any("grows during a run" in line for line in model.summary())


@pytest.mark.parametrize("growth", [0.0, 0.6])
def test_large_batches_are_predicted_from_the_beginning_of_small_ones(growth: float) -> None:
    """Statistics of a tenth of the run understate the whole run's scale; the law knows by how much."""
    asked = configuration(1, 2048, 0.4 / (1 + math.exp(LOG_SCALE) / 2048))
    model = fit_samples([reported(b, growth, share=0.1, seed=b) for b in (16, 32)], rate_prior())
    [mean], [[variance]] = model.log_samples([asked])
    truth = LOG_SAMPLES + math.log1p(2048 / math.exp(LOG_SCALE))
    common = float(model.arrivals.common.std())
    assert abs(mean - truth) < 2 * math.sqrt(variance + common**2)


def test_runs_without_statistics_have_one_scale_and_nothing_new_to_learn() -> None:
    plain = [replace(reported(b, 0.5, seed=b), noise=()) for b in (16, 64)]
    model = fit_samples(plain, rate_prior())
    assert len(model.posterior.parts[0].inputs) == 2
    assert not {unknown.name for unknown in UNKNOWNS} & set(model.parameters())


def test_noise_of_a_run_that_reports_no_samples_is_passed_over() -> None:
    broken = replace(reported(64, 0.5), diverged=True)
    good = replace(reported(16, 0.5), noise=())
    assert len(fit_samples([good, broken], rate_prior()).posterior.parts[0].inputs) == 1
