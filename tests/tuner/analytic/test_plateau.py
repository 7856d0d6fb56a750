"""The chance that a run never reaches its target, from the scores so far."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.levels import examples
from tuner.analytic.plateau import (
    FEWEST_SCORES,
    RECORDED,
    TRAINED,
    NeverOdds,
    chance_of_never,
    needed_folds,
    plateau_features,
)

Array = npt.NDArray[np.float64]
SAMPLES = np.geomspace(100.0, 3_200.0, 11)
curves = st.lists(st.floats(-0.03, 0.99), min_size=FEWEST_SCORES, max_size=30).map(np.array)


def spaced(progress: Array) -> Array:
    """Samples of a curve that is scored at even distances."""
    return 100.0 * np.arange(1, len(progress) + 1)


def rising(last: float) -> Array:
    """A curve that gains in proportion to samples, up to `last`."""
    return last * SAMPLES / SAMPLES[-1]


def test_a_curve_that_rises_and_is_near_the_target_is_likely_to_arrive() -> None:
    chances = [chance_of_never(SAMPLES, rising(last), RECORDED) for last in (0.5, 0.8, 0.9, 0.97)]
    assert chances == sorted(chances, reverse=True)
    assert chances[2] < 0.3
    assert chances[3] < 0.1


@pytest.mark.parametrize("level", [0.0, 0.2, 0.4])
def test_a_flat_curve_far_from_the_target_is_not_likely_to_arrive(level: float) -> None:
    flat = np.full(len(SAMPLES), level)
    assert chance_of_never(SAMPLES, flat, RECORDED) > 0.9


def test_a_curve_that_levels_off_is_less_likely_to_arrive_than_one_that_goes_on() -> None:
    folds = np.log(SAMPLES / SAMPLES[0])
    steady, slowing = 0.6 * folds / folds[-1], 0.6 * (1.0 - np.exp(-3.0 * folds))
    assert chance_of_never(SAMPLES, slowing, RECORDED) > chance_of_never(SAMPLES, steady, RECORDED) + 0.1


def test_noise_alone_does_not_make_a_rising_run_look_stuck() -> None:
    rng = np.random.default_rng(0)
    noise = 0.05 * rng.standard_normal((200, len(SAMPLES)))
    noisy = [chance_of_never(SAMPLES, np.minimum(rising(0.9) + own, 0.99), RECORDED) for own in noise]
    flat = chance_of_never(SAMPLES, np.full(len(SAMPLES), 0.5), RECORDED)
    assert np.median(noisy) == pytest.approx(chance_of_never(SAMPLES, rising(0.9), RECORDED), abs=0.1)
    assert max(noisy) < flat - 0.2


def test_a_flat_curve_with_noise_is_less_surely_stuck_than_one_without() -> None:
    zigzag = 0.5 + 0.1 * (-1.0) ** np.arange(len(SAMPLES))
    assert needed_folds(SAMPLES, zigzag) < needed_folds(SAMPLES, np.full(len(SAMPLES), 0.5)) / 10


def test_a_straight_line_in_log_samples_needs_what_is_left_over_its_slope() -> None:
    folds = np.log(SAMPLES / SAMPLES[0])
    # 0.1 for each e-fold: from 0.2 to 1 there are 8 e-folds in all.
    assert needed_folds(SAMPLES, 0.2 + 0.1 * folds) == pytest.approx(8.0 - folds[-1])


@examples(60)
@given(progress=curves, factor=st.floats(1e-3, 1e6))
def test_the_unit_of_samples_does_not_matter(progress: Array, factor: float) -> None:
    samples = np.geomspace(100.0, 5_000.0, len(progress))
    # The place where the later half begins may fall between two scores by rounding: keep clear of it.
    edge = np.abs(np.log(samples[-1] / samples) - np.log(2.0)).min()
    if edge > 1e-6:
        chance = chance_of_never(samples, progress, RECORDED)
        assert chance_of_never(factor * samples, progress, RECORDED) == pytest.approx(
            chance, rel=1e-3, abs=1e-3
        )


@examples(60)
@given(progress=curves)
def test_it_is_a_chance_and_its_features_are_clipped(progress: Array) -> None:
    assert 0.0 < chance_of_never(spaced(progress), progress, RECORDED) < 1.0
    log_folds, gained = plateau_features(spaced(progress), progress)
    assert np.log(0.05) <= log_folds <= np.log(50.0)
    assert -0.2 <= gained <= 1.0
    assert needed_folds(spaced(progress), progress) > 0.0


@pytest.mark.parametrize("num", range(FEWEST_SCORES))
@pytest.mark.parametrize("odds", [RECORDED, TRAINED], ids=["recorded", "trained"])
def test_with_too_few_scores_it_is_unknown(num: int, odds: NeverOdds) -> None:
    assert chance_of_never(SAMPLES[:num], np.full(num, 0.4), odds) == odds.unknown


def test_a_run_that_trains_is_given_up_where_it_levels_off_and_not_where_it_starts() -> None:
    low, high = (chance_of_never(SAMPLES, np.full(len(SAMPLES), level), TRAINED) for level in (0.0, 0.9))
    assert high > 0.9
    assert low < 0.5
    assert chance_of_never(SAMPLES, rising(0.5), TRAINED) < 0.3
