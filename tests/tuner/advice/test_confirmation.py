"""Repeated trainings of two configurations, compared."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from search_spaces import Configuration
from tuner.advice.confirmation import compare_trainings, settings_of, welch_factor
from tuner.domain.confirmation import Confirmation, ConfirmedSettings, ConfirmedTraining

FAST = Configuration(nodes=2, batch_size=64, learning_rate=0.1, strategy="all_reduce")
SLOW = FAST.replaced(nodes=1)


def trained(configuration: Configuration, seconds: list[float], missed: tuple[int, ...] = ()) -> Any:
    trainings = [
        ConfirmedTraining(
            seed=1000 * (k + 1),
            reached=k not in missed,
            outcome="stopped" if k in missed else "reached",
            training_seconds=time,
        )
        for k, time in enumerate(seconds)
    ]
    return settings_of(configuration, trainings)


def compared(recommended: ConfirmedSettings, present: ConfirmedSettings) -> Confirmation:
    return compare_trainings(
        recommended,
        present,
        price_ratio=None,
        uses_seed=True,
        num_unfinished=0,
        seconds=100.0,
        dollars=0.0,
    )


def test_the_interval_is_that_of_welch_s_test_on_log_seconds() -> None:
    ours, theirs = [9.0, 10.0, 12.0], [20.0, 31.0, 24.0, 22.0]
    found = compared(trained(FAST, ours), trained(SLOW, theirs))
    test = stats.ttest_ind(np.log(theirs), np.log(ours), equal_var=False)
    interval = test.confidence_interval(confidence_level=0.9)
    assert found.speedup == pytest.approx(stats.gmean(theirs) / stats.gmean(ours))
    assert found.lower == pytest.approx(math.exp(interval.low))
    assert found.upper == pytest.approx(math.exp(interval.high))
    assert found.is_significant is True
    assert (found.at_least, found.at_most) == (None, None)


def test_an_interval_that_includes_1_shows_no_difference() -> None:
    found = compared(trained(FAST, [9.0, 20.0]), trained(SLOW, [10.0, 25.0]))
    assert found.lower is not None
    assert found.upper is not None
    assert found.lower < 1 < found.upper
    assert found.is_significant is False


def test_the_interval_covers_the_true_ratio_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(1000):
        ours, theirs = rng.normal(0.0, 0.1, 3), rng.normal(0.3, 0.3, 3)
        factor = welch_factor(list(ours), list(theirs))
        assert factor is not None
        covered.append(abs(theirs.mean() - ours.mean() - 0.3) <= math.log(factor))
    # With three values each, Welch's interval is known to cover somewhat more than its level.
    assert 0.87 < np.mean(covered) < 0.96


def test_one_training_of_each_has_a_ratio_and_no_interval() -> None:
    found = compared(trained(FAST, [10.0]), trained(SLOW, [15.0]))
    assert found.speedup == pytest.approx(1.5)
    assert (found.lower, found.upper, found.is_significant) == (None, None, None)


def test_equal_times_have_an_interval_without_width() -> None:
    found = compared(trained(FAST, [10.0, 10.0]), trained(SLOW, [20.0, 20.0]))
    assert (found.lower, found.upper) == (found.speedup, found.speedup)


def test_present_settings_that_miss_the_target_give_a_lower_bound() -> None:
    found = compared(trained(FAST, [10.0, 10.0]), trained(SLOW, [40.0, 90.0], missed=(1,)))
    assert found.speedup is None
    assert found.at_least == pytest.approx(6.0)
    assert found.at_most is None
    assert found.baseline.num_reached == 1
    assert found.baseline.median_seconds is None


def test_a_recommendation_that_misses_the_target_gives_an_upper_bound() -> None:
    found = compared(trained(FAST, [40.0, 10.0, 10.0], missed=(0,)), trained(SLOW, [20.0, 20.0, 20.0]))
    assert found.at_most == pytest.approx(20.0 / (4000.0) ** (1 / 3))
    assert (found.speedup, found.at_least) == (None, None)
    assert found.recommended.median_seconds == 10.0


def test_nothing_follows_if_both_miss_the_target_or_one_never_trained() -> None:
    both = compared(trained(FAST, [10.0], missed=(0,)), trained(SLOW, [10.0], missed=(0,)))
    assert (both.speedup, both.at_least, both.at_most) == (None, None, None)
    without_memory = compared(trained(FAST, [0.0], missed=(0,)), trained(SLOW, [10.0]))
    assert without_memory.at_most is None
    assert compared(trained(FAST, [10.0]), trained(SLOW, [])).speedup is None


def test_plain_data_give_the_confirmation_back() -> None:
    from tests.tuner.report import content_builder
    from tuner.domain.recommendation import Recommendation

    made = compared(trained(FAST, [9.0, 10.0]), trained(SLOW, [20.0, 22.0]))
    answer = replace(content_builder.recommendation(), confirmation=made)
    data = answer.to_dict()
    assert data["confirmation"]["baseline"]["trainings"][1]["training_seconds"] == 22.0
    assert Recommendation.from_dict(data) == answer
    del data["confirmation"]
    assert Recommendation.from_dict({**data, "schema_version": "1.4"}).confirmation is None
