"""Acquisition: nothing is gained from what is surely worse, or known."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.levels import examples
from tests.tuner.analytic.made_predictors import made_prospects
from tuner.search.improvement import Costs, Weights, proven, recommended, risks, weigh
from tuner.search.prospects import Prospects


def prospects(*given: Any, **more: Any) -> Prospects:
    return made_prospects(*given, **more)


def slices_of(*seconds: float) -> Callable[[float], npt.NDArray[np.float64]]:
    """The next slice of each candidate, whatever the incumbent costs."""
    return lambda log_incumbent: np.array(seconds)


def weighed(
    found: Prospects,
    slices: tuple[float, ...] | None = None,
    *,
    price: float | npt.NDArray[np.float64] = 1.0,
    fixed: float | npt.NDArray[np.float64] = 0.0,
    log_longest: float = math.inf,
    credit: float = 0.0,
) -> Weights:
    num = len(found.configurations)
    prices = np.broadcast_to(np.asarray(price, dtype=float), num)
    costs = Costs(
        price=prices,
        probing=prices,
        fixed=np.broadcast_to(np.asarray(fixed, dtype=float), num),
        credit=credit,
        log_longest=np.full(num, log_longest),
    )
    return weigh(found, costs, slices_of(*(slices or [1.0] * num)))


beliefs = st.lists(st.tuples(st.floats(-1.0, 8.0), st.floats(0.01, 2.0)), min_size=1, max_size=6)


@examples(30)
@given(
    believed=beliefs, startup=st.floats(0.0, 10.0), elapsed=st.floats(0.01, 100.0), price=st.floats(0.1, 10)
)
def test_scores_and_savings_are_not_negative_and_follow_the_price(
    believed: list[tuple[float, float]], startup: float, elapsed: float, price: float
) -> None:
    mean, sd = ([b[i] for b in believed] for i in (0, 1))
    found = prospects(mean, sd, elapsed={0: elapsed})
    one = weighed(found, fixed=startup)
    for values in (one.saving, one.score):
        assert values.shape == (len(mean),)
        assert np.isfinite(values).all()
        assert (values >= 0).all()
    other = weighed(found, fixed=startup * price, price=price)
    np.testing.assert_allclose(other.score, one.score / price, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(other.saving, price * one.saving, rtol=1e-6, atol=1e-12)


def test_nothing_is_gained_from_what_is_surely_worse() -> None:
    found = weighed(prospects([2.0, 6.0], [0.1, 0.1]))
    assert found.incumbent == 0
    assert found.saving[1] == found.score[1] == 0.0


def test_an_arrived_run_and_one_that_ended_are_never_asked_again() -> None:
    found = weighed(
        prospects([1.0, 1.0, 3.0], [1.0, 1.0, 1.0], arrived={0: 9.0}, elapsed={1: 2.0}, ended=[1])
    )
    assert found.incumbent == 0
    assert found.log_incumbent == pytest.approx(math.log(9.0), abs=1e-3)
    assert found.score[:2].tolist() == found.saving[:2].tolist() == [0.0, 0.0]
    assert found.score[2] > 0


def test_the_score_is_the_gain_of_a_normal_over_the_cost_of_a_run() -> None:
    found = weighed(prospects([0.0, 3.0], [1.0, 0.8], arrived={0: 10.0}))
    z = (math.log(10.0) - 3.0) / 0.8
    density = math.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    gain = 0.8 * (z * 0.5 * math.erfc(-z / math.sqrt(2)) + density)
    normal = np.exp(3.0 + 0.8 * np.interp((np.arange(20_000) + 0.5) / 20_000, _GRID_CDF, _GRID))
    # No run is followed for longer than the incumbent takes. 40 equally probable parts stand for the normal.
    assert found.score[1] == pytest.approx(gain / np.minimum(normal, 10.0).mean(), rel=0.03)


def test_of_two_that_are_expected_alike_the_less_known_offers_more() -> None:
    found = weighed(prospects([2.0, 3.0, 3.0], [0.01, 0.3, 1.2], arrived={0: 7.4}))
    assert found.score[2] > found.score[1]
    assert found.saving[2] > found.saving[1]


def test_the_cheaper_of_two_equal_unknowns_is_preferred() -> None:
    equal = prospects([2.0, 3.0, 3.0], [0.01, 1.0, 1.0], arrived={0: 7.4})
    found = weighed(equal, fixed=np.array([0.0, 1.0, 30.0]))
    assert found.score[1] > found.score[2]


def test_a_started_run_is_asked_before_a_stranger_that_promises_as_much() -> None:
    found = weighed(prospects([2.0, 2.5, 2.5], [0.01, 0.6, 0.6], arrived={0: 7.4}, elapsed={1: 3.0}))
    assert found.score[1] > found.score[2]


def test_a_deadline_rules_slow_ones_out_however_cheap() -> None:
    found, price = prospects([3.0, 6.0], [0.3, 0.3]), np.array([1.0, 1e-3])
    assert weighed(found, price=price).incumbent == 1
    bound = weighed(found, price=price, log_longest=math.log(60.0))
    assert bound.incumbent == 0
    assert bound.score[1] == bound.saving[1] == 0.0
    assert recommended(found, price, np.full(2, math.log(60.0))) == 0


def test_where_nothing_keeps_the_deadline_the_likeliest_is_recommended() -> None:
    found = prospects([5.0, 5.5, 6.0], [0.3, 0.3, 0.3])
    assert recommended(found, np.ones(3), np.full(3, 4.8)) == 0


def test_of_two_with_the_same_mean_the_better_known_is_recommended() -> None:
    assert recommended(prospects([3.0, 3.0], [1.0, 0.2]), np.ones(2), np.full(2, np.inf)) == 1


def test_what_ended_without_arriving_is_recommended_to_nobody() -> None:
    found = prospects([1.0, 6.0], [0.1, 0.5], elapsed={0: 1.0}, ended=[0])
    assert recommended(found, np.ones(2), np.full(2, np.inf)) == 1


def test_where_all_ended_without_arriving_nothing_is_gained() -> None:
    found = weighed(prospects([1.0], [0.1], elapsed={0: 1.0}, ended=[0]))
    assert found.score.tolist() == [0.0]


def test_where_nothing_keeps_a_limit_the_nearest_to_it_are_tried_all_the_same() -> None:
    found = weighed(prospects([5.0, 4.0], [0.5, 0.5]), log_longest=0.0)
    assert (found.score > 0).any()


def test_what_is_better_with_one_chance_in_a_thousand_saves_a_little() -> None:
    found = weighed(prospects([0.0, 0.6], [1e-3, 0.3]), (0.1, 0.1))
    assert 0.0 < found.saving[1] < 1e-2


def test_several_slices_save_no_more_than_knowing_all() -> None:
    """At the rate of the best number of slices, no slice saves more than E[(I - X)+] for each that pays."""
    found = prospects([2.0, 2.5], [0.01, 1.0], arrived={0: 7.4})
    normal = np.exp(2.5 + np.interp((np.arange(20_000) + 0.5) / 20_000, _GRID_CDF, _GRID))
    everything = float(np.maximum(7.4 - normal, 0.0).mean())
    for seconds in (0.05, 0.5, 5.0):
        weights = weighed(found, (1.0, seconds))
        assert 0.0 < weights.saving[1] < 1.02 * everything
        # The best rate is that of no more slices than the saving is of.
        assert weights.return_rate[1] >= weights.saving[1] / 12.2


def test_a_slice_costs_no_more_than_the_run_that_it_finishes() -> None:
    found = prospects([2.0, 1.0], [0.01, 0.3], arrived={0: 7.4})
    whole = weighed(found, (1.0, 100.0), fixed=1.0)
    assert whole.return_rate[1] == pytest.approx(
        whole.saving[1] / (1.0 + math.exp(1.0 + 0.3**2 / 2)), rel=0.02
    )


def test_a_started_run_learns_less_from_a_slice_than_a_new_one() -> None:
    """Of what the next slice shows, most is known of a run that has gone far."""
    found = prospects([2.0, 2.5, 2.5], [0.01, 0.5, 0.5], arrived={0: 7.4}, elapsed={1: 5.0})
    narrow = replace(found, log_seconds=found.log_seconds[[0, 2, 2]])
    weights = weighed(narrow)
    assert weights.saving[1] < weights.saving[2]


def test_the_incumbent_scores_by_what_is_unknown_of_it() -> None:
    scores = [float(weighed(prospects([2.0, 9.0], [sd, 0.1])).score[0]) for sd in (0.01, 0.1, 0.5)]
    assert 0.0 < scores[0] < scores[1] < scores[2]


def test_what_makes_both_late_is_no_reason_to_probe() -> None:
    found = prospects([2.0, 2.2], [0.01, 1.0], arrived={0: 7.4})
    rng = np.random.default_rng(0)
    common, own = rng.standard_normal((2, 256, 1))
    alike = replace(found, draws=np.hstack([common, common + 0.05 * own]))
    unlike = replace(found, draws=np.hstack([common, own]))
    assert weighed(alike).score[1] < 0.2 * weighed(unlike).score[1]
    assert weighed(unlike).score[1] == pytest.approx(weighed(found).score[1], rel=0.1)


def test_what_a_run_has_trained_counts_for_the_training_that_it_belongs_to() -> None:
    found = prospects([3.0, 2.8], [0.05, 0.05], elapsed={0: 15.0})
    assert weighed(found).incumbent == 1
    spared = weighed(found, credit=1.0)
    assert spared.incumbent == 0
    assert spared.log_incumbent == pytest.approx(math.log(math.exp(3.0) - 15.0), abs=0.2)


_GRID = np.linspace(-6.0, 6.0, 4001)
_GRID_CDF = np.array([0.5 * (1 + math.erf(z / math.sqrt(2))) for z in _GRID])


def test_a_run_that_arrived_is_left_only_for_what_is_very_probably_cheaper() -> None:
    nowhere = np.full(2, np.inf)
    unsure = prospects([3.0, 2.5], [0.0, 0.6], arrived={0: math.exp(3.0)})
    sure = prospects([3.0, 2.5], [0.0, 0.3], arrived={0: math.exp(3.0)})
    assert proven(unsure, np.ones(2), nowhere, 1) == 0
    assert proven(sure, np.ones(2), nowhere, 1) == 1
    none = prospects([3.0, 2.5], [0.1, 0.6])
    assert proven(none, np.ones(2), nowhere, 1) == 1


def test_a_run_that_arrived_too_late_proves_nothing() -> None:
    found = prospects([3.0, 2.5], [0.0, 0.6], arrived={0: math.exp(3.0)})
    assert proven(found, np.ones(2), np.full(2, 2.9), 1) == 1


def test_what_probably_never_arrives_gains_less_and_is_not_recommended() -> None:
    alike = weighed(prospects([2.0, 1.9, 1.9], [0.5, 0.5, 0.5]))
    doubtful = prospects([2.0, 1.9, 1.9], [0.5, 0.5, 0.5], never={2: 0.9})
    found = weighed(doubtful)
    assert found.score[2] == pytest.approx(0.1 * alike.score[2])
    assert found.incumbent == 1
    # It is tried ten times until it arrives.
    risk = risks(doubtful, np.ones(3))
    assert risk[2] - risk[1] == pytest.approx(math.log(10.0))
