from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.tuner.emulation.toy import CLUSTER
from tuner.domain.cluster import RankDelay, VirtualCluster
from tuner.emulation.timing import StepDraws


def drawn(cluster: VirtualCluster, num_ranks: int = 1, count: int = 4000, seed: int = 0) -> np.ndarray:
    draws = StepDraws(cluster, num_ranks, seed)
    return np.array([[draws.seconds(rank, 10) for _ in range(count)] for rank in range(num_ranks)])


def test_without_jitter_every_step_takes_what_the_law_says() -> None:
    np.testing.assert_allclose(drawn(CLUSTER, 3, 5), 0.02)


def test_jitter_has_its_coefficient_of_variation() -> None:
    steps = drawn(replace(CLUSTER, jitter=0.2, persistent=0.0))
    assert steps.mean() == pytest.approx(0.02, rel=0.02)
    assert steps.std() == pytest.approx(0.004, rel=0.05)


def test_the_persistent_part_stays_with_a_rank() -> None:
    steps = drawn(replace(CLUSTER, jitter=0.2, persistent=1.0), num_ranks=400, count=3)
    assert steps.std(axis=1).max() == pytest.approx(0.0, abs=1e-12)
    assert steps[:, 0].std() == pytest.approx(0.004, rel=0.15)


def test_no_step_is_shorter_than_a_tenth() -> None:
    assert drawn(replace(CLUSTER, jitter=2.0)).min() >= 0.1 * 0.02 - 1e-12


def test_delays_slow_their_ranks_alone() -> None:
    steps = drawn(replace(CLUSTER, delays=(RankDelay(ranks=(1,), low=0.1, high=0.3),)), num_ranks=2)
    np.testing.assert_allclose(steps[0], 0.02)
    assert steps[1].mean() == pytest.approx(0.22, rel=0.02)
    assert steps[1].min() >= 0.12


def test_delays_are_those_of_real_ranks_with_the_same_seed() -> None:
    still = replace(CLUSTER, jitter=0.2, delays=(RankDelay(ranks=None, low=0.1, high=0.3),))
    draws, real = StepDraws(still, 2, 7), np.random.default_rng((7, 1, 2))
    for _ in range(20):
        assert draws.parts(1, 10)[1] == real.uniform(0.1, 0.3)


def test_a_rank_fails_as_often_as_stated() -> None:
    failing = replace(CLUSTER, seconds_between_failures=2.0, restart_seconds=5.0)
    failed = (drawn(failing, count=20_000) > 5.0).mean()
    assert failed == pytest.approx(0.02 / 2.0, rel=0.15)


def test_what_a_rank_draws_does_not_depend_on_the_others() -> None:
    jittery = replace(CLUSTER, jitter=0.3)
    np.testing.assert_array_equal(drawn(jittery, 2, 50)[1], drawn(jittery, 5, 50)[1])
    assert not np.array_equal(drawn(jittery, 2, 50)[0], drawn(jittery, 2, 50)[1])


def test_draws_go_on_from_their_state() -> None:
    jittery = replace(CLUSTER, jitter=0.3, delays=(RankDelay(ranks=None, low=0.0, high=1.0),))
    one, other = StepDraws(jittery, 2, 0), StepDraws(jittery, 2, 0)
    for _ in range(7):
        one.seconds(1, 3)
    other.load(one.state())
    assert [other.seconds(1, 3) for _ in range(400)] == [one.seconds(1, 3) for _ in range(400)]
