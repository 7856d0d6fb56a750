"""Where a curve reaches its target, and how many scores in a row that takes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from search_spaces import Configuration
from tuner.domain.measurement import CurvePoint, Measurement, Outcome, Purpose, TargetCount, crossing


def curve(values: Sequence[float]) -> list[CurvePoint]:
    return [
        CurvePoint(training_seconds=10.0 * n, step=n, samples=100 * n, value=value)
        for n, value in enumerate(values, start=1)
    ]


def measured(points: tuple[CurvePoint, ...]) -> Measurement:
    return Measurement(
        configuration=Configuration(batch_size=32),
        purpose=Purpose.TRAINING,
        outcome=Outcome.PAUSED,
        curve=points,
    )


@pytest.mark.parametrize(
    ("values", "consecutive", "samples"),
    [
        ((0.5, 0.9, 0.5, 0.9, 0.9), 1, 175.0),
        ((0.5, 0.9, 0.5, 0.9, 0.9), 2, 375.0),
        ((0.5, 0.9, 0.5, 0.9, 0.9), 3, None),
        ((0.9, 0.9), 2, 100.0),
        ((0.5, math.nan, 0.9), 2, None),
        ((), 1, None),
    ],
)
def test_the_crossing_is_that_of_the_first_of_so_many_scores_in_a_row(
    values: tuple[float, ...], consecutive: int, samples: float | None
) -> None:
    found = crossing(curve(values), 0.8, maximize=True, consecutive=consecutive)
    assert (None if found is None else found[0]) == (None if samples is None else pytest.approx(samples))


def test_a_point_from_a_database_equals_a_new_one() -> None:
    point = CurvePoint(training_seconds=1.5, step=2, samples=3, value=0.25)
    assert CurvePoint.stored(1.5, 2, 3, 0.25) == point
    assert hash(CurvePoint.stored(1.5, 2, 3, 0.25)) == hash(point)


def test_finite_values_leave_out_the_untrained_model_and_broken_scores() -> None:
    points = tuple(
        CurvePoint(training_seconds=float(k), step=k, samples=k, value=value)
        for k, value in enumerate([0.1, 0.5, math.nan, 0.7, math.inf])
    )
    seen = measured(points)
    assert seen.trained_curve == points[1:]
    assert seen.finite_curve == points[1:2]
    assert seen.finite_values == (0.5, 0.7)


def test_a_curve_without_the_untrained_model_is_not_copied() -> None:
    points = tuple(curve([0.5, 0.7]))
    seen = measured(points)
    assert seen.finite_curve is seen.trained_curve is points


def test_a_score_is_counted_once_and_a_lost_target_from_the_start() -> None:
    count = TargetCount(0.4, maximize=False, consecutive=2)
    assert [count.is_reached(value) for value in (0.5, 0.4, 0.41, 0.39, 0.38)] == [False] * 4 + [True]
    assert not count.is_past(math.nan)
