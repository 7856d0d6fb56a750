"""Constants are found again from timings that were made with them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.calibration.fits import fit_line, fit_overlap, jitter_of

SIZES = np.array([4.0, 16.0, 64.0, 256.0])


@given(
    fixed=st.floats(1e-4, 1e-2),
    per_sample=st.floats(1e-5, 1e-3),
    seed=st.integers(0, 100),
)
def test_both_constants_are_found_in_noise_and_lie_within_their_spread(
    fixed: float, per_sample: float, seed: int
) -> None:
    noise = 1 + 0.02 * np.random.default_rng(seed).standard_normal((9, 4))
    found = fit_line(np.ones(4), SIZES, (fixed + per_sample * SIZES) * noise)
    # A part that is a hundredth of the whole everywhere is not to be had more exactly.
    for figure, true, share in (
        (found.fixed, fixed, fixed / (fixed + per_sample * SIZES[0])),
        (found.per_unit, per_sample, per_sample * SIZES[-1] / (fixed + per_sample * SIZES[-1])),
    ):
        assert figure.low <= figure.value <= figure.high
        assert figure.value == pytest.approx(true, rel=0.06 / share)
    assert found.misfit < 0.06


def test_no_constant_is_negative_where_a_straight_line_s_would_be() -> None:
    # Faster than in proportion: least squares cross zero before the first size.
    seconds = np.array([[1e-3, 5e-3, 30e-3, 200e-3]])
    assert np.polyfit(SIZES, seconds[0], 1)[1] < 0
    found = fit_line(np.ones(4), SIZES, seconds)
    assert found.fixed.value > 0
    assert found.per_unit.value > 0
    assert found.misfit > 0.1


def test_small_sizes_count_as_much_as_large_ones() -> None:
    seconds = 1e-3 + 1e-3 * SIZES
    seconds[-1] *= 1.1
    found = fit_line(np.ones(4), SIZES, seconds[None])
    assert found.fixed.value == pytest.approx(1e-3, rel=0.3)


def made_windows(
    transient: float, persistent: float, *, ranks: int, rounds: int
) -> list[list[list[list[float]]]]:
    rng = np.random.default_rng(3)
    return [
        [
            [
                list(
                    map(
                        float,
                        (1 + persistent * rng.standard_normal()) * (1 + transient * rng.standard_normal(100)),
                    )
                )
                for _ in range(3)
            ]
            for _ in range(rounds)
        ]
        for _ in range(ranks)
    ]


@pytest.mark.parametrize(("transient", "persistent"), [(0.1, 0.0), (0.05, 0.1), (0.1, 0.1)])
def test_jitter_is_distinguished_into_what_lasts_and_what_does_not(
    transient: float, persistent: float
) -> None:
    jitter, share = jitter_of(made_windows(transient, persistent, ranks=6, rounds=12))
    assert jitter.value == pytest.approx(np.hypot(transient, persistent), rel=0.2)
    assert share == pytest.approx(persistent**2 / (transient**2 + persistent**2), abs=0.15)


def test_a_window_in_which_the_machine_was_away_is_no_jitter() -> None:
    windows = made_windows(0.05, 0.0, ranks=2, rounds=9)
    windows[0][4][1] = [10 * seconds for seconds in windows[0][4][1]]
    assert jitter_of(windows)[0].value == pytest.approx(0.05, rel=0.25)


@pytest.mark.parametrize("overlap", [1.0, 1.5, 3.0])
def test_overlap_is_what_makes_a_step_as_long_as_it_was(overlap: float) -> None:
    compute, exchange = 0.02, 0.01
    combined = (compute**overlap + exchange**overlap) ** (1 / overlap)
    found = fit_overlap(np.full(5, compute), np.full(5, combined), exchange, jitter=0.0, num_ranks=2)
    assert found is not None
    assert found.value == pytest.approx(overlap, rel=1e-3)


def test_an_exchange_too_short_beside_the_step_says_nothing_of_overlap() -> None:
    assert fit_overlap(np.full(5, 0.1), np.full(5, 0.1), 1e-3, jitter=0.0, num_ranks=2) is None


def test_rounds_that_contradict_each_other_say_nothing_of_overlap() -> None:
    combined = np.array([0.05, 0.01, 0.02])
    assert fit_overlap(np.full(3, 0.02), combined, 0.01, jitter=0.0, num_ranks=2) is None


def test_overlap_stays_within_its_bounds_where_timings_are_beyond() -> None:
    longer = fit_overlap(np.full(3, 0.02), np.full(3, 0.05), 0.01, jitter=0.0, num_ranks=2)
    shorter = fit_overlap(np.full(3, 0.02), np.full(3, 0.01), 0.01, jitter=0.0, num_ranks=2)
    assert longer is not None
    assert shorter is not None
    assert (longer.value, shorter.value) == (1.0, 10.0)
