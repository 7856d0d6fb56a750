from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.branch_probes import (
    Problem,
    Training,
    branch_estimate,
    crossing,
    left_over,
    probe_estimate,
    train_to_target,
)
from tuner.domain.workload import SGDSettings
from tuner.workloads.digits import Digits

TRUNK = [(100 * k, 1.0 - math.exp(-0.2 * k)) for k in range(1, 30)]


def slower(times: float) -> list[tuple[int, float]]:
    """A run that takes so many times the trunk's samples."""
    return [(int(times * samples), value) for samples, value in TRUNK]


@pytest.mark.parametrize("times", [0.5, 1.0, 3.0])
def test_short_probes_and_branches_of_a_warped_curve_show_the_warp(times: float) -> None:
    curve = slower(times)
    assert probe_estimate(curve, TRUNK, 300 * times) == pytest.approx(math.log(times), abs=0.05)
    started = TRUNK[4]
    left = [(int(times * (samples - started[0])), value) for samples, value in TRUNK[5:12]]
    for from_trunk in (True, False):
        reported = branch_estimate(left, TRUNK, started, from_trunk=from_trunk)
        assert reported == pytest.approx(math.log(times), abs=0.05)


def test_a_branch_that_jumps_is_known_by_what_follows_the_jump() -> None:
    started = TRUNK[4]
    # A smaller rate takes the noise away at once, and goes on as slowly as the trunk's third.
    jumped = [(3 * (samples - TRUNK[9][0]) + 10, value) for samples, value in TRUNK[9:16]]
    assert branch_estimate(jumped, TRUNK, started, from_trunk=False) == pytest.approx(math.log(3.0), abs=0.1)
    assert branch_estimate(jumped, TRUNK, started, from_trunk=True) < math.log(2.0)


def test_what_gains_nothing_counts_as_slow_not_as_endless() -> None:
    flat = [(100, 0.5), (200, 0.5), (300, 0.5)]
    assert branch_estimate(flat, TRUNK, TRUNK[4], from_trunk=False) == pytest.approx(math.log(16.0))
    assert crossing(flat, 0.9) == math.inf


def test_estimates_that_are_a_line_leave_nothing_and_noise_leaves_the_truth() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=40)
    assert left_over(truth, 3.0 * truth[:, None] - 1.0) < 1e-9
    assert left_over(truth, rng.normal(size=(40, 1))) > 0.8 * truth.std()


@pytest.mark.slow
def test_a_branch_begins_with_the_trunk_s_parameters_and_its_own_rate() -> None:
    workload = Digits(network="mlp", width=4)
    workload.optimizer_settings = SGDSettings(momentum=0.5)
    of = Problem(
        name="digits",
        workload=workload,
        target=0.5,
        trunk=(32, 0.03),
        batches=(32,),
        rates=(0.03,),
        most_samples=20_000,
    )
    curve, arrived = train_to_target(of, *of.trunk, 0, of.most_samples)
    assert curve[-1][1] >= 0.5
    assert curve[-2][0] < arrived <= curve[-1][0]
    trunk = Training(of, *of.trunk, 0)
    trunk.train_to(2_000)
    branch = Training(of, 8, 0.01, 0, trunk.saved())
    assert branch.samples == 0
    assert branch.score() == trunk.score()
    assert [group["lr"] for group in branch.optimizer.param_groups] == [0.01]
    before = trunk.score()
    branch.train_to(4_000)
    assert trunk.score() == before != branch.score()
