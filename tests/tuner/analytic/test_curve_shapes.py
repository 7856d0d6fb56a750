"""Curve shapes believed beforehand: what they say of the way from one level of progress to another."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tuner.analytic.made_curves import power_tail
from tuner.analytic.curve_template import PRIOR, SHAPES, increments_of_shapes

Array = npt.NDArray[np.float64]

ascending = (
    st.lists(st.integers(1, 200), min_size=2, max_size=12, unique=True)
    .map(sorted)
    .map(lambda places: np.array(places) / 200)
)


@given(levels=ascending)
def test_every_level_is_passed_after_the_one_below(levels: Array) -> None:
    found = increments_of_shapes(levels)
    assert found.shape == (len(SHAPES), len(levels) - 1)
    assert np.isfinite(found).all()
    assert (found > 0.0).all()


@given(levels=ascending)
def test_levels_between_others_change_no_increment(levels: Array) -> None:
    whole = increments_of_shapes(levels[[0, -1]])[:, 0]
    np.testing.assert_allclose(increments_of_shapes(levels).sum(axis=1), whole, rtol=1e-6)


def test_a_step_of_progress_takes_longest_at_the_start_and_in_the_tail() -> None:
    steps = PRIOR @ increments_of_shapes(np.linspace(0.1, 1.0, 10))
    quickest = int(np.argmin(steps))
    assert 0 < quickest < len(steps) - 1
    assert (np.diff(steps[: quickest + 1]) < 0.0).all()
    assert (np.diff(steps[quickest:]) > 0.0).all()


@pytest.mark.parametrize(("low", "high"), [(0.05, 0.1), (0.2, 0.5), (0.6, 0.9), (0.945, 1.0)])
def test_increments_are_those_of_the_curves(low: float, high: float) -> None:
    samples = np.geomspace(1e-15, 1.0, 40_000)
    found = increments_of_shapes(np.array([low, high]))[:, 0]
    for (height, rise, tail), increment in zip(SHAPES, found, strict=True):
        at = np.interp([low, high], power_tail(samples, 1.0, height, rise, tail), np.log(samples))
        # The curve is read off a grid of samples, 1e-3 e-folds apart.
        assert at[1] - at[0] == pytest.approx(increment, abs=2e-3)


def test_all_curves_believed_in_arrive_and_the_plainest_are_the_likeliest() -> None:
    assert PRIOR.sum() == pytest.approx(1.0)
    assert SHAPES[:, 0].min() > 1.0
    height, rise, tail = SHAPES[np.argmax(PRIOR)]
    assert height < 1.4
    assert 0.6 < rise < 2.8
    assert 0.3 < rise * tail < 3.0
