from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.search.expected_gain import compared, expected_cost, expected_gain, typical

INF = math.inf


def integrated_gain(incumbent: float, median: float, resolved: float, already_paid: float) -> float:
    """The same expectation as a sum over a fine grid of the normal."""
    z = np.linspace(-8.0, 8.0, 40_001)
    density = np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    outcome = median * np.exp(math.sqrt(resolved) * z)
    saving = np.maximum(incumbent - np.maximum(outcome - already_paid, 0.0), 0.0)
    return float(np.trapezoid(saving * density, z))


@pytest.mark.parametrize("median", [20.0, 80.0, 100.0, 150.0])
@pytest.mark.parametrize("resolved", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("already_paid", [0.0, 15.0])
def test_the_expected_gain_is_the_integral(median: float, resolved: float, already_paid: float) -> None:
    found = expected_gain(100.0, median, resolved, already_paid)
    assert found == pytest.approx(integrated_gain(100.0, median, resolved, already_paid), abs=1e-4)


def test_nothing_is_gained_where_nothing_is_learnt_and_nothing_is_better() -> None:
    assert expected_gain(100.0, 120.0, 0.0, 0.0) == 0.0
    assert expected_gain(100.0, 70.0, 0.0, 0.0) == pytest.approx(30.0)


@pytest.mark.parametrize(("incumbent", "median"), [(INF, 10.0), (10.0, INF), (INF, INF)])
def test_hopeless_costs_give_no_gain(incumbent: float, median: float) -> None:
    assert expected_gain(incumbent, median, 0.5, 0.0) == 0.0


@given(
    median=st.floats(100.0, 1e4),
    resolved=st.floats(0.0, 2.0),
    more=st.floats(0.0, 2.0),
    paid=st.floats(0.0, 50.0),
)
def test_of_what_is_no_better_more_to_learn_never_gains_less(
    median: float, resolved: float, more: float, paid: float
) -> None:
    gain = expected_gain(100.0, median, resolved, 0.0)
    assert 0.0 <= gain <= 100.0
    assert expected_gain(100.0, median, resolved + more, 0.0) >= gain - 1e-9


@given(median=st.floats(1.0, 1e4), resolved=st.floats(0.0, 2.0), paid=st.floats(0.0, 50.0))
def test_what_is_paid_and_not_paid_again_never_gains_less(
    median: float, resolved: float, paid: float
) -> None:
    gain = expected_gain(100.0, median, resolved, 0.0)
    assert gain - 1e-9 <= expected_gain(100.0, median, resolved, paid) <= 100.0 + 1e-9


def test_typical_is_the_median_of_the_draws_that_arrive() -> None:
    draws = np.array(
        [[1.0, INF, INF, 4.0], [2.0, 5.0, INF, INF], [3.0, 7.0, INF, INF], [100.0, INF, INF, INF]]
    )
    np.testing.assert_array_equal(typical(draws), [2.5, 6.0, INF, 4.0])


@given(st.lists(st.one_of(st.floats(0.1, 1e6), st.just(INF)), min_size=1, max_size=30))
def test_typical_agrees_with_numpy_s_median_of_the_finite(values: list[float]) -> None:
    finite = [v for v in values if math.isfinite(v)]
    expected = float(np.median(finite)) if finite else INF
    assert typical(np.array(values)[:, None])[0] == pytest.approx(expected)


def test_hopeless_draws_count_as_a_multiple_of_the_best() -> None:
    good, risky = np.full(10, 50.0), np.array([20.0] * 9 + [INF])
    cost, reach = expected_cost(np.stack([good, risky], axis=1))
    np.testing.assert_allclose(reach, [1.0, 0.9])
    # The best of those likely to arrive takes 20: a hopeless draw costs four times that.
    np.testing.assert_allclose(cost, [50.0, 0.9 * 20.0 + 0.1 * 80.0])


def test_a_lucky_draw_of_something_unlikely_does_not_set_the_scale() -> None:
    steady, long_shot = np.full(10, 50.0), np.array([1.0] + [INF] * 9)
    cost, _ = expected_cost(np.stack([steady, long_shot], axis=1))
    np.testing.assert_allclose(cost, [50.0, 0.1 * 1.0 + 0.9 * 200.0])


def test_what_never_arrives_costs_without_end() -> None:
    cost, reach = expected_cost(np.array([[10.0, INF], [12.0, INF]]))
    assert cost[1] == INF
    assert reach[1] == 0.0
    nothing, _ = expected_cost(np.full((4, 3), INF))
    assert np.all(np.isinf(nothing))


def test_comparing_all_at_once_is_comparing_each_by_itself() -> None:
    rng = np.random.default_rng(0)
    total = np.exp(1.0 + 0.5 * rng.normal(size=(256, 1)) + 0.4 * rng.normal(size=(256, 6)))
    total[rng.random(total.shape) < 0.1] = np.inf
    total[:, 5] = np.inf
    cost = total * rng.uniform(0.5, 2.0, 6)
    ratios, resolvable = compared(total, cost, 0, 1e-3)
    for i in range(5):
        both = np.isfinite(cost[:, i]) & np.isfinite(cost[:, 0])
        ours, theirs = np.log(total[both, i]), np.log(total[both, 0])
        ratio = np.log(cost[both, i] / cost[both, 0])
        lower, upper = np.quantile(np.stack([ours, theirs, ratio]), [0.16, 0.84], axis=1)
        own, _, of_ratio = (0.5 * (upper - lower)) ** 2
        own *= 1.0 - np.corrcoef(ours, theirs)[0, 1] ** 2
        assert ratios[i] == pytest.approx(np.exp(np.median(ratio)))
        assert resolvable[i] == pytest.approx(max(min(own, of_ratio), 0.0), abs=1e-12)
    assert (ratios[5], resolvable[5]) == (np.inf, 0.0)
