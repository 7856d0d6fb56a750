from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.made_clusters import Asked, searched
from benchmarks.made_clusters_jobs import APPS, GOALS, NODE_COUNTS, RecordedSteps, made_cluster
from benchmarks.step_time import RECORDINGS

needs_recordings = pytest.mark.skipif(
    not all(path.is_file() for path in RECORDINGS), reason=f"no tables of Pollux's throughput at {RECORDINGS}"
)
ONE_NODE = RecordedSteps(batch_size_per_rank=np.array([10.0, 20.0, 40.0]), seconds=np.array([1.0, 1.5, 2.5]))
SEVERAL = RecordedSteps(batch_size_per_rank=np.array([10.0, 20.0]), seconds=np.array([2.0, 2.1]))


@pytest.mark.parametrize(
    ("share", "seconds"),
    [
        (15.0, 2.05),  # between recorded shares
        (20.0, 2.1),
        (24.0, 2.1),  # as long as the most recorded samples: compute still hides behind the exchange
        (60.0, 3.5),  # as on one node, extrapolated
        (8.0, 1.9),  # saves what one node saves
        (0.0, 1.5),
    ],
)
def test_beyond_recorded_shares_steps_change_with_the_compute_of_one_node(
    share: float, seconds: float
) -> None:
    assert SEVERAL.at(share, ONE_NODE) == pytest.approx(seconds)


def test_fewer_samples_take_at_least_half_of_the_shortest_step() -> None:
    short = replace(SEVERAL, seconds=np.array([0.5, 0.6]))
    assert short.at(0.0, ONE_NODE) == pytest.approx(0.25)


@pytest.mark.slow
@needs_recordings
@pytest.mark.parametrize("app", APPS)
def test_a_made_cluster_knows_its_truth(app: str) -> None:
    made = made_cluster(app, 5)
    for configuration in made.configurations[:: len(made.configurations) // 20]:
        run, truth = made.recording.run(configuration), made.seconds_to_target(configuration)
        if run.end is None:
            assert run.seconds == pytest.approx(truth, rel=0.15)
    best = made.best("seconds")
    assert 299.0 < made.seconds_to_target(best) < 10_001.0
    assert made.cost(made.best("deadline"), "deadline") >= made.cost(made.best("dollars"), "dollars")
    assert {c.nodes for c in made.configurations} == set(NODE_COUNTS)


@pytest.mark.slow
@needs_recordings
@pytest.mark.parametrize("goal", GOALS)
def test_a_search_is_repeatable_and_judged_by_the_truth(goal: str) -> None:
    first, again = (searched(Asked(app="cifar10", seed=2, goal=goal)) for _ in range(2))
    assert first.row() == again.row()
    assert first.answer is not None
    assert first.regret >= 1.0
    assert set(first.timed) <= set(NODE_COUNTS)


@pytest.mark.slow
@needs_recordings
def test_a_search_that_knows_the_steps_was_charged_nothing_for_them() -> None:
    found = searched(Asked(app="cifar10", seed=2, goal="seconds", knows_steps=True))
    assert found.timed == NODE_COUNTS
    assert found.spent / found.best_cost < 30.0
    assert found.forecasts is None
