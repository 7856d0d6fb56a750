"""Time to target: what lives arrives later than now, and what never arrives stays infinite."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.levels import examples
from tests.tuner.analytic.made_predictors import made_forecast, made_prospects
from tuner.search.prospects import regret_bound

means = st.lists(st.floats(-2.0, 8.0), min_size=1, max_size=5)


@examples(40)
@given(mean=means, sd=st.floats(0.01, 3.0), elapsed=st.floats(0.1, 1e5))
def test_a_run_that_lives_is_predicted_to_arrive_later_than_now(
    mean: list[float], sd: float, elapsed: float
) -> None:
    found = made_prospects(mean, [sd] * len(mean), elapsed={0: elapsed})
    assert found.mean_log[0] > math.log(elapsed)
    assert (found.variance_log >= 0).all()
    assert (made_forecast(mean, [sd] * len(mean), elapsed={0: elapsed}).total[:, 0] > elapsed).all()


def test_what_was_not_started_is_the_sum_of_both_posteriors() -> None:
    found = made_prospects([2.0, 5.0], [0.5, 1.0], seconds_mean=-3.0)
    np.testing.assert_allclose(found.mean_log, [2.0, 5.0], atol=0.02)
    # Middles of equally probable parts lack a little of the tails.
    np.testing.assert_allclose(np.sqrt(found.variance_log), [0.5, 1.0], rtol=0.03)
    forecast = made_forecast([2.0, 5.0], [0.5, 1.0], seconds_mean=-3.0)
    np.testing.assert_allclose(np.log(forecast.seconds_per_sample), -3.0)
    np.testing.assert_allclose(forecast.samples, forecast.total / math.exp(-3.0))


def test_having_run_for_long_moves_what_is_expected_only_where_it_excludes_something() -> None:
    young, old = (made_prospects([5.0], [0.5], elapsed={0: seconds}) for seconds in (1.0, math.exp(5.3)))
    assert young.mean_log[0] == pytest.approx(5.0, abs=0.01)
    assert old.mean_log[0] > 5.3
    assert old.variance_log[0] < young.variance_log[0]


def test_an_arrival_is_known() -> None:
    found = made_prospects([2.0, 2.0], [1.0, 1.0], arrived={1: 50.0})
    assert found.mean_log[1] == pytest.approx(math.log(50.0), abs=1e-6)
    assert math.sqrt(found.variance_log[1]) < 1e-3
    forecast = made_forecast([2.0, 2.0], [1.0, 1.0], arrived={1: 50.0})
    np.testing.assert_allclose(forecast.total[:, 1], 50.0, rtol=1e-3)


def test_draws_of_a_run_that_ended_without_arriving_are_infinite() -> None:
    found = made_prospects([2.0, 2.0], [0.5, 0.5], elapsed={1: 3.0}, ended=[1])
    assert found.mean_log[1] == math.inf
    forecast = made_forecast([2.0, 2.0], [0.5, 0.5], elapsed={1: 3.0}, ended=[1])
    assert np.isfinite(forecast.total[:, 0]).all()
    assert np.isinf(forecast.total[:, 1]).all()
    assert forecast.probability_of_reaching().tolist() == [1.0, 0.0]


@given(elapsed=st.lists(st.floats(0.1, 1e5), min_size=2, max_size=5), chosen=st.sets(st.integers(0, 4)))
def test_draws_are_infinite_exactly_where_a_run_ended(elapsed: list[float], chosen: set[int]) -> None:
    num, ended = len(elapsed), [i for i in chosen if i < len(elapsed)]
    started = dict(enumerate(elapsed))
    found = made_forecast([2.0] * num, [0.5] * num, elapsed=started, ended=ended)
    alive = made_forecast([2.0] * num, [0.5] * num, elapsed=started)
    assert np.isfinite(alive.total).all()
    gone = np.isin(np.arange(num), ended)
    np.testing.assert_array_equal(found.total, np.where(gone, np.inf, alive.total))


@examples(40)
@given(mean=means, sd=st.floats(0.0, 2.0), price=st.floats(0.1, 100.0), choice=st.integers(0, 4))
def test_nothing_is_cheaper_than_the_bound_says_and_what_a_second_costs_cancels(
    mean: list[float], sd: float, price: float, choice: int
) -> None:
    found, choice = made_forecast(mean, [sd] * len(mean)), choice % len(mean)
    low, high = (regret_bound(found, np.ones(len(mean)), choice, level) for level in (0.5, 0.9))
    assert 1.0 <= low <= high
    assert regret_bound(found, np.full(len(mean), price), choice) == pytest.approx(high)
    if len(mean) == 1:
        assert high == 1.0


def test_a_bound_shows_how_much_less_the_best_costs() -> None:
    found = made_forecast([math.log(30.0), math.log(10.0), 1.0], [1e-6] * 3, elapsed={2: 1.0}, ended=[2])
    assert regret_bound(found, np.ones(3), 0) == pytest.approx(3.0, rel=1e-3)
    assert regret_bound(found, np.array([1.0, 2.0, 1.0]), 0) == pytest.approx(1.5, rel=1e-3)
    assert regret_bound(found, np.ones(3), 1) == pytest.approx(1.0, rel=1e-3)
    unsure = made_forecast([math.log(10.0), math.log(20.0)], [1e-6, 1.0])
    # With 90% probability: log 20 less 1.28 standard deviations.
    assert regret_bound(unsure, np.ones(2), 0) == pytest.approx(math.exp(1.2816 - math.log(2.0)), rel=0.1)
    # What ended without arriving costs more than anything.
    assert regret_bound(found, np.ones(3), 2) == math.inf


def test_nothing_is_seen_to_arrive_before_its_next_score() -> None:
    found = made_prospects([1.0, 1.0], [0.5, 0.5], earliest={0: 50.0}, elapsed={0: 40.0})
    assert found.log_seconds[0].min() >= math.log(49.9)
    assert found.log_seconds[1].max() < math.log(49.9)


def test_a_run_that_may_never_arrive_has_as_many_infinite_draws() -> None:
    more = {"never": {0: 0.75}, "never_of_others": 0.25, "arrived": {2: 2.0}}
    reach = made_forecast([1.0, 1.0, 1.0], [0.5, 0.5, 0.5], **more).probability_of_reaching()
    assert reach[:2] == pytest.approx([0.25, 0.75], abs=0.01)
    # Only what sets it apart from the others counts against it.
    assert made_prospects([1.0] * 3, [0.5] * 3, **more).status.likely[:2] == pytest.approx([0.5, 1.0])
