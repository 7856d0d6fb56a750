"""Where curves begin, and the units of progress."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tuner.analytic.made_curves import power_tail
from tuner.analytic.curve_template import ahead_of, passage_of, template_of
from tuner.search.start_value import progress_of, start_value

values = st.lists(st.floats(-100.0, 100.0), min_size=1, max_size=30)


@given(first=values)
def test_the_start_is_one_of_the_first_scorings_and_no_better_than_their_median(first: list[float]) -> None:
    start = start_value(first)
    assert start in first
    assert start <= np.median(first)


@given(first=values, order=st.randoms())
def test_the_order_of_scorings_does_not_matter(first: list[float], order: object) -> None:
    assert start_value(sorted(first)) == start_value(first)


def test_the_start_is_the_worst_of_what_did_not_break_down() -> None:
    assert start_value([0.12, 0.1, 0.3, 0.15]) == 0.1
    assert start_value([0.42]) == 0.42


@pytest.mark.parametrize("broken", [-1e9, -50.0, -np.inf])
def test_a_first_scoring_of_a_run_that_diverged_is_passed_over(broken: float) -> None:
    losses = [2.3, 2.31, 2.25, 2.2, 2.28]
    assert start_value([*(-loss for loss in losses), broken]) == -2.31


@given(
    curve=st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=20).map(np.array),
    start=st.floats(-10, 10),
    target=st.floats(-10, 10),
)
def test_progress_passes_one_at_the_target_and_is_never_far_below_nothing(
    curve: npt.NDArray[np.float64], start: float, target: float
) -> None:
    progress = progress_of(curve, start, target)
    assert progress.shape == curve.shape
    assert progress.min() >= -0.05
    assert (progress[curve >= target] >= 1.0 - 1e-9).all() or start > target
    if start < target:
        assert (np.diff(progress[np.argsort(curve)]) >= 0).all()


def test_progress_is_the_share_of_the_way_from_start_to_target() -> None:
    np.testing.assert_allclose(progress_of(np.array([0.1, 0.5, 0.9]), 0.1, 0.9), [0.0, 0.5, 1.0])


def test_a_start_past_the_target_leaves_nothing_to_do() -> None:
    assert progress_of(np.array([0.2, 0.95]), 0.9, 0.8).tolist() == [1.0, 1.0]


def test_a_falling_metric_and_a_rising_one_give_the_same_extrapolation() -> None:
    samples = np.geomspace(100.0, 2_000.0, 9)
    way = power_tail(samples, 5_000.0)
    accuracy, loss = 0.1 + 0.8 * way, 2.3 - 1.9 * way
    rising = progress_of(accuracy, start_value([0.1, 0.11]), 0.9)
    falling = progress_of(-loss, start_value([-2.3, -2.29]), -0.4)
    np.testing.assert_allclose(falling, rising, atol=1e-12)
    one, other = (passage_of(samples, progress) for progress in (falling, rising))
    found = [astuple(ahead_of(passage, template_of([passage]))) for passage in (one, other)]
    assert found[0] == pytest.approx(found[1])
