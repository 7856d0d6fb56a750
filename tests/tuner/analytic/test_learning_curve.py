from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.levels import examples
from tests.tuner.analytic.made_measurements import configuration, run
from tuner.analytic.learning_curve import Arrivals, extrapolate, others_never
from tuner.analytic.plateau import TRAINED
from tuner.analytic.quasi_random import NUM_DRAWS
from tuner.analytic.rate_edge import RunEvidence

#: A run of one configuration.
curve = partial(run, configuration())


def spread(found: Arrivals, index: int = 0) -> float:
    return float((found.own[:, index] + found.common).std())


NOTHING = RunEvidence(configuration=configuration(), samples=np.zeros(0), progress=np.zeros(0))


@examples(15)
@given(share=st.floats(0.1, 0.99), noise=st.floats(0.0, 0.03), seed=st.integers(0, 99))
def test_a_run_is_never_expected_to_have_arrived_before_now(share: float, noise: float, seed: int) -> None:
    reported = curve(30_000.0, share=share, noise=noise, seed=seed)
    found = extrapolate([reported])
    if np.isfinite(found.median[0]):
        assert found.median[0] > np.log(reported.samples[-1])
        assert spread(found) > 0


def test_the_more_of_a_run_was_seen_the_surer_its_arrival() -> None:
    spreads = [spread(extrapolate([curve(30_000.0, share=share)])) for share in (0.1, 0.3, 0.9)]
    assert spreads[0] > spreads[1] > spreads[2] > 0


def test_half_a_run_shows_its_arrival_within_its_own_spread() -> None:
    inside = 0
    for seed in range(20):
        found = extrapolate([curve(30_000.0, noise=0.012, seed=seed)])
        inside += abs(found.median[0] - np.log(30_000.0)) < 1.645 * spread(found)
    # 90% of 20 are 18; wider than it says is the safe side.
    assert inside >= 16


def test_a_run_that_arrived_is_known_exactly_and_leaves_nothing_in_common() -> None:
    found = extrapolate([curve(30_000.0, share=1.05, arrived=True), curve(60_000.0, seed=1)])
    assert found.median[0] == pytest.approx(np.log(30_000.0))
    assert (found.own.std(axis=0)[0], found.unreachable[0]) == (0.0, 0.0)
    assert found.own.std(axis=0)[1] > 0
    assert found.common.std() == 0.0


def test_runs_are_surer_of_their_ratio_than_of_either() -> None:
    found = extrapolate([curve(30_000.0, share=0.3), curve(45_000.0, share=0.3, seed=1)])
    whole = found.own + found.common[:, None]
    assert np.corrcoef(whole.T)[0, 1] > 0.4
    assert (whole[:, 0] - whole[:, 1]).std() < whole.std(axis=0).max()
    ratio = found.median[1] - found.median[0]
    assert ratio == pytest.approx(np.log(1.5), abs=0.3)


def test_own_and_common_deviations_centre_on_the_median() -> None:
    found = extrapolate([curve(30_000.0), curve(45_000.0, seed=1)])
    medians = np.median(found.own + found.common[:, None], axis=0)
    assert np.abs(medians).max() < 0.3 * max(spread(found, 0), spread(found, 1))


def test_runs_without_a_scoring_are_passed_over() -> None:
    alone = extrapolate([curve(30_000.0)])
    concurrently = extrapolate([NOTHING, curve(30_000.0)])
    assert np.isinf(concurrently.median[0])
    assert concurrently.own.std(axis=0)[0] == 0.0
    assert concurrently.median[1] == pytest.approx(alone.median[0])


def test_without_any_scoring_nothing_is_fitted() -> None:
    found = extrapolate([NOTHING])
    assert np.isinf(found.median[0])
    empty = extrapolate([])
    assert empty.own.shape == (NUM_DRAWS, 0)
    assert empty.common.std() == 0.0


def test_a_curve_that_flattens_below_the_target_is_likely_unreachable() -> None:
    samples = np.geomspace(300.0, 300_000.0, 24)
    flat = RunEvidence(
        configuration=configuration(),
        samples=samples,
        progress=0.8 * (1.0 - (1.0 + samples / 2_000.0) ** -2.0),
    )
    found = extrapolate([flat])
    assert found.unreachable[0] > 0.8
    assert extrapolate([curve(30_000.0, share=0.9)]).unreachable[0] < 0.1


def test_a_run_that_still_gains_is_not_unreachable_however_slowly_it_rises() -> None:
    samples = np.geomspace(300.0, 300_000.0, 24)
    slow = RunEvidence(
        configuration=configuration(),
        samples=samples,
        progress=0.75 * (1.0 - (1.0 + samples / 20_000.0) ** -0.5),
    )
    found = extrapolate([slow])
    assert found.unreachable[0] < 0.5
    assert found.median[0] > np.log(300_000.0)


def test_one_run_that_stays_low_says_nothing_against_another() -> None:
    samples = np.geomspace(300.0, 300_000.0, 24)
    flat = RunEvidence(
        configuration=configuration(),
        samples=samples,
        progress=0.8 * (1.0 - (1.0 + samples / 2_000.0) ** -2.0),
    )
    concurrently = extrapolate([flat, curve(30_000.0, share=0.5)])
    assert concurrently.unreachable[0] > 0.8
    assert concurrently.unreachable[1] < 0.3
    assert concurrently.median[1] == pytest.approx(np.log(30_000.0), abs=0.5)


def test_a_run_that_came_to_its_end_arrives_no_more() -> None:
    reported = curve(30_000.0)
    found = extrapolate(
        [
            RunEvidence(
                configuration=configuration(),
                samples=reported.samples,
                progress=reported.progress,
                ended=True,
            )
        ]
    )
    assert found.unreachable[0] == 1.0


def test_runs_that_end_far_apart_say_less_of_others_than_runs_that_end_alike() -> None:
    assert others_never([]) == 0.0
    alike = [others_never([0.91] * num) for num in (1, 2, 3)]
    assert alike == pytest.approx([0.6, 0.84, 0.936])
    scattered = others_never([0.99, 0.92, 0.96])
    assert 0.6 < scattered < 0.9
    assert others_never([0.5, 0.45, 0.55]) == pytest.approx(alike[2])


@pytest.mark.parametrize(("last", "collapsed"), [(0.02, True), (0.3, True), (0.7, False)])
def test_runs_that_collapsed_say_nothing_of_how_far_others_come(last: float, collapsed: bool) -> None:
    """Three runs that came to 0.8 of the way and fell from there."""
    fell = [
        RunEvidence(
            configuration=configuration(1, batch, 0.5),
            samples=np.geomspace(1e3, 2e4, 8),
            progress=np.array([0.2, 0.5, 0.7, 0.8, 0.75, last, last, last]),
            turned_back=True,
        )
        for batch in (32, 64, 128)
    ]
    assert [one.has_collapsed for one in fell] == [collapsed] * 3
    alone = extrapolate(fell)
    assert (alone.unreachable_elsewhere == TRAINED.unknown) is collapsed
    found = extrapolate([*fell, curve(30_000.0, share=0.3)])
    assert (found.unreachable[:3] == 1.0).all()
    assert (found.unreachable_elsewhere > 0.9) is not collapsed


@pytest.mark.parametrize(
    ("progress", "collapsed"),
    [
        ([0.2, 0.8, 0.1], False),
        ([0.9, 0.9, 0.9, -3.0], False),
        ([0.9, 0.8, 0.8, -3.0], False),
        ([0.06, -0.02], False),
        ([0.9, 0.1, 0.1, 0.1], True),
        ([0.04, 0.0, 0.0, 0.0], False),
        ([], False),
    ],
)
def test_one_bad_score_is_no_collapse(progress: list[float], collapsed: bool) -> None:
    samples = np.arange(1.0, len(progress) + 1.0)
    one = RunEvidence(configuration=configuration(), samples=samples, progress=np.array(progress))
    assert one.has_collapsed is collapsed
