import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.probes.slice_plan import EvaluationPoints, first_evaluation


@given(first=st.integers(1, 5000), growth=st.floats(1.01, 2), samples=st.integers(0, 10**7))
def test_next_evaluation_point_lies_beyond_and_none_between_is_left_out(
    first: int, growth: float, samples: int
) -> None:
    points = EvaluationPoints(first, growth)
    point = points.next_after(samples)
    assert point > samples
    # Whoever stands just before the mark is sent to the same one.
    assert points.next_after(point - 1) == point


def test_evaluation_points_grow_by_the_factor() -> None:
    points = EvaluationPoints(100, 1.5)
    found, samples = [], 0
    for _ in range(5):
        samples = points.next_after(samples)
        found.append(samples)
    assert found == [100, 150, 225, 338, 507]


@given(batch_size=st.integers(1, 200))
def test_small_first_evaluation_points_stay_apart(batch_size: int) -> None:
    points = EvaluationPoints(1, 1.01)
    assert points.next_after(batch_size) > batch_size


def test_horizon_is_an_evaluation_point() -> None:
    points = EvaluationPoints(100, 1.5, horizon_samples=300)
    assert points.next_after(225) == 300
    assert points.next_after(300) == 338


def test_first_evaluation_point_is_a_thirty_second_of_an_epoch_unless_stated() -> None:
    assert first_evaluation(60_000, None) == 1875
    assert first_evaluation(1437, None) == 1024
    assert first_evaluation(3, None) == 3
    assert first_evaluation(1437, 7) == 7


def test_growth_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match="growth > 1"):
        EvaluationPoints(10, 1.0)
