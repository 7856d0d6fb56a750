"""The rules in lockstep on pure noise: what they do to the ranks' disagreement and to their mean.

Every step adds independent noise to every parameter of every rank, of variance v; there is no gradient.
Thousands of parameters are as many independent experiments. Expected values are those of the laws that the
search's model of samples starts from.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from tuner.strategies.rules import (
    accumulated,
    elastic_force,
    moving_rate,
    outer_step,
    pair_move,
    pulled,
    pushed,
)

NUM_PARAMETERS = 4000
NUM_ROUNDS = 400
Mix = Callable[[Tensor, np.random.Generator], None]


def pull(theta: Tensor, rng: np.random.Generator) -> None:
    """All ranks pull at once from what all published at once."""
    published = theta.clone()
    for rank in range(len(theta)):
        peer = int(rng.integers(len(theta)))
        if peer != rank:
            theta[rank] += pulled(published[rank], published[peer], torch.empty_like(theta[rank]))


def push(theta: Tensor, rng: np.random.Generator) -> None:
    sent = theta.clone()
    drawn = [int(rng.integers(len(theta))) for _ in range(len(theta))]
    for rank in range(len(theta)):
        received = [sent[i] for i, peer in enumerate(drawn) if peer == rank and i != rank]
        own_weight = 1 + (drawn[rank] == rank)
        theta[rank] += pushed(sent[rank], received, own_weight=own_weight, out=torch.empty_like(sent[rank]))


def pairs(theta: Tensor, rng: np.random.Generator) -> None:
    """A random half is active, each with another passive one."""
    order = rng.permutation(len(theta))
    half = len(theta) // 2
    for active, passive in zip(order[:half], order[half:], strict=True):
        move = pair_move(theta[active], theta[passive], torch.empty_like(theta[active]))
        theta[active] += move
        theta[passive] -= move


class Elastic:
    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.center: Tensor | None = None

    def __call__(self, theta: Tensor, rng: np.random.Generator) -> None:
        if self.center is None:
            self.center = torch.zeros_like(theta[0])
        # The law is that of a centre at rest: it stays at the ranks' mean.
        self.center.copy_(theta.mean(dim=0))
        for rank in range(len(theta)):
            theta[rank] -= elastic_force(theta[rank], self.center, self.rate, torch.empty_like(self.center))


def lockstep(mix: Mix, num_ranks: int, *, momentum: float = 0.0, seed: int = 0) -> tuple[float, float]:
    """Disagreement before an exchange and variance of the mean's step, in units of v and of v / p."""
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    theta = torch.zeros(num_ranks, NUM_PARAMETERS)
    buffer = torch.zeros_like(theta)
    disagreements, mean_steps = [], []
    for turn in range(NUM_ROUNDS):
        before = theta.mean(dim=0)
        mix(theta, rng)
        buffer.mul_(momentum).add_(torch.randn(theta.shape, generator=generator))
        theta += buffer
        if turn > NUM_ROUNDS // 2:
            disagreements.append(float((theta - theta.mean(dim=0)).square().sum(dim=0).mean()) / num_ranks)
            mean_steps.append(float((theta.mean(dim=0) - before).square().mean()) * num_ranks)
    return float(np.mean(disagreements)), float(np.mean(mean_steps))


# Two hundred rounds of some thousand parameters, of which those of one round are independent, and whose peers
# are not: what is drawn moves the mean by a few percent.
SAMPLING = 0.05


@pytest.mark.parametrize("p", [2, 4, 8])
def test_pulling_keeps_the_disagreement_and_the_noise_of_the_mean_that_its_law_gives(p: int) -> None:
    disagreement, mean_step = lockstep(pull, p)
    assert disagreement == pytest.approx(4 * (p - 1) / (2 * p + 1), rel=SAMPLING)
    assert mean_step == pytest.approx(1 + (p - 1) / (2 * p + 1), rel=SAMPLING)


@pytest.mark.parametrize("p", [2, 4, 8])
def test_pairs_keep_the_disagreement_that_their_law_gives_and_add_no_noise_to_the_mean(p: int) -> None:
    disagreement, mean_step = lockstep(pairs, p)
    assert disagreement == pytest.approx(2 * (1 - 1 / p) ** 2, rel=SAMPLING)
    assert mean_step == pytest.approx(1.0, rel=SAMPLING)


def test_pushing_keeps_about_two_times_the_noise_of_a_step_on_eight_ranks() -> None:
    disagreement, _ = lockstep(push, 8)
    assert disagreement == pytest.approx(2.16, rel=2 * SAMPLING)


@pytest.mark.parametrize(("p", "rate"), [(4, 0.2), (8, 0.1)])
def test_elastic_averaging_keeps_the_disagreement_that_its_law_gives(p: int, rate: float) -> None:
    disagreement, _ = lockstep(Elastic(rate), p)
    assert disagreement == pytest.approx((1 - 1 / p) / (2 * rate - rate**2), rel=SAMPLING)


@pytest.mark.parametrize(
    ("mix", "without_momentum", "r"),
    [
        pytest.param(pull, 4 * 7 / 17, 0.5, id="pull"),
        pytest.param(Elastic(0.1), (7 / 8) / (0.2 - 0.01), 0.9, id="elastic"),
    ],
)
def test_local_momentum_multiplies_the_disagreement_as_its_law_says(
    mix: Mix, without_momentum: float, r: float
) -> None:
    mu = 0.9
    disagreement, _ = lockstep(mix, 8, momentum=mu)
    factor = (1 + mu * r) / ((1 - mu**2) * (1 - mu * r))
    # The factor's r is that of parameters on their own; a peer drawn for all of them at once adds some more.
    assert disagreement == pytest.approx(factor * without_momentum, rel=4 * SAMPLING)


def test_pairs_keep_the_mean_even_where_the_active_moved_on_meanwhile() -> None:
    theta = torch.randn(2, 100, dtype=torch.float64)
    mean = theta.mean(dim=0)
    sent = theta[0].clone()
    step = torch.randn(100, dtype=torch.float64)
    theta[0] += step
    move = pair_move(sent, theta[1], torch.empty_like(sent))
    theta[1] -= move
    theta[0] += move
    torch.testing.assert_close(theta.mean(dim=0), mean + step / 2)


def test_elastic_exchange_keeps_the_sum_of_rank_and_center() -> None:
    theta, center = torch.randn(2, 100, dtype=torch.float64)
    before = theta + center
    force = elastic_force(theta, center, moving_rate(0.8, 4), torch.empty_like(theta))
    torch.testing.assert_close((theta - force) + (center + force), before)
    assert moving_rate(0.8, 4) == pytest.approx(0.2)


def test_pushing_to_oneself_weighs_ones_own_twice() -> None:
    theta, other = torch.tensor([1.0]), torch.tensor([4.0])
    once = theta + pushed(theta, [other], own_weight=1, out=torch.empty(1))
    twice = theta + pushed(theta, [other], own_weight=2, out=torch.empty(1))
    assert float(once) == pytest.approx(2.5)
    assert float(twice) == pytest.approx(2.0)
    assert float(pushed(theta, [], own_weight=2, out=torch.empty(1))) == 0.0


def test_outer_step_of_rate_one_without_momentum_is_plain_averaging() -> None:
    anchor, average = torch.randn(2, 50)
    buffer, wanted = torch.zeros(50), average.clone()
    outer_step(anchor, average, buffer, learning_rate=1.0, momentum=0.0)
    torch.testing.assert_close(anchor, wanted)


def test_outer_step_is_nesterovs() -> None:
    anchor, average = torch.randn(2, 50, dtype=torch.float64)
    parameter = torch.nn.Parameter(anchor.clone())
    theirs = torch.optim.SGD([parameter], lr=0.7, momentum=0.9, nesterov=True)
    buffer = torch.zeros(50, dtype=torch.float64)
    for _ in range(3):
        parameter.grad = parameter.detach() - average
        theirs.step()
        outer_step(anchor, average.clone(), buffer, learning_rate=0.7, momentum=0.9)
    torch.testing.assert_close(anchor, parameter.detach())


def test_accumulated_update_is_what_the_steps_changed() -> None:
    theta, taken = torch.randn(2, 50)
    torch.testing.assert_close(taken + accumulated(theta, taken, torch.empty(50)), theta)
    assert math.isfinite(float(theta.sum()))
