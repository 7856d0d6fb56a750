"""Time to target from slopes: what lives arrives later than now, and what never arrives stays infinite."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.levels import examples
from tests.tuner.analytic.made_predictors import predictor
from tuner.analytic.slope_predictor import SlopeFit, regret_bound
from tuner.analytic.slopes import Design, Observations, SlopePrior, fit_slopes
from tuner.search.prospects import prospects_of_slopes

means = st.lists(st.floats(-2.0, 8.0), min_size=1, max_size=5)


@examples(40)
@given(mean=means, sd=st.floats(0.01, 3.0), elapsed=st.floats(0.1, 1e5))
def test_a_run_that_lives_is_predicted_to_arrive_later_than_now(
    mean: list[float], sd: float, elapsed: float
) -> None:
    found = predictor(mean, [sd] * len(mean), elapsed={0: elapsed})
    assert prospects_of_slopes(found).mean_log[0] > math.log(elapsed)
    np.testing.assert_allclose(found.weights.sum(axis=1), 1.0)
    assert (found.weights >= 0).all()
    assert (prospects_of_slopes(found).variance_log >= 0).all()
    forecast = found.forecast()
    assert (forecast.total[:, 0] > elapsed).all()


def test_what_was_not_started_is_the_sum_of_both_posteriors() -> None:
    found = predictor([2.0, 5.0], [0.5, 1.0], seconds_mean=-3.0)
    np.testing.assert_allclose(prospects_of_slopes(found).mean_log, [2.0, 5.0], atol=1e-9)
    # Middles of equally probable parts lack a little of the tails.
    np.testing.assert_allclose(np.sqrt(prospects_of_slopes(found).variance_log), [0.5, 1.0], rtol=0.03)
    forecast = found.forecast()
    median = np.log(np.median(forecast.total, axis=0))
    np.testing.assert_allclose(median, [2.0, 5.0], atol=0.1)
    np.testing.assert_allclose(np.log(forecast.total).std(axis=0), [0.5, 1.0], rtol=0.1)
    np.testing.assert_allclose(np.log(forecast.seconds_per_sample), -3.0)
    np.testing.assert_allclose(forecast.samples, forecast.total / math.exp(-3.0))


def test_having_run_for_long_moves_what_is_expected_only_where_it_excludes_something() -> None:
    young, old = (predictor([5.0], [0.5], elapsed={0: seconds}) for seconds in (1.0, math.exp(5.3)))
    assert prospects_of_slopes(young).mean_log[0] == pytest.approx(5.0, abs=1e-9)
    assert prospects_of_slopes(old).mean_log[0] > 5.3
    assert prospects_of_slopes(old).variance_log[0] < prospects_of_slopes(young).variance_log[0]


def test_an_arrival_is_known() -> None:
    found = predictor([2.0, 2.0], [1.0, 1.0], arrived={1: 50.0})
    assert prospects_of_slopes(found).mean_log[1] == pytest.approx(math.log(50.0), abs=1e-6)
    assert math.sqrt(prospects_of_slopes(found).variance_log[1]) < 1e-3
    forecast = found.forecast()
    np.testing.assert_allclose(forecast.total[:, 1], 50.0, rtol=1e-3)


def test_draws_of_a_run_that_ended_without_arriving_are_infinite() -> None:
    found = predictor([2.0, 2.0], [0.5, 0.5], elapsed={1: 3.0}, ended=[1])
    assert prospects_of_slopes(found).mean_log[1] == math.inf
    forecast = found.forecast()
    assert np.isfinite(forecast.total[:, 0]).all()
    assert np.isinf(forecast.total[:, 1]).all()
    assert forecast.probability_of_reaching().tolist() == [1.0, 0.0]


@given(elapsed=st.lists(st.floats(0.1, 1e5), min_size=2, max_size=5), chosen=st.sets(st.integers(0, 4)))
def test_draws_are_infinite_exactly_where_a_run_ended(elapsed: list[float], chosen: set[int]) -> None:
    num, ended = len(elapsed), [i for i in chosen if i < len(elapsed)]
    started = dict(enumerate(elapsed))
    found = predictor([2.0] * num, [0.5] * num, elapsed=started, ended=ended).forecast()
    alive = predictor([2.0] * num, [0.5] * num, elapsed=started).forecast()
    assert np.isfinite(alive.total).all()
    gone = np.isin(np.arange(num), ended)
    np.testing.assert_array_equal(found.total, np.where(gone, np.inf, alive.total))


def test_candidates_that_are_believed_alike_are_drawn_alike_but_apart() -> None:
    total = np.log(predictor([3.0] * 6, [0.7] * 6).forecast().total)
    np.testing.assert_allclose(np.sort(total, axis=0), np.sort(total[:, :1], axis=0) + np.zeros(6))
    correlation = np.corrcoef(total.T)
    # Rotations of one even set hang together a little.
    assert np.abs(correlation[~np.eye(6, dtype=bool)]).max() < 0.4


@examples(40)
@given(mean=means, sd=st.floats(0.0, 2.0), price=st.floats(0.1, 100.0), choice=st.integers(0, 4))
def test_nothing_is_cheaper_than_the_bound_says_and_what_a_second_costs_cancels(
    mean: list[float], sd: float, price: float, choice: int
) -> None:
    found, choice = predictor(mean, [sd] * len(mean)).forecast(), choice % len(mean)
    low, high = (regret_bound(found, np.ones(len(mean)), choice, level) for level in (0.5, 0.9))
    assert 1.0 <= low <= high
    assert regret_bound(found, np.full(len(mean), price), choice) == pytest.approx(high)
    if len(mean) == 1:
        assert high == 1.0


def test_a_bound_shows_how_much_less_the_best_costs() -> None:
    found = predictor(
        [math.log(30.0), math.log(10.0), 1.0], [1e-6] * 3, elapsed={2: 1.0}, ended=[2]
    ).forecast()
    assert regret_bound(found, np.ones(3), 0) == pytest.approx(3.0, rel=1e-3)
    assert regret_bound(found, np.array([1.0, 2.0, 1.0]), 0) == pytest.approx(1.5, rel=1e-3)
    assert regret_bound(found, np.ones(3), 1) == pytest.approx(1.0, rel=1e-3)
    unsure = predictor([math.log(10.0), math.log(20.0)], [1e-6, 1.0]).forecast()
    # With 90% probability: log 20 less 1.28 standard deviations.
    assert regret_bound(unsure, np.ones(2), 0) == pytest.approx(math.exp(1.2816 - math.log(2.0)), rel=0.1)
    # What ended without arriving costs more than anything.
    assert regret_bound(found, np.ones(3), 2) == math.inf


def test_a_fit_says_in_words_what_it_learnt_and_what_it_left_as_assumed() -> None:
    rng = np.random.default_rng(0)
    columns = np.column_stack([np.ones(12), rng.standard_normal(12), np.zeros(12)])
    columns[11, 2] = 1.0
    design = Design(columns, columns[:, 1:], np.ones(2))
    priors = [
        SlopePrior(name="neutral", mean=np.zeros(3), sd=np.array([5.0, 0.7, 0.7])),
        SlopePrior(name="reversed", mean=np.array([0.0, 0.6, 0.0]), sd=np.array([5.0, 0.1, 0.7])),
    ]
    seen = Observations(
        rows=np.arange(11),
        values=2.0 - 0.6 * columns[:11, 1],
        noise_sd=np.full(11, 0.03),
        common_sd=np.zeros(11),
    )
    model = fit_slopes(design, priors, seen, residual_sds=(0.1,), own_sd=0.05)
    fit = SlopeFit(
        quantity="seconds a sample", names=("intercept", "log nodes", "optimizer=adam"), model=model
    )
    assert fit.at_prior() == ["optimizer=adam"]
    reported = fit.summary()
    assert "log seconds a sample" in reported[0]
    assert "log nodes -0.6" in reported[0]
    assert any("neutral 100%" in line for line in reported)
    assert "optimizer=adam" in reported[-1]
    assert fit.parameters()["log nodes"] == pytest.approx((model.slopes[1], model.slopes_sd[1]))
    assert fit.parameters()["log nodes"][0] == pytest.approx(-0.6, abs=0.15)
    assert fit.findings() == {"at_prior": ["optimizer=adam"], "sentences": reported}
    assert fit.between_moments_sd == 0.05


def test_nothing_arrives_before_its_next_score() -> None:
    found = predictor([1.0, 1.0], [0.5, 0.5], earliest={0: 50.0}, elapsed={0: 40.0})
    forecast = found.forecast()
    assert forecast.total[:, 0].min() >= 49.9
    assert forecast.total[:, 1].max() < 49.9
    assert prospects_of_slopes(found).mean_log[0] >= math.log(50.0) - 1e-3


def test_a_run_that_may_never_arrive_has_as_many_infinite_draws() -> None:
    found = predictor(
        [1.0, 1.0, 1.0], [0.5, 0.5, 0.5], never={0: 0.75}, never_of_others=0.25, arrived={2: 2.0}
    )
    reach = found.forecast().probability_of_reaching()
    assert reach[:2] == pytest.approx([0.25, 0.75], abs=0.01)
    # Only what sets it apart from the others counts against it.
    assert found.status.likely[:2] == pytest.approx([0.5, 1.0])
