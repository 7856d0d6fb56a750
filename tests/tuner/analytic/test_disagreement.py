from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces import STRATEGIES, Configuration, traits_of, with_knobs
from tuner.analytic.strategy_encoding import (
    STRATEGY_CORRELATION,
    exchanging_alike,
    setup_of,
    strategy_columns,
)
from tuner.analytic.strategy_laws import (
    SAMPLES_LAWS,
    STEP_TIME_LAWS,
    disagreement,
    disagreement_columns,
    disagreement_parameters,
)

OTHERS = [name for name in STRATEGIES if name != "all_reduce"]


def of(strategy: str, num_ranks: int, tau: int | None = None) -> float:
    what = with_knobs(Configuration(batch_size=1024, learning_rate=0.1, strategy=strategy))
    if tau is not None:
        what = what.replaced(tau=tau)
    return disagreement(setup_of(what, num_ranks))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_one_rank_never_disagrees(strategy: str) -> None:
    assert of(strategy, 1) == 0.0


@pytest.mark.parametrize("strategy", OTHERS)
@given(num_ranks=st.integers(2, 127), tau=st.integers(1, 63))
def test_disagreement_grows_with_ranks_and_with_steps_apart(strategy: str, num_ranks: int, tau: int) -> None:
    here = of(strategy, num_ranks, tau)
    assert of(strategy, num_ranks + 1, tau) >= here >= 0.0
    assert of(strategy, num_ranks, tau + 1) > here


def simulated_pull(num_ranks: int, steps: int = 3000) -> float:
    """Variance around the mean, before an exchange, of ranks that walk at random and pull in lockstep."""
    rng = np.random.default_rng(0)
    theta, seen = np.zeros((200, num_ranks)), []
    for step in range(steps // 10):
        theta += rng.standard_normal(theta.shape)
        seen.append(((theta - theta.mean(axis=1, keepdims=True)) ** 2).mean() if step > 50 else np.nan)
        peers = rng.integers(num_ranks, size=theta.shape)
        theta = 0.5 * (theta + np.take_along_axis(theta, peers, axis=1))
    return float(np.nanmean(seen))


@pytest.mark.parametrize("num_ranks", [2, 8, 32])
def test_the_disagreement_of_pulling_is_that_of_random_walks(num_ranks: int) -> None:
    assert of("gossip_pull", num_ranks) == pytest.approx(simulated_pull(num_ranks), rel=0.03)


def test_pushing_tends_to_e_and_to_what_was_simulated_on_eight_ranks() -> None:
    assert of("gossip_push", 8) == pytest.approx(2.16, rel=0.01)
    assert of("gossip_push", 10_000) == pytest.approx(math.e, rel=0.01)


def test_averaging_after_every_step_leaves_nothing_to_disagree_on() -> None:
    assert of("local_sgd", 32, 1) == 0.0


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_one_rank_is_all_reduce_s_but_for_an_outer_step(strategy: str) -> None:
    what = with_knobs(Configuration(batch_size=64, learning_rate=0.1, strategy=strategy))
    setup = setup_of(what, 1)
    assert setup.strategy == ("diloco" if strategy == "diloco" else "all_reduce")
    assert any(disagreement_columns(setup)) == (strategy == "diloco")


def test_only_strategies_in_play_have_unknowns() -> None:
    assert disagreement_parameters(["all_reduce"]) == {}
    assert len(disagreement_parameters(["gossip_pull", "gossip_pairs", "all_reduce"])) == 1
    assert len(disagreement_parameters(list(STRATEGIES))) == 5
    assert traits_of("all_reduce").samples_law is None


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_has_its_laws(strategy: str) -> None:
    traits = STRATEGIES[strategy]
    assert traits.step_time_law in STEP_TIME_LAWS
    assert traits.samples_law in SAMPLES_LAWS or traits.exchanged == "gradients"


def test_strategies_that_exchange_alike_share_their_law_and_not_their_column() -> None:
    names = ("gossip_pull", "all_reduce", "gossip_push", "gossip_pairs")
    setups = [setup_of(Configuration(strategy=name), 4) for name in names]
    found = {traits.name: list(rows) for traits, rows in exchanging_alike(strategy_columns(setups))}
    assert found == {"all_reduce": [1], "gossip_pull": [0, 2], "gossip_pairs": [3]}
    assert len(np.unique(strategy_columns(setups), axis=0)) == 4
    assert 0.5 <= STRATEGY_CORRELATION <= 0.7
