"""Slopes: the mixture's posterior is that of Gaussian conditioning, and a wrong prior loses its weight."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.levels import examples
from tuner.analytic.slopes import (
    LENGTH_FACTORS,
    Design,
    Observations,
    SlopeModel,
    SlopePrior,
    fit_slopes,
)

Array = npt.NDArray[np.float64]

#: Intercept, then two slopes; far wider than they are true below.
NEUTRAL = SlopePrior(name="neutral", mean=np.zeros(3), sd=np.array([5.0, 0.7, 0.7]))
TRUE = np.array([2.0, -0.6, 0.4])
RIGHT = SlopePrior(name="right", mean=np.array([0.0, -0.6, 0.4]), sd=np.array([5.0, 0.2, 0.2]))
REVERSED = SlopePrior(name="reversed", mean=np.array([0.0, 0.6, -0.4]), sd=np.array([5.0, 0.2, 0.2]))


def made_design(num: int, rng: np.random.Generator, spread: float = 1.0) -> Design:
    positions = spread * rng.standard_normal((num, 2))
    return Design(np.column_stack([np.ones(num), positions]), positions, np.array([1.0, 2.0]))


def observed(
    rows: Sequence[int], values: Sequence[float] | Array, noise: float = 0.05, common_sd: Array | None = None
) -> Observations:
    return Observations(
        rows=np.array(rows, dtype=np.intp),
        values=np.asarray(values, dtype=float),
        noise_sd=np.full(len(rows), noise),
        common_sd=np.zeros(len(rows)) if common_sd is None else common_sd,
    )


def fitted(
    design: Design,
    seen: Observations,
    priors: Sequence[SlopePrior] = (NEUTRAL,),
    residual_sds: Sequence[float] = (0.3,),
    own_sd: float = 0.1,
) -> SlopeModel:
    return fit_slopes(design, priors, seen, residual_sds=residual_sds, own_sd=own_sd)


def conditional(
    design: Design,
    prior: SlopePrior,
    seen: Observations,
    *,
    sd: float,
    factor: float,
    own_sd: float,
) -> tuple[Array, Array, float]:
    """Mean and covariance of (y, slopes, c) given what was seen, by the book, and the log evidence."""
    num, num_columns = design.columns.shape
    whole = np.zeros((num + num_columns + 1, num + num_columns + 1))
    slopes = slice(num, num + num_columns)
    within = np.diag(prior.sd**2)
    whole[:num, :num] = design.columns @ within @ design.columns.T
    whole[:num, :num] += sd**2 * design.kernel(factor) + own_sd**2 * np.eye(num)
    whole[:num, slopes] = design.columns @ within
    whole[slopes, :num] = whole[:num, slopes].T
    whole[slopes, slopes] = within
    whole[-1, -1] = 1.0
    mean = np.concatenate([design.columns @ prior.mean, prior.mean, [0.0]])
    probe = np.zeros((len(seen.rows), len(mean)))
    probe[np.arange(len(seen.rows)), seen.rows] = 1.0
    probe[:, -1] = seen.common_sd
    covariance = probe @ whole @ probe.T + np.diag(seen.noise_sd**2)
    gain = whole @ probe.T @ np.linalg.inv(covariance)
    misfit = seen.values - probe @ mean
    evidence = -0.5 * misfit @ np.linalg.solve(covariance, misfit) - 0.5 * np.linalg.slogdet(covariance)[1]
    return mean + gain @ misfit, whole - gain @ probe @ whole, float(evidence)


def by_hand(
    design: Design,
    priors: Sequence[SlopePrior],
    seen: Observations,
    sds: Sequence[float],
    own_sd: float,
) -> tuple[Array, Array]:
    """Mean and covariance of (y, slopes, c) of the whole mixture."""
    parts = [
        conditional(design, prior, seen, sd=sd, factor=factor, own_sd=own_sd)
        for prior in priors
        for factor in LENGTH_FACTORS
        for sd in sds
    ]
    evidence = np.array([part[2] for part in parts])
    weights = np.exp(evidence - evidence.max())
    weights[weights < 0.02 * weights.sum()] = 0.0
    weights /= weights.sum()
    mean = np.asarray(sum(w * part[0] for w, part in zip(weights, parts, strict=True)))
    spread = [
        w * (part[1] + np.outer(part[0] - mean, part[0] - mean))
        for w, part in zip(weights, parts, strict=True)
    ]
    return mean, np.asarray(np.sum(spread, axis=0))


@examples(40)
@given(
    seed=st.integers(0, 10_000),
    num_seen=st.integers(0, 7),
    residual=st.sampled_from([(0.0,), (0.4,), (0.1, 0.8)]),
    own_sd=st.floats(0.0, 0.3),
    num_priors=st.integers(1, 3),
)
def test_the_posterior_is_that_of_gaussian_conditioning(
    seed: int, num_seen: int, residual: tuple[float, ...], own_sd: float, num_priors: int
) -> None:
    rng = np.random.default_rng(seed)
    design, priors = made_design(6, rng), (NEUTRAL, RIGHT, REVERSED)[:num_priors]
    rows = rng.integers(6, size=num_seen)
    common_sd = np.where(rng.random(num_seen) < 0.5, 0.0, rng.uniform(0.02, 1.0, num_seen))
    seen = observed(list(rows), rng.standard_normal(num_seen), noise=0.2, common_sd=common_sd)
    model = fitted(design, seen, priors, residual, own_sd)
    mean, covariance = by_hand(design, priors, seen, residual, own_sd)
    np.testing.assert_allclose(model.mean, mean[:6], atol=1e-7)
    np.testing.assert_allclose(model.variance, np.diag(covariance)[:6], atol=2e-8, rtol=1e-7)
    np.testing.assert_allclose(model.slopes, mean[6:-1], atol=1e-7)
    np.testing.assert_allclose(model.slopes_sd, np.sqrt(np.diag(covariance)[6:-1]), atol=1e-6)


@examples(30)
@given(seed=st.integers(0, 10_000), num_seen=st.integers(0, 12))
def test_variances_are_positive_and_weights_of_priors_sum_to_one(seed: int, num_seen: int) -> None:
    rng = np.random.default_rng(seed)
    design = made_design(8, rng)
    seen = observed(list(rng.integers(8, size=num_seen)), rng.standard_normal(num_seen))
    model = fitted(design, seen, (NEUTRAL, RIGHT), (0.1, 0.5))
    assert (model.variance > 0).all()
    assert sum(model.weights.values()) == pytest.approx(1.0)


@examples(30)
@given(seed=st.integers(0, 10_000))
def test_neither_the_order_of_observations_nor_that_of_priors_matters(seed: int) -> None:
    rng = np.random.default_rng(seed)
    design, rows, values = made_design(8, rng), rng.integers(8, size=6), rng.standard_normal(6)
    order = rng.permutation(6)
    one = fitted(design, observed(list(rows), values), (NEUTRAL, RIGHT))
    other = fitted(design, observed(list(rows[order]), values[order]), (RIGHT, NEUTRAL))
    np.testing.assert_allclose(one.mean, other.mean, atol=1e-8)
    np.testing.assert_allclose(one.variance, other.variance, atol=1e-8)


@examples(30)
@given(seed=st.integers(0, 10_000))
def test_one_more_observation_makes_no_candidate_less_sure(seed: int) -> None:
    rng = np.random.default_rng(seed)
    design, rows = made_design(8, rng), list(rng.integers(8, size=5))
    # Without a residual, and so as a single component: a mixture may well be surprised.
    fewer, more = (fitted(design, observed(rows[:n], np.zeros(n)), residual_sds=(0.0,)) for n in (4, 5))
    assert (more.variance <= fewer.variance + 1e-9).all()


def test_no_data_give_the_mean_and_variance_of_the_prior() -> None:
    design = made_design(7, np.random.default_rng(0))
    prior = SlopePrior(name="neutral", mean=np.array([3.0, -0.2, 0.1]), sd=np.array([5.0, 0.7, 0.5]))
    model = fitted(design, observed([], []), (prior,), residual_sds=(0.3,), own_sd=0.1)
    np.testing.assert_allclose(model.mean, design.columns @ prior.mean)
    np.testing.assert_allclose(model.variance, design.columns**2 @ prior.sd**2 + 0.3**2 + 0.1**2)
    np.testing.assert_allclose(model.slopes, prior.mean)
    np.testing.assert_allclose(model.slopes_sd, prior.sd)
    assert model.weights == pytest.approx({"neutral": 1.0})


def test_priors_weigh_alike_until_something_is_seen() -> None:
    design = made_design(7, np.random.default_rng(0))
    model = fitted(design, observed([], []), (NEUTRAL, RIGHT, REVERSED))
    assert list(model.weights.values()) == pytest.approx([1 / 3] * 3)


def test_a_reversed_prior_loses_its_weight_after_a_few_observations() -> None:
    weights = []
    for num_seen in (0, 3, 6, 10):
        found = []
        for seed in range(20):
            rng = np.random.default_rng(seed)
            design = made_design(12, rng)
            values = (design.columns @ TRUE + 0.1 * rng.standard_normal(12))[:num_seen]
            model = fitted(design, observed(range(num_seen), values), (NEUTRAL, REVERSED))
            found.append(model.weights.get("reversed", 0.0))
        weights.append(float(np.mean(found)))
    assert weights == sorted(weights, reverse=True)
    assert weights[0] == pytest.approx(0.5)
    assert weights[2] < 0.15
    assert weights[3] < 0.02


def test_a_reversed_prior_beside_the_neutral_one_hardly_harms_what_is_learnt() -> None:
    rng = np.random.default_rng(5)
    design = made_design(30, rng)
    values = (design.columns @ TRUE)[:10] + 0.1 * rng.standard_normal(10)
    alone = fitted(design, observed(range(10), values), (NEUTRAL,))
    concurrently = fitted(design, observed(range(10), values), (NEUTRAL, REVERSED))
    np.testing.assert_allclose(concurrently.mean, alone.mean, atol=0.05)


def test_known_slopes_are_recovered_as_surely_as_stated() -> None:
    scores = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        design = made_design(25, rng)
        truth = rng.normal([0.0, 0.0, 0.0], [2.0, 0.7, 0.7])
        y = design.columns @ truth + 0.3 * np.linalg.cholesky(design.kernel(1.0) + 1e-9 * np.eye(25)) @ (
            rng.standard_normal(25)
        )
        y += 0.1 * rng.standard_normal(25)
        model = fitted(design, observed(range(15), y[:15] + 0.05 * rng.standard_normal(15)))
        scores += list((model.slopes[1:] - truth[1:]) / model.slopes_sd[1:])
        scores += list((model.mean - y)[15:] / np.sqrt(model.variance[15:]))
    # 90% of a normal, with a margin for scores that hang together within a seed.
    assert 0.84 < np.mean(np.abs(scores) < 1.645) < 0.96


def test_a_slope_is_extrapolated_beyond_what_was_seen_less_surely_than_within() -> None:
    x = np.linspace(0.0, 6.0, 25)
    design = Design(np.column_stack([np.ones(25), x]), x[:, None], np.array([1.0]))
    prior = SlopePrior(name="neutral", mean=np.zeros(2), sd=np.array([5.0, 0.7]))
    rows = [i for i in range(25) if x[i] <= 3.0]
    values = 1.0 - 0.5 * x[rows] + 0.02 * np.random.default_rng(0).standard_normal(len(rows))
    model = fitted(design, observed(rows, values), (prior,))
    np.testing.assert_array_less(np.abs(model.mean - (1.0 - 0.5 * x)), 2 * np.sqrt(model.variance))
    assert model.mean[-1] == pytest.approx(-2.0, abs=0.5)
    beyond = model.variance[max(rows) :]
    assert list(beyond) == sorted(beyond)
    assert beyond[-1] > 4 * model.variance[: max(rows)].max()


def unfinished(common: float, num_arrived: int, num_ahead: int) -> tuple[Design, Observations, Array]:
    """Observations, the unfinished ones of which err alike, each by its own scale; and the truth."""
    rng = np.random.default_rng(4)
    num = num_arrived + num_ahead
    design = made_design(num, rng)
    truth = design.columns @ TRUE + 0.05 * rng.standard_normal(num)
    scale = np.concatenate([np.zeros(num_arrived), rng.uniform(0.1, 0.6, num_ahead)])
    return design, observed(range(num), truth + common * scale, common_sd=scale), truth


@pytest.mark.parametrize("common", [-2.0, 0.0, 1.5])
def test_what_all_unfinished_observations_err_by_is_recognised_once_some_arrived(common: float) -> None:
    design, seen, truth = unfinished(common, 8, 12)
    reported = fitted(design, seen, residual_sds=(0.15,))
    assert np.abs(reported.mean - truth).mean() < 0.15
    blind = fitted(design, observed(seen.rows, seen.values), residual_sds=(0.15,))
    if common:
        assert np.abs(reported.mean - truth).mean() < 0.5 * np.abs(blind.mean - truth).mean()


def test_an_error_in_common_is_not_distinguished_from_the_level_where_all_are_as_far_ahead() -> None:
    design, seen, _ = unfinished(0.0, 0, 10)
    seen = observed(range(10), seen.values + 0.5, common_sd=np.full(10, 0.4))
    model = fitted(design, seen, residual_sds=(0.15,))
    # The level of everything is far less sure beforehand, and takes nearly all of it.
    assert np.abs(model.mean - seen.values).mean() < 0.15


def test_two_probes_at_one_candidate_share_what_it_has_of_its_own() -> None:
    design = made_design(4, np.random.default_rng(1))
    one = fitted(design, observed([0], [1.0], noise=1e-4), own_sd=0.5)
    two = fitted(design, observed([0, 0], [1.0, 1.0], noise=1e-4), own_sd=0.5)
    np.testing.assert_allclose(two.mean, one.mean, atol=1e-5)
    assert two.mean[0] == pytest.approx(1.0, abs=1e-5)
    assert math.sqrt(two.variance[0]) < 1e-3


def test_a_kernel_falls_with_distance_and_is_made_once() -> None:
    design = Design(np.ones((3, 1)), np.array([[0.0], [1.0], [3.0]]), np.array([2.0]))
    kernel = design.kernel(1.0)
    np.testing.assert_allclose(kernel[0], np.exp(-0.5 * np.array([0.0, 0.5, 1.5]) ** 2))
    assert (design.kernel(2.0) >= kernel).all()
    assert design.kernel(1.0) is kernel


def test_draws_have_the_mean_and_variance_of_the_posterior() -> None:
    rng = np.random.default_rng(4)
    design = made_design(12, rng)
    seen = observed([0, 3, 7], design.columns[[0, 3, 7]] @ TRUE)
    model = fitted(design, seen, (NEUTRAL, RIGHT), residual_sds=(0.2, 0.5))
    draws = np.concatenate([model.draws(rng) for _ in range(32)])
    np.testing.assert_allclose(draws.mean(axis=0), model.mean, atol=0.04)
    np.testing.assert_allclose(draws.var(axis=0), model.variance, rtol=0.1)


def test_draws_are_joint_so_that_neighbours_are_late_together() -> None:
    rng = np.random.default_rng(1)
    positions = np.array([[0.0, 0.0], [0.05, 0.0], [9.0, 9.0]])
    design = Design(np.ones((3, 1)), positions, np.ones(2))
    flat = SlopePrior(name="flat", mean=np.zeros(1), sd=np.array([1e-3]))
    model = fitted(design, observed([], []), (flat,), residual_sds=(1.0,), own_sd=0.01)
    correlation = np.corrcoef(model.draws(rng).T)
    assert correlation[0, 1] > 0.95
    assert abs(correlation[0, 2]) < 0.2


def test_left_out_densities_are_those_of_fits_without_the_observation() -> None:
    rng = np.random.default_rng(2)
    design = made_design(9, rng)
    rows = [1, 4, 6, 8]
    values = design.columns[rows] @ TRUE + 0.2 * rng.standard_normal(4)
    # Without a residual the components are the same.
    found = fitted(design, observed(rows, values), residual_sds=(1e-6,)).left_out_log_densities()
    for place, row in enumerate(rows):
        remaining = [i for i in range(4) if i != place]
        others = observed([rows[i] for i in remaining], values[remaining])
        without = fitted(design, others, residual_sds=(1e-6,))
        # What is predicted is the value as it would be observed, with its noise.
        variance = without.variance[row] + 0.05**2
        misfit = values[place] - without.mean[row]
        expected = -0.5 * (misfit**2 / variance + math.log(2 * math.pi * variance))
        assert found[place] == pytest.approx(expected, abs=1e-6)
