"""The shape that runs of one workload share: learnt from what they passed, the prior's elsewhere."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.levels import examples
from tests.tuner.analytic.made_curves import power_tail
from tuner.analytic.curve_template import LEVELS, PRIOR, Passage, ahead_of, passage_of, template_of

Array = npt.NDArray[np.float64]


def passed(share: float, *, to_target: float = 5_000.0, height: float = 1.2, rise: float = 1.0) -> Passage:
    samples = np.geomspace(0.001, share, 60) * to_target
    return passage_of(samples, power_tail(samples, to_target, height, rise))


def true_folds(height: float = 1.2, rise: float = 1.0) -> Array:
    """e-folds between levels of a curve with a tail of 1: y = h (1 - 1 / (1 + K s^u))."""
    return np.diff(np.log(LEVELS / height / (1.0 - LEVELS / height)) / rise)


@examples(60)
@given(progress=st.lists(st.floats(-0.03, 1.0), min_size=1, max_size=30).map(np.array))
def test_levels_are_passed_one_after_the_other_and_none_beyond_the_furthest(progress: Array) -> None:
    samples = np.geomspace(10.0, 1_000.0, len(progress)) if len(progress) > 1 else np.array([10.0])
    found = passage_of(samples, progress)
    known = np.isfinite(found.log_samples)
    assert (np.diff(found.log_samples[known]) >= -1e-12).all()
    assert (LEVELS[known] <= found.progress).all()
    assert found.progress == progress.max()
    assert found.log_seen == pytest.approx(math.log(samples[-1]))


def test_a_level_counts_at_its_first_passage() -> None:
    found = passage_of(np.array([1.0, 10.0, 100.0, 1000.0]), np.array([0.0, 0.4, 0.2, 0.45]))
    assert found.log_samples[LEVELS == 0.2] == pytest.approx(math.log(10.0) / 2)
    assert found.log_samples[LEVELS == 0.4] == pytest.approx(math.log(10.0))


@examples(30)
@given(progress=st.floats(-0.03, 1.0), other=st.floats(-0.03, 1.0), seen=st.floats(0.05, 1.2))
def test_less_lies_ahead_of_what_came_further(progress: float, other: float, seen: float) -> None:
    template = template_of([passed(seen)])
    (far, far_sd), (near, near_sd) = (template.ahead(p) for p in sorted((progress, other)))
    assert far >= near >= 0.0
    assert min(far_sd, near_sd) >= 0.0
    assert template.ahead(1.0) == (0.0, 0.0)


@pytest.mark.parametrize("rise", [0.7, 1.0, 1.6])
def test_the_shape_of_runs_that_arrived_is_recovered_whatever_their_pace(rise: float) -> None:
    paces = np.geomspace(1e3, 1e6, 20)
    template = template_of([passed(1.2, to_target=t, rise=rise) for t in paces])
    found = template.weights @ template.folds
    np.testing.assert_allclose(found, true_folds(rise=rise), rtol=0.1, atol=0.02)
    assert template.ahead(0.1)[1] < 0.05


def test_without_runs_the_shapes_are_as_probable_as_beforehand() -> None:
    template = template_of([])
    assert (template.folds > 0).all()
    np.testing.assert_array_equal(template.weights, PRIOR)
    mean, sd = template.ahead(0.2)
    # As recorded networks differ.
    assert 2.3 < mean < 3.5
    assert 0.6 < sd < 1.2


def test_what_was_passed_slowly_goes_on_slowly() -> None:
    prior, slow, fast = (
        template_of(runs) for runs in ([], [passed(0.3, rise=0.6)] * 3, [passed(0.3, rise=2.0)] * 3)
    )
    ahead = LEVELS[:-1] >= 0.7
    one, other, beforehand = ((t.weights @ t.folds)[ahead] for t in (slow, fast, prior))
    assert (one > beforehand).all()
    assert (other < beforehand).all()


def test_the_further_runs_came_the_better_the_shape_is_known() -> None:
    early, late = (template_of([passed(share)] * 3).ahead(0.9)[1] for share in (0.05, 0.8))
    assert late < 0.8 * early


def test_the_order_of_runs_does_not_matter() -> None:
    runs = [passed(share, rise=rise) for share, rise in ((0.2, 1.0), (1.1, 0.8), (0.6, 1.5))]
    one, other = template_of(runs), template_of(runs[::-1])
    np.testing.assert_allclose(one.folds, other.folds)
    np.testing.assert_allclose(one.weights, other.weights)


def test_a_run_that_has_passed_little_hardly_moves_what_others_showed() -> None:
    others = [passed(1.2, to_target=t) for t in np.geomspace(1e3, 1e5, 10)]
    one, other = template_of(others), template_of([*others, passed(0.02, rise=0.5)])
    assert one.ahead(0.3)[0] == pytest.approx(other.ahead(0.3)[0], rel=0.02)


def test_the_further_the_target_the_less_sure() -> None:
    far, near = (ahead_of(passed(share), template_of([])) for share in (0.1, 0.7))
    assert far.folds > near.folds
    assert far.form_sd / near.form_sd == pytest.approx(math.sqrt(far.folds / near.folds))


def test_a_crossing_lies_between_the_scorings_around_it() -> None:
    samples = np.array([1000.0, 2000.0, 4000.0, 8000.0])
    values = power_tail(samples, 5_000.0, 1.2)
    passage = passage_of(samples, values)
    truth = np.interp(1.0, values, np.log(samples))
    assert passage.log_samples[-1] == pytest.approx(truth, abs=0.02)
