from __future__ import annotations

import numpy as np
import pytest

from tests.tuner.analytic.made_measurements import progress_at
from tuner.analytic.curves import RunCurve, extrapolation_error, fit_curves
from tuner.analytic.draws import spread_normals

NORMALS = spread_normals(256, 5)


def curve(
    samples_to_target: float, share: float, *, noise: float = 0.0, seed: int = 0, num_points: int = 18
) -> RunCurve:
    samples = np.geomspace(0.02 * samples_to_target, share * samples_to_target, num_points)
    progress = progress_at(samples, samples_to_target)
    progress = progress + noise * np.random.default_rng(seed).standard_normal(num_points)
    return RunCurve(samples=samples, progress=progress)


def test_half_a_clean_curve_tells_where_it_crosses() -> None:
    fitted = fit_curves([curve(30_000.0, 0.5)])
    draws = fitted.log_samples_to_level(0, 1.0, NORMALS)
    assert fitted.converged
    assert np.median(draws) == pytest.approx(np.log(30_000.0), abs=0.15)


@pytest.mark.parametrize("seed", range(5))
def test_half_a_noisy_curve_tells_where_it_crosses_within_its_own_spread(seed: int) -> None:
    fitted = fit_curves([curve(30_000.0, 0.5, noise=0.015, seed=seed)])
    draws = fitted.log_samples_to_level(0, 1.0, NORMALS)
    lower, upper = np.quantile(draws, [0.05, 0.9])
    assert lower < np.log(30_000.0) < upper
    assert fitted.noise == pytest.approx(0.015, rel=0.6)


def test_an_early_piece_leaves_the_crossing_wider_open_than_a_late_one() -> None:
    spreads = []
    for share in (0.15, 0.4, 0.9):
        draws = fit_curves([curve(30_000.0, share, noise=0.008)]).log_samples_to_level(0, 1.0, NORMALS)
        lower, upper = np.quantile(draws[np.isfinite(draws)], [0.16, 0.84])
        spreads.append(upper - lower)
    assert spreads[0] > spreads[1] > spreads[2]


def test_a_finished_run_s_shape_narrows_an_unfinished_one() -> None:
    early = curve(60_000.0, 0.15, noise=0.008, seed=1)
    alone = fit_curves([early]).log_samples_to_level(0, 1.0, NORMALS)
    beside = fit_curves([early, curve(20_000.0, 1.1, noise=0.008, seed=2)])
    together = beside.log_samples_to_level(0, 1.0, NORMALS)

    def spread(draws: np.ndarray) -> float:
        lower, upper = np.quantile(draws, [0.16, 0.84], method="nearest")
        return float(upper - lower)

    assert spread(together) < 0.8 * spread(alone)
    assert np.median(together) == pytest.approx(np.log(60_000.0), abs=0.35)


def test_speeds_of_several_runs_are_told_apart() -> None:
    truths = [10_000.0, 25_000.0, 80_000.0]
    fitted = fit_curves([curve(t, 0.5, noise=0.008, seed=i) for i, t in enumerate(truths)])
    found = [np.median(fitted.log_samples_to_level(i, 1.0, NORMALS)) for i in range(3)]
    np.testing.assert_allclose(found, np.log(truths), atol=0.25)


def test_a_curve_that_flattens_below_the_target_may_never_reach_it() -> None:
    samples = np.geomspace(300.0, 300_000.0, 24)
    flat = 0.8 * (1.0 - (1.0 + samples / 2_000.0) ** -2.0)
    draws = fit_curves([RunCurve(samples=samples, progress=flat)]).log_samples_to_level(0, 1.0, NORMALS)
    assert np.isinf(draws).mean() > 0.8


def test_a_level_above_the_height_is_never_met() -> None:
    fitted = fit_curves([curve(30_000.0, 0.9)])
    assert np.all(np.isinf(fitted.log_samples_to_level(0, 3.0, NORMALS)))


def test_a_lower_level_is_met_earlier_in_every_draw() -> None:
    fitted = fit_curves([curve(30_000.0, 0.5, noise=0.008)])
    half, whole = (fitted.log_samples_to_level(0, level, NORMALS) for level in (0.5, 1.0))
    assert np.all(half < whole)
    assert np.median(half) == pytest.approx(np.log(curve_meets(0.5)), abs=0.1)


def curve_meets(level: float) -> float:
    samples = np.geomspace(100.0, 30_000.0, 4000)
    return float(samples[np.argmax(progress_at(samples, 30_000.0) >= level)])


def test_a_spike_does_not_bend_the_curve() -> None:
    clean = curve(30_000.0, 0.5, noise=0.004)
    spiked = clean.progress.copy()
    spiked[9] -= 0.5
    found = fit_curves([RunCurve(samples=clean.samples, progress=spiked)])
    draws = found.log_samples_to_level(0, 1.0, NORMALS)
    # The spike is a hundred times the noise; least squares would be off by far more.
    assert np.median(draws) == pytest.approx(np.log(30_000.0), abs=0.4)


def test_the_unit_of_samples_does_not_matter() -> None:
    ones = fit_curves([curve(30_000.0, 0.5)]).log_samples_to_level(0, 1.0, NORMALS)
    thousands = fit_curves([curve(30.0, 0.5)]).log_samples_to_level(0, 1.0, NORMALS)
    np.testing.assert_allclose(thousands + np.log(1000.0), ones, atol=1e-6)


def test_one_scoring_is_enough_to_say_something() -> None:
    fitted = fit_curves([RunCurve(samples=np.array([2_000.0]), progress=np.array([0.4]))])
    draws = fitted.log_samples_to_level(0, 1.0, NORMALS)
    finite = draws[np.isfinite(draws)]
    assert len(finite) > 200
    assert np.median(finite) > np.log(2_000.0)


def test_without_runs_that_saw_enough_the_extrapolation_error_is_the_prior() -> None:
    assert extrapolation_error([curve(30_000.0, 0.5, num_points=3)]) == pytest.approx(0.2)


def test_curves_of_the_assumed_form_make_extrapolation_trusted() -> None:
    clean = [curve(t, 0.9, noise=0.002, seed=i) for i, t in enumerate((1e4, 3e4, 9e4, 2e5))]
    assert extrapolation_error(clean) < 0.17


def test_curves_that_break_the_form_make_extrapolation_distrusted() -> None:
    samples = np.geomspace(600.0, 60_000.0, 24)
    # A quick rise, a long plateau, and then a second rise that no early piece could tell.
    late = 0.35 * (1 - np.exp(-samples / 800.0)) + 0.6 / (1 + (40_000.0 / samples) ** 6)
    told = [RunCurve(samples=samples * f, progress=late) for f in (1.0, 1.5, 2.0)]
    clean = [curve(t, 0.9, noise=0.002, seed=i) for i, t in enumerate((1e4, 3e4, 9e4))]
    assert extrapolation_error(told) > 1.5 * extrapolation_error(clean)
