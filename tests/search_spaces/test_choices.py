from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces import FloatRange, OneOf

bounds = st.tuples(st.floats(1e-8, 1e3), st.floats(1.0, 1e6)).map(lambda b: (b[0], b[0] * b[1]))


@given(bounds, st.integers(1, 12))
def test_levels_of_a_range_lie_in_it_and_reach_both_ends(limits, levels_per_decade):
    low, high = limits
    choice = FloatRange(low=low, high=high, levels_per_decade=levels_per_decade)
    levels = choice.levels()
    assert all(low * (1 - 1e-3) <= level <= high * (1 + 1e-3) for level in levels)
    assert levels[0] == pytest.approx(low, rel=1e-3)
    assert levels[-1] == pytest.approx(high, rel=1e-3)
    assert levels == sorted(levels)


@given(bounds, st.integers(0, 2**32 - 1))
def test_what_a_range_samples_it_contains(limits, seed):
    choice = FloatRange(low=limits[0], high=limits[1])
    assert choice.contains(choice.sample(np.random.default_rng(seed)))


@given(bounds, st.floats(-1e9, 1e9))
def test_the_nearest_value_of_a_range_is_in_it(limits, value):
    choice = FloatRange(low=limits[0], high=limits[1])
    nearest = choice.nearest(value)
    assert choice.contains(nearest)
    assert nearest == value or not limits[0] <= value <= limits[1]


def test_a_range_is_sampled_uniformly_in_the_logarithm():
    choice = FloatRange(low=1e-4, high=1.0)
    rng = np.random.default_rng(0)
    drawn = np.log10([float(choice.sample(rng)) for _ in range(4000)])
    # Quartiles of a uniform draw of 4,000 have a standard error of 0.7% of the range.
    assert np.quantile(drawn, [0.25, 0.5, 0.75]) == pytest.approx([-3, -2, -1], abs=0.15)


@pytest.mark.parametrize("value", [True, "0.1", 2.0, 0.0])
def test_a_range_does_not_contain_other_values(value):
    assert not FloatRange(low=1e-4, high=1.0).contains(value)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-1, 1), (2, 1)])
def test_a_range_needs_positive_ordered_bounds(low, high):
    with pytest.raises(ValueError, match="needs 0 < low <= high"):
        FloatRange(low=low, high=high)


def test_a_range_needs_levels():
    with pytest.raises(ValueError, match="levels_per_decade must be at least 1, got 0"):
        FloatRange(low=1, high=2, levels_per_decade=0)


def test_levels_of_a_range_whose_ratio_is_beyond_all_floats_are_finite():
    levels = FloatRange(low=1e-300, high=1e300, levels_per_decade=1).levels()
    assert len(levels) == 601
    assert levels[-1] == 1e300


def test_a_range_of_one_value_has_one_level():
    assert FloatRange(low=0.1, high=0.1).levels() == [0.1]


def test_listed_values_are_its_levels_samples_and_nearest():
    choice = OneOf([16, 32, 64])
    rng = np.random.default_rng(0)
    assert choice.levels() == [16, 32, 64]
    assert {choice.sample(rng) for _ in range(100)} == {16, 32, 64}
    assert choice.nearest(20) == 16
    assert choice.nearest(1000) == 64
    assert choice.nearest(32) == 32
    assert OneOf(["a", "b"]).nearest("c") == "a"
    assert choice.describe() == "one of 16, 32, 64"


def test_listed_values_must_be_there_and_distinct():
    with pytest.raises(ValueError, match="needs at least one value"):
        OneOf([])
    with pytest.raises(ValueError, match="lists a value twice"):
        OneOf([1, 1])
