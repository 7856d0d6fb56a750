from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.svg_scales import Scale, duration_ticks, linear_ticks, log_ticks, padded, spread_positions

positive = st.floats(min_value=1e-4, max_value=1e6)
ratios = st.floats(min_value=1.2, max_value=1e5)


@given(positive, ratios, st.booleans())
def test_a_scale_maps_its_ends_to_its_ends_and_clamps_beyond(low: float, ratio: float, log: bool) -> None:
    scale = Scale(low=low, high=low * ratio, start=300.0, end=20.0, logarithmic=log)
    assert scale(low) == pytest.approx(300.0)
    assert scale(low * ratio) == pytest.approx(20.0)
    assert scale(low * ratio * 3) == pytest.approx(20.0)


@given(positive, ratios, st.booleans(), st.floats(min_value=0.0, max_value=1.0))
def test_value_at_undoes_the_scale(low: float, ratio: float, log: bool, share: float) -> None:
    scale = Scale(low=low, high=low * ratio, start=10.0, end=110.0, logarithmic=log)
    value = scale.value_at(10.0 + 100.0 * share)
    assert scale(value) == pytest.approx(10.0 + 100.0 * share, abs=1e-6)


def test_an_empty_scale_is_refused() -> None:
    with pytest.raises(ValueError, match="low < high"):
        Scale(low=1.0, high=1.0, start=0.0, end=1.0)


@given(positive, ratios, st.integers(min_value=3, max_value=9))
def test_ticks_lie_inside_ascend_and_are_few(low: float, ratio: float, most: int) -> None:
    high = low * ratio
    for ticks in (linear_ticks(low, high, most), log_ticks(low, high, most), duration_ticks(low, high, most)):
        assert 1 <= len(ticks) <= most
        assert ticks == sorted(set(ticks))
        slack = (high - low) * 1e-6
        assert all(low - slack <= tick <= high + slack for tick in ticks)


def test_durations_are_marked_where_clocks_divide() -> None:
    assert duration_ticks(8.0, 700.0, 8) == [10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0]


@given(positive, st.booleans())
def test_a_padded_domain_of_one_value_is_not_empty(value: float, log: bool) -> None:
    low, high = padded(value, value, logarithmic=log)
    assert low < value < high


@given(st.lists(st.floats(min_value=-50, max_value=450), max_size=15))
def test_labels_are_separated_in_order_and_inside(positions: list[float]) -> None:
    spread = spread_positions(positions, 13.0, 0.0, 400.0)
    assert all(-1e-6 <= place <= 400.0 + 1e-6 for place in spread)
    ordered = sorted(spread)
    assert all(b - a >= 13.0 - 1e-6 for a, b in itertools.pairwise(ordered))
    by_wish = [spread[k] for k in sorted(range(len(positions)), key=lambda k: positions[k])]
    assert by_wish == sorted(by_wish)


def test_labels_that_cannot_fit_share_the_room_evenly() -> None:
    spread = spread_positions([5.0] * 11, 13.0, 0.0, 100.0)
    assert spread == pytest.approx([10.0 * k for k in range(11)])
