"""Expected improvement over expected cost: nothing is gained from what is surely worse, or known."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.levels import examples
from tests.tuner.analytic.made_predictors import predictor
from tuner.analytic.slope_predictor import SlopePredictor
from tuner.search.improvement import Weights, proven, recommended, tail_savings, weigh


def slices_of(*seconds: float) -> Callable[[float], npt.NDArray[np.float64]]:
    """The next slice of each candidate, whatever the incumbent costs."""
    return lambda log_incumbent: np.array(seconds)


def weighed(found: SlopePredictor, startup: float = 0.0, **more: Any) -> Weights:
    num = len(found.configurations)
    return weigh(found, np.ones(num), np.full(num, startup), slices_of(*[1.0] * num), **more)


beliefs = st.lists(st.tuples(st.floats(-1.0, 8.0), st.floats(0.01, 2.0)), min_size=1, max_size=6)


@examples(30)
@given(
    believed=beliefs, startup=st.floats(0.0, 10.0), elapsed=st.floats(0.01, 100.0), price=st.floats(0.1, 10)
)
def test_gains_savings_and_costs_are_not_negative_and_prices_cancel_in_gains(
    believed: list[tuple[float, float]], startup: float, elapsed: float, price: float
) -> None:
    mean, sd = ([b[i] for b in believed] for i in (0, 1))
    found = predictor(mean, sd, elapsed={0: elapsed})
    num = len(mean)
    one = weigh(found, np.ones(num), np.full(num, startup), slices_of(*[1.0] * num))
    for values in (one.gain, one.saving, one.cost, one.score):
        assert values.shape == (num,)
        assert np.isfinite(values).all()
        assert (values >= 0).all()
    # Nobody saves more than the incumbent costs.
    assert (one.saving <= math.exp(one.log_incumbent) + 1e-9).all()
    other = weigh(found, np.full(num, price), np.full(num, startup), slices_of(*[1.0] * num))
    np.testing.assert_allclose(other.gain, one.gain, atol=1e-9)
    np.testing.assert_allclose(other.cost, price * one.cost, atol=1e-9)
    np.testing.assert_allclose(other.saving, price * one.saving, atol=1e-9)


def test_nothing_is_gained_from_what_is_surely_worse() -> None:
    found = weighed(predictor([2.0, 6.0], [0.1, 0.1]))
    assert found.incumbent == 0
    assert found.gain[1] == found.saving[1] == found.score[1] == 0.0


def test_an_arrived_run_and_one_that_ended_are_never_asked_again() -> None:
    found = weighed(
        predictor([1.0, 1.0, 3.0], [1.0, 1.0, 1.0], arrived={0: 9.0}, elapsed={1: 2.0}, ended=[1])
    )
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
    found = weigh(equal, np.ones(3), startup, slices_of(1.0, 1.0, 1.0))
    assert found.gain[1] == found.gain[2]
    assert found.score[1] > found.score[2]


def test_a_started_run_is_asked_before_a_stranger_that_promises_as_much() -> None:
    found = weighed(predictor([2.0, 2.5, 2.5], [0.01, 0.6, 0.6], arrived={0: 7.4}, elapsed={1: 3.0}))
    assert found.cost[1] < found.cost[2]
    assert found.score[1] > found.score[2]


def test_no_more_is_spent_on_finding_out_than_the_incumbent_costs() -> None:
    found = weighed(predictor([2.0, 9.0], [0.1, 0.5]), startup=1.0)
    assert found.cost[1] == pytest.approx(math.exp(2.0) + 1.0)


def test_a_deadline_rules_slow_ones_out_however_cheap() -> None:
    found, price = predictor([3.0, 6.0], [0.3, 0.3]), np.array([1.0, 1e-3])
    free = weigh(found, price, np.zeros(2), slices_of(1.0, 1.0))
    assert free.incumbent == 1
    bound = weigh(found, price, np.zeros(2), slices_of(1.0, 1.0), log_longest=np.full(2, math.log(60.0)))
    assert bound.incumbent == 0
    assert bound.gain[1] == bound.saving[1] == 0.0
    assert recommended(found, price, np.full(2, math.log(60.0))) == (0, pytest.approx(3.0))


def test_where_nothing_keeps_the_deadline_the_likeliest_is_recommended() -> None:
    found = predictor([5.0, 5.5, 6.0], [0.3, 0.3, 0.3])
    assert recommended(found, np.ones(3), np.full(3, 4.8))[0] == 0


def test_of_two_with_the_same_mean_the_better_known_is_recommended() -> None:
    assert recommended(predictor([3.0, 3.0], [1.0, 0.2]), np.ones(2), np.full(2, np.inf))[0] == 1


def test_what_ended_without_arriving_is_recommended_to_nobody() -> None:
    found = predictor([1.0, 6.0], [0.1, 0.5], elapsed={0: 1.0}, ended=[0])
    assert recommended(found, np.ones(2), np.full(2, np.inf))[0] == 1


def test_where_all_ended_without_arriving_nothing_is_gained() -> None:
    found = weighed(predictor([1.0], [0.1], elapsed={0: 1.0}, ended=[0]))
    assert found.score.tolist() == [-1.0]


def test_where_nothing_keeps_a_limit_the_nearest_to_it_are_tried_all_the_same() -> None:
    found = weighed(predictor([5.0, 4.0], [0.5, 0.5]), log_longest=np.zeros(2))
    assert (found.gain > 0).any()


def savings(found: SlopePredictor, log_incumbent: float, log_longest: float = math.inf) -> np.ndarray:
    num = len(found.configurations)
    return tail_savings(found, np.ones(num), log_incumbent, np.full(num, log_longest))


def test_what_is_better_with_one_chance_in_a_thousand_saves_a_little() -> None:
    """Beyond the outermost of the equal parts, but not nothing."""
    found = predictor([0.0, 0.6], [1e-3, 0.2])
    assert weighed(found).saving[1] == 0.0
    assert 0.0 < savings(found, 0.0)[1] < 1e-3


@examples(50)
@given(mean=st.floats(-1.0, 1.0), sd=st.floats(0.05, 1.0), limit=st.floats(-1.0, 2.0))
def test_savings_are_those_of_the_whole_distribution(mean: float, sd: float, limit: float) -> None:
    found = predictor([mean], [sd])
    z = (np.arange(200_000) + 0.5) / 200_000
    log_cost = mean + sd * np.interp(z, _GRID_CDF, _GRID)
    exact = np.mean(np.where(log_cost <= limit, np.maximum(1.0 - np.exp(log_cost), 0.0), 0.0))
    # The predictor's own moments are those of its equal parts, whose variance is a few percent short.
    assert savings(found, 0.0, limit)[0] == pytest.approx(exact, abs=0.02 + 0.05 * exact)


def test_nothing_is_saved_by_what_is_known() -> None:
    found = predictor([0.0, 0.0], [1.0, 1.0], arrived={0: 1.0}, elapsed={1: 2.0}, ended=[1])
    assert savings(found, 1.0).tolist() == [0.0, 0.0]


_GRID = np.linspace(-6.0, 6.0, 4001)
_GRID_CDF = np.array([0.5 * (1 + math.erf(z / math.sqrt(2))) for z in _GRID])


def test_by_slices_the_cheaper_slice_is_taken_of_two_that_show_as_much() -> None:
    equal = predictor([2.0, 3.0, 3.0], [0.01, 1.0, 1.0], arrived={0: 7.4})
    found = weigh(equal, np.ones(3), np.zeros(3), slices_of(1.0, 1.0, 1.1), by_slice=True)
    assert found.gain[1] == pytest.approx(found.gain[2], rel=0.05)
    assert found.score[1] > found.score[2]
    assert found.score[0] == -1.0


def test_a_longer_slice_gains_more_and_never_more_than_the_whole_run() -> None:
    unknown = predictor([2.0, 2.5], [0.01, 1.0], arrived={0: 7.4})
    whole = weigh(unknown, np.ones(2), np.zeros(2), slices_of(1.0, 1.0)).gain[1]
    gains = [
        weigh(unknown, np.ones(2), np.zeros(2), slices_of(1.0, seconds), by_slice=True).gain[1]
        for seconds in (0.05, 0.5, 5.0)
    ]
    assert gains == sorted(gains)
    assert 0 < gains[0] < gains[-1] < 1.02 * whole


def test_the_incumbent_s_slice_gains_by_what_would_be_preferred_to_it() -> None:
    def gain(runner_up: float) -> float:
        unknown = predictor([2.0, runner_up], [0.5, 0.5])
        return float(weigh(unknown, np.ones(2), np.zeros(2), slices_of(1.0, 1.0), by_slice=True).gain[0])

    near, far, farther = gain(2.1), gain(3.0), gain(5.0)
    assert near > far > farther >= 0.0
    alone = weigh(predictor([2.0], [0.5]), np.ones(1), np.zeros(1), slices_of(1.0), by_slice=True)
    assert alone.incumbent == 0
    assert alone.gain[0] > near


@examples(30)
@given(believed=beliefs, startup=st.floats(0.0, 10.0), seconds=st.floats(1e-3, 100.0))
def test_slices_gain_something_wherever_whole_runs_do_and_nothing_elsewhere(
    believed: list[tuple[float, float]], startup: float, seconds: float
) -> None:
    mean, sd = ([b[i] for b in believed] for i in (0, 1))
    found, num = predictor(mean, sd), len(mean)
    whole, slices = (
        weigh(found, np.ones(num), np.full(num, startup), slices_of(*[seconds] * num), by_slice=by_slice)
        for by_slice in (False, True)
    )
    assert np.isfinite(slices.score).all()
    assert (slices.gain >= 0).all()
    assert (slices.gain[whole.gain == 0] == 0).all()
    np.testing.assert_array_equal(slices.cost, whole.cost)


def test_a_run_that_arrived_is_left_only_for_what_is_very_probably_cheaper() -> None:
    nowhere = np.full(2, np.inf)
    unsure = predictor([3.0, 2.5], [0.0, 0.6], arrived={0: math.exp(3.0)})
    sure = predictor([3.0, 2.5], [0.0, 0.3], arrived={0: math.exp(3.0)})
    assert proven(unsure, np.ones(2), nowhere, 1) == 0
    assert proven(sure, np.ones(2), nowhere, 1) == 1
    none = predictor([3.0, 2.5], [0.1, 0.6])
    assert proven(none, np.ones(2), nowhere, 1) == 1


def test_a_run_that_arrived_too_late_proves_nothing() -> None:
    found = predictor([3.0, 2.5], [0.0, 0.6], arrived={0: math.exp(3.0)})
    assert proven(found, np.ones(2), np.full(2, 2.9), 1) == 1


def test_what_probably_never_arrives_gains_less_and_is_not_recommended() -> None:
    alike = weighed(predictor([2.0, 1.9, 1.9], [0.5, 0.5, 0.5]))
    found = weighed(predictor([2.0, 1.9, 1.9], [0.5, 0.5, 0.5], never={2: 0.9}))
    assert found.gain[2] == pytest.approx(0.1 * alike.gain[2])
    assert found.incumbent == 1
