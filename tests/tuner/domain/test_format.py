from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces import AxisValue, Configuration
from tuner.domain.format import (
    format_chance,
    format_configuration,
    format_count,
    format_dollars,
    format_duration_tick,
    format_interval,
    format_number,
    format_ratio,
    format_seconds,
    format_share,
    format_short_count,
    sentence,
)
from tuner.domain.recommendation import Estimate


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0, "0 s"),
        (0.00042, "420 µs"),
        (0.01234, "12.3 ms"),
        (0.9999, "1 s"),
        (9.812, "9.81 s"),
        (59.97, "1m 00s"),
        (92.0, "1m 32s"),
        (3599.6, "1h 00m"),
        (7500.0, "2h 05m"),
        (273_600.0, "3d 4h"),
        (math.inf, "out of reach"),
        (math.nan, "unknown"),
    ],
)
def test_durations_read_as_people_say_them(seconds: float, words: str) -> None:
    assert format_seconds(seconds) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(60.0, "1m"), (90.0, "1m 30s"), (7200.0, "2h"), (86400.0, "1d"), (864_000.0, "10d")],
)
def test_ticks_of_an_axis_leave_out_parts_that_are_zero(seconds: float, words: str) -> None:
    assert format_duration_tick(seconds) == words


@pytest.mark.parametrize(
    ("dollars", "words"),
    [(None, "–"), (0.0, "$0"), (0.0031, "$0.0031"), (0.42, "$0.42"), (12.5, "$12.50"), (1234.4, "$1,234")],
)
def test_prices_keep_the_digits_that_matter(dollars: float | None, words: str) -> None:
    assert format_dollars(dollars) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.05123, "0.0512"),
        (12.34, "12.3"),
        (1234.0, "1,234"),
        (4.2e-5, "4.2e-05"),
        (0.0, "0"),
        (-2.5, "-2.5"),
    ],
)
def test_numbers_have_three_significant_digits(value: float, words: str) -> None:
    assert format_number(value) == words


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_no_number_is_ever_shown_as_nan_or_infinity(value: float) -> None:
    shown = [
        format_number(value),
        format_count(value),
        format_dollars(abs(value)),
        format_seconds(abs(value)),
    ]
    assert not any(word in text.lower() for text in shown for word in ("nan", "inf"))


def test_shares_are_not_rounded_to_all_or_nothing() -> None:
    assert [format_share(share) for share in (0.0, 0.004, 0.5, 0.996, 1.0)] == [
        "0%",
        "<1%",
        "50%",
        ">99%",
        "100%",
    ]


def test_an_interval_without_an_end_says_so() -> None:
    assert format_interval(Estimate(lower=70.0, median=92.0, upper=math.inf)) == "1m 10s to no upper bound"
    endless = Estimate(lower=math.inf, median=math.inf, upper=math.inf)
    assert format_interval(endless) == "out of reach"


def test_a_configuration_is_said_in_words_with_every_axis() -> None:
    what = Configuration(nodes=1, batch_size=1024, learning_rate=0.05, strategy="gossip_pull", period=8)
    assert format_configuration(what) == "1 node, batch 1,024, learning rate 0.05, gossip_pull, period=8"


@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        ({"strategy": "all_reduce"}, "all_reduce"),
        ({"strategy": "gossip_pull", "tau": 4}, "gossip_pull (tau 4)"),
        ({"strategy": "elastic_averaging", "beta": 0.8, "tau": 10}, "elastic_averaging (tau 10, beta 0.8)"),
        (
            {"strategy": "diloco", "tau": 16, "outer_learning_rate": 0.7, "outer_momentum": 0.9},
            "diloco (tau 16, outer learning rate 0.7, outer momentum 0.9)",
        ),
    ],
)
def test_a_strategy_is_said_with_its_knobs(knobs: dict[str, AxisValue], words: str) -> None:
    what = Configuration({"nodes": 4, "batch_size": 64, "learning_rate": 0.05, **knobs})
    assert format_configuration(what) == f"4 nodes, batch 64, learning rate 0.05, {words}"


def test_counts_and_ratios_are_short_on_axes_and_in_headlines() -> None:
    assert [format_short_count(count) for count in (300, 5000, 99_830.7, 1_500_000)] == [
        *("300", "5k", "99.8k", "1.5M"),
    ]
    assert [format_ratio(ratio) for ratio in (2.94, 13.2, 120.0)] == ["2.9x", "13x", "120x"]


def test_a_sentence_begins_large_and_ends_with_a_stop() -> None:
    said = ("ended", "Ended.", " why? ", "", "gossip_pull needs more")
    assert [sentence(words) for words in said] == [
        "Ended.",
        "Ended.",
        "Why?",
        "",
        "gossip_pull needs more.",
    ]


def test_a_chance_is_never_nought_or_certain() -> None:
    shown = [format_chance(chance) for chance in (0.0, 0.04, 0.3, 0.96, 1.0)]
    assert shown == ["below 5%", "below 5%", "30%", "above 95%", "above 95%"]
