"""What is measured follows from the job, and reaches the ranks as it was."""

from __future__ import annotations

import json

import pytest

from tests.tuner.calibration.made_timings import made_plan
from tuner.calibration import CalibrationPlan
from tuner.calibration.plan import batch_sizes_to_time, sizes_to_send


def test_ranks_read_the_plan_that_was_made() -> None:
    plan = made_plan(node_counts=(2, 4))
    assert CalibrationPlan.from_payload(json.loads(json.dumps(plan.to_payload()))) == plan


@pytest.mark.parametrize(
    ("smallest", "largest", "most", "expected"),
    [
        (4, 256, None, (4, 16, 64, 256)),
        (0, 1024, None, (1, 10, 102, 1024)),
        (8, 256, 64, (8, 16, 32, 64)),
        (32, 32, None, (8, 13, 20, 32)),
        (1, 1, None, (1, 2)),
        (4, 100_000, None, (4, 28, 199, 1400)),
    ],
)
def test_batches_of_a_rank_cover_what_the_job_may_give_it(
    smallest: int, largest: int, most: int | None, expected: tuple[int, ...]
) -> None:
    assert batch_sizes_to_time(smallest, largest, num_samples=1400, most=most) == expected


@pytest.mark.parametrize("parameter_bytes", [72, 2_440, 1_000_000, 500_000_000])
def test_sizes_sent_lie_around_the_parameters_and_are_whole_numbers(parameter_bytes: int) -> None:
    sizes = sizes_to_send(parameter_bytes)
    assert parameter_bytes in sizes
    assert len(sizes) >= 4
    assert all(size % 4 == 0 and size >= 4 for size in sizes)
    assert max(sizes) <= max(parameter_bytes, 2**26)


def test_one_batch_size_or_one_node_is_not_enough() -> None:
    plan = made_plan()
    with pytest.raises(ValueError, match="two batch sizes"):
        CalibrationPlan.from_payload({**plan.to_payload(), "batch_sizes_per_rank": [4]})
    with pytest.raises(ValueError, match="at least two nodes"):
        made_plan(node_counts=(1,))


def test_slow_links_are_sent_smaller_vectors_but_the_parameters_all_the_same() -> None:
    assert max(sizes_to_send(2_440, most=30_000)) == 30_000
    assert max(sizes_to_send(500_000, most=30_000)) == 500_000
