"""Expected improvement over expected cost: nothing is gained from what is surely worse, or known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tuner.analytic.made_predictors import predictor
from tuner.analytic.slope_predictor import SlopePredictor
from tuner.search.improvement import Weights, recommended, tail_savings, weigh


def weighed(found: SlopePredictor, startup: float = 0.0, **more: float | bool) -> Weights:
    num = len(found.configurations)
    return weigh(found, np.ones(num), np.full(num, startup), **more)  # type: ignore[arg-type]


beliefs = st.lists(st.tuples(st.floats(-1.0, 8.0), st.floats(0.01, 2.0)), min_size=1, max_size=6)


@settings(max_examples=30)
@given(believed=beliefs, startup=st.floats(0.0, 10.0), lived=st.floats(0.01, 100.0), price=st.floats(0.1, 10))
def test_gains_savings_and_costs_are_not_negative_and_prices_cancel_in_gains(
    believed: list[tuple[float, float]], startup: float, lived: float, price: float
) -> None:
    mean, sd = ([b[i] for b in believed] for i in (0, 1))
    found = predictor(mean, sd, lived={0: lived})
    num = len(mean)
    one = weigh(found, np.ones(num), np.full(num, startup))
    for values in (one.gain, one.saving, one.cost, one.score):
        assert values.shape == (num,)
        assert np.isfinite(values).all()
        assert (values >= 0).all()
    # Nobody saves more than the incumbent costs.
    assert (one.saving <= math.exp(one.log_incumbent) + 1e-9).all()
    other = weigh(found, np.full(num, price), np.full(num, startup))
    np.testing.assert_allclose(other.gain, one.gain, atol=1e-9)
    np.testing.assert_allclose(other.cost, price * one.cost, atol=1e-9)
    np.testing.assert_allclose(other.saving, price * one.saving, atol=1e-9)


def test_nothing_is_gained_from_what_is_surely_worse() -> None:
    found = weighed(predictor([2.0, 6.0], [0.1, 0.1]))
    assert found.incumbent == 0
    assert found.gain[1] == found.saving[1] == found.score[1] == 0.0


def test_an_arrived_run_and_one_that_ended_are_never_asked_again() -> None:
    found = weighed(predictor([1.0, 1.0, 3.0], [1.0, 1.0, 1.0], arrived={0: 9.0}, lived={1: 2.0}, ended=[1]))
    assert found.incumbent == 0
    assert found.log_incumbent == pytest.approx(math.log(9.0), abs=1e-3)
    assert found.score[:2].tolist() == [-1.0, -1.0]
    assert found.gain[:2].tolist() == found.saving[:2].tolist() == [0.0, 0.0]
    assert found.score[2] > 0


def test_the_gain_is_that_of_a_normal_where_the_incumbent_is_known() -> None:
    found = weighed(predictor([0.0, 3.0], [1.0, 0.8], arrived={0: 10.0}))
    z = (math.log(10.0) - 3.0) / 0.8
    density = math.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    expected = 0.8 * (z * 0.5 * math.erfc(-z / math.sqrt(2)) + density)
    # 40 equally probable parts stand for the normal.
    assert found.gain[1] == pytest.approx(expected, rel=0.03)


def test_of_two_that_are_as_unknown_the_less_known_offers_more() -> None:
    found = weighed(predictor([2.0, 3.0, 3.0], [0.01, 0.3, 1.2], arrived={0: 7.4}))
    assert found.gain[2] > found.gain[1]


def test_gain_over_cost_prefers_the_cheaper_of_two_equal_unknowns() -> None:
    equal = predictor([2.0, 3.0, 3.0], [0.01, 1.0, 1.0], arrived={0: 7.4})
    startup = np.array([0.0, 1.0, 30.0])
    by_cost, by_gain = (weigh(equal, np.ones(3), startup, by_cost=c) for c in (True, False))
    assert by_cost.gain[1] == by_cost.gain[2]
    assert by_cost.score[1] > by_cost.score[2]
    assert by_gain.score[1] == by_gain.score[2] == by_gain.gain[1]


def test_a_begun_run_is_asked_before_a_stranger_that_promises_as_much() -> None:
    found = weighed(predictor([2.0, 2.5, 2.5], [0.01, 0.6, 0.6], arrived={0: 7.4}, lived={1: 3.0}))
    assert found.cost[1] < found.cost[2]
    assert found.score[1] > found.score[2]


def test_no_more_is_spent_on_finding_out_than_the_incumbent_costs() -> None:
    found = weighed(predictor([2.0, 9.0], [0.1, 0.5]), startup=1.0)
    assert found.cost[1] == pytest.approx(math.exp(2.0) + 1.0)


def test_a_deadline_rules_slow_ones_out_however_cheap() -> None:
    found, price = predictor([3.0, 6.0], [0.3, 0.3]), np.array([1.0, 1e-3])
    free = weigh(found, price, np.zeros(2))
    assert free.incumbent == 1
    bound = weigh(found, price, np.zeros(2), log_longest=np.full(2, math.log(60.0)))
    assert bound.incumbent == 0
    assert bound.gain[1] == bound.saving[1] == 0.0
    assert recommended(found, price, np.full(2, math.log(60.0))) == (0, pytest.approx(3.0))


def test_where_nothing_keeps_the_deadline_the_likeliest_is_recommended() -> None:
    found = predictor([5.0, 5.5, 6.0], [0.3, 0.3, 0.3])
    assert recommended(found, np.ones(3), np.full(3, 4.8))[0] == 0


def test_of_two_with_the_same_mean_the_better_known_is_recommended() -> None:
    assert recommended(predictor([3.0, 3.0], [1.0, 0.2]), np.ones(2), np.full(2, np.inf))[0] == 1


def test_what_ended_without_arriving_is_recommended_to_nobody() -> None:
    found = predictor([1.0, 6.0], [0.1, 0.5], lived={0: 1.0}, ended=[0])
    assert recommended(found, np.ones(2), np.full(2, np.inf))[0] == 1


def test_where_all_ended_without_arriving_nothing_is_gained() -> None:
    found = weigh(predictor([1.0], [0.1], lived={0: 1.0}, ended=[0]), np.ones(1), np.zeros(1))
    assert found.score.tolist() == [-1.0]


def test_where_nothing_keeps_a_limit_the_nearest_to_it_are_tried_all_the_same() -> None:
    found = weigh(predictor([5.0, 4.0], [0.5, 0.5]), np.ones(2), np.zeros(2), log_longest=np.zeros(2))
    assert (found.gain > 0).any()


def savings(found: SlopePredictor, log_incumbent: float, log_longest: float = math.inf) -> np.ndarray:
    num = len(found.configurations)
    return tail_savings(found, np.ones(num), log_incumbent, np.full(num, log_longest))


def test_what_is_better_with_one_chance_in_a_thousand_saves_a_little() -> None:
    """Beyond the outermost of the equal parts, but not nothing."""
    found = predictor([0.0, 0.6], [1e-3, 0.2])
    assert weighed(found).saving[1] == 0.0
    assert 0.0 < savings(found, 0.0)[1] < 1e-3


@settings(max_examples=50)
@given(mean=st.floats(-1.0, 1.0), sd=st.floats(0.05, 1.0), limit=st.floats(-1.0, 2.0))
def test_savings_are_those_of_the_whole_distribution(mean: float, sd: float, limit: float) -> None:
    found = predictor([mean], [sd])
    z = (np.arange(200_000) + 0.5) / 200_000
    log_cost = mean + sd * np.interp(z, _GRID_CDF, _GRID)
    exact = np.mean(np.where(log_cost <= limit, np.maximum(1.0 - np.exp(log_cost), 0.0), 0.0))
    # The predictor's own moments are those of its equal parts, whose variance is a few percent short.
    assert savings(found, 0.0, limit)[0] == pytest.approx(exact, abs=0.02 + 0.05 * exact)


def test_nothing_is_saved_by_what_is_known() -> None:
    found = predictor([0.0, 0.0], [1.0, 1.0], arrived={0: 1.0}, lived={1: 2.0}, ended=[1])
    assert savings(found, 1.0).tolist() == [0.0, 0.0]


_GRID = np.linspace(-6.0, 6.0, 4001)
_GRID_CDF = np.array([0.5 * (1 + math.erf(z / math.sqrt(2))) for z in _GRID])
