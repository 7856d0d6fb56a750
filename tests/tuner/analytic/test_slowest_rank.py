from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.analytic.laws import expected_maximum
from tuner.analytic.slowest_rank import (
    delayed_ranks,
    slowest_step_seconds,
    unwaiting_batch_seconds,
)
from tuner.domain.cluster import RankDelay

ONE_LATE = (RankDelay(ranks=(1,), low=0.0, high=0.3),)
ALL_LATE = (RankDelay(ranks=None, low=0.0, high=0.3),)
COMPUTE, JITTER = 0.05, 0.1


def slowest(
    num_ranks: int, tau: int = 1, delays: tuple[RankDelay, ...] = (), persistent: float = 0.5
) -> float:
    found = slowest_step_seconds(
        np.array([COMPUTE]),
        np.array([float(num_ranks)]),
        np.array([float(tau)]),
        jitter=JITTER,
        persistent=persistent,
        delays=delays,
    )
    return float(found[0])


def drawn(num_ranks: int, tau: int, delays: tuple[RankDelay, ...], num_draws: int = 40_000) -> float:
    """Mean of the largest of the ranks' mean steps, half of the jitter's variance staying with a rank."""
    rng = np.random.default_rng(0)
    half = COMPUTE * JITTER * np.sqrt(0.5)
    total = COMPUTE + half * rng.standard_normal((num_draws, num_ranks))
    total += half * rng.standard_normal((num_draws, num_ranks)) / np.sqrt(tau)
    for delay in delays:
        for rank in range(num_ranks):
            if delay.slows(rank):
                total[:, rank] += rng.uniform(delay.low, delay.high, (tau, num_draws)).mean(axis=0)
    return float(total.max(axis=1).mean())


@pytest.mark.parametrize("delays", [ONE_LATE, ALL_LATE], ids=["one late", "all late"])
@pytest.mark.parametrize("num_ranks", [2, 4, 32])
@pytest.mark.parametrize("tau", [1, 8])
def test_waiting_for_delayed_ranks_takes_what_draws_of_them_take(
    num_ranks: int, tau: int, delays: tuple[RankDelay, ...]
) -> None:
    # The mean of 40,000 draws is known to half a percent.
    assert slowest(num_ranks, tau, delays) == pytest.approx(drawn(num_ranks, tau, delays), rel=0.01)


def test_a_sum_of_a_few_uniform_delays_is_a_little_above_the_draws() -> None:
    """The normal that stands for two uniform delays has the heavier tail."""
    found, truth = slowest(32, 2, ALL_LATE), drawn(32, 2, ALL_LATE)
    assert truth < found < 1.04 * truth


def test_several_delays_of_one_rank_add_up() -> None:
    both = (*ONE_LATE, RankDelay(ranks=None, low=0.01, high=0.03))
    assert slowest(4, 1, both) == pytest.approx(drawn(4, 1, both), rel=0.02)
    fixed = (RankDelay(ranks=(0,), low=0.2, high=0.2), RankDelay(ranks=(0, 1), low=0.1, high=0.1))
    assert slowest(2, 1, fixed) == pytest.approx(COMPUTE + 0.3, rel=1e-3)


def test_without_delays_it_is_blom_s_maximum() -> None:
    expected = COMPUTE * (1 + JITTER * expected_maximum(np.array([8.0]))[0])
    assert slowest(8) == pytest.approx(expected, rel=1e-12)
    assert slowest(8, delays=(RankDelay(ranks=(9,), low=0.0, high=1.0),)) == pytest.approx(expected)


def test_only_the_transient_part_of_jitter_averages_out() -> None:
    excess = {h: [slowest(8, tau, persistent=h) - COMPUTE for tau in (1, 16)] for h in (0.0, 1.0)}
    assert excess[0.0][1] == pytest.approx(excess[0.0][0] / 4)
    assert excess[1.0][1] == pytest.approx(excess[1.0][0])


@given(
    high=st.floats(0.0, 1.0),
    share=st.floats(0.0, 1.0),
    num_ranks=st.integers(2, 128),
    tau=st.sampled_from([1, 2, 16]),
)
def test_the_slowest_is_no_faster_than_the_mean_and_no_slower_than_the_longest_delay(
    high: float, share: float, num_ranks: int, tau: int
) -> None:
    delays = (RankDelay(ranks=(1,), low=share * high, high=high),)
    found = slowest(num_ranks, tau, delays)
    mean = 0.5 * (1 + share) * high
    assert found >= COMPUTE + mean - 1e-6
    # Jitter of many ranks on top: five standard deviations at the most; a normal's tail for sums.
    tail = 0.0 if tau == 1 else 5 * high
    assert found <= COMPUTE * (1 + 5 * JITTER) + high + tail + 1e-6


@given(num_ranks=st.integers(2, 128), exchange=st.floats(0.0, 0.1), overlap=st.floats(1.0, 10.0))
def test_where_nobody_waits_a_late_rank_costs_its_own_share_alone(
    num_ranks: int, exchange: float, overlap: float
) -> None:
    def batch(delays: tuple[RankDelay, ...]) -> float:
        ranks = np.array([float(num_ranks)])
        found = unwaiting_batch_seconds(
            np.array([COMPUTE]), np.array([exchange]), ranks, overlap=overlap, delays=delays
        )
        return float(found[0])

    alone = batch(())
    stuck = batch((RankDelay(ranks=(1,), low=1e9, high=1e9),))
    assert stuck == pytest.approx(alone * num_ranks / (num_ranks - 1), rel=1e-6)
    assert alone <= batch(ONE_LATE) <= stuck * (1 + 1e-9)


def test_rates_of_ranks_add_up() -> None:
    found = unwaiting_batch_seconds(
        np.array([0.1]), np.array([0.0]), np.array([2.0]), overlap=1.0, delays=ONE_LATE
    )
    # One rank at 0.1 s, one at 0.25 s a step, half of the batch each.
    assert found[0] == pytest.approx(1 / (0.5 / 0.1 + 0.5 / 0.25))


def test_ranks_delayed_alike_are_counted_together() -> None:
    groups = delayed_ranks((*ONE_LATE, *ALL_LATE), 4)
    assert sorted((g.count, round(g.mean, 6), g.is_uniform) for g in groups) == [
        (1, 0.3, False),
        (3, 0.15, True),
    ]
    assert delayed_ranks(ONE_LATE, 1) == ()
