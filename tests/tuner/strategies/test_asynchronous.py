"""What every strategy without a barrier must do, on any number of ranks."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from search_spaces import STRATEGIES, traits_of
from tests.tuner.strategies.lockstep import LEARNING_RATE, Rank, ranks_of, rounds, settle

ASYNCHRONOUS = sorted(name for name, traits in STRATEGIES.items() if not traits.barrier)
SEVERAL = [2, 3, 4, 8]


# On one rank DiLoCo is Lookahead, by definition.
@pytest.mark.parametrize("name", sorted(STRATEGIES.keys() - {"diloco"}))
@pytest.mark.parametrize("nesterov", [False, True])
def test_one_rank_is_plain_stochastic_gradient_descent(name: str, nesterov: bool) -> None:
    with ranks_of(name, 1, optimizer={"momentum": 0.9, "nesterov": nesterov}) as (rank,):
        plain = Rank(name, {}, None, 0, 1, 50, {"momentum": 0.9, "nesterov": nesterov})
        for step in range(20):
            rank.step()
            generator = torch.Generator().manual_seed(1000 * step)
            for parameter in plain.model.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            plain.optimizer.step()
        torch.testing.assert_close(rank.theta, plain.theta)


def test_diloco_on_one_rank_is_lookahead() -> None:
    knobs = {"tau": 4, "outer_learning_rate": 0.5, "outer_momentum": 0.001}
    with ranks_of("diloco", 1, **knobs) as (rank,):
        start = rank.theta.clone()
        for _ in range(3):
            rank.step()
        inner = rank.theta.clone()
        generator = torch.Generator().manual_seed(3000)
        noise = torch.cat([torch.randn(48, generator=generator), torch.randn(2, generator=generator)])
        rank.step()
        expected = start + 0.5 * (inner - LEARNING_RATE * noise - start)
        torch.testing.assert_close(rank.theta, expected, rtol=0.01, atol=1e-3)


@pytest.mark.parametrize("name", ASYNCHRONOUS)
@pytest.mark.parametrize("num_ranks", SEVERAL)
@pytest.mark.parametrize("tau", [1, 3])
def test_tau_counts_steps_once_and_bytes_are_those_of_the_rule(name: str, num_ranks: int, tau: int) -> None:
    num_steps, num_bytes = 36, 4 * 50
    with ranks_of(name, num_ranks, tau=tau) as ranks:
        moved = [[e.exchanged_bytes for e in step] for step in rounds(ranks, num_steps)]
    comes_before = name in ("elastic_averaging", "gossip_pull", "gossip_pairs")
    at_exchanges = num_steps // tau - (1 if comes_before else 0)
    if traits_of(name).partners == "server":
        # Its own rank asks nobody; what it answers in its thread counts where it is answered.
        clients = sum(sum(step[1:]) for step in moved) / num_bytes
        assert clients == at_exchanges * (num_ranks - 1)
        return
    for turn, step in enumerate(moved):
        due = (turn if name != "gossip_push" else turn + 1) % tau == 0
        if not due and name != "gossip_pairs":
            assert sum(step) == 0
    total = sum(sum(step) for step in moved) / num_bytes
    expected = at_exchanges * num_ranks * traits_of(name).vectors_per_exchange(num_ranks)
    # Who is drawn is chance: three standard deviations of that many draws.
    assert total == pytest.approx(expected, abs=3 * np.sqrt(at_exchanges * num_ranks) + 2)


@pytest.mark.parametrize("num_ranks", SEVERAL)
@pytest.mark.parametrize("nesterov", [False, True])
def test_pairs_keep_the_mean_of_all_ranks(num_ranks: int, nesterov: bool) -> None:
    keywords = {"momentum": 0.9, "nesterov": nesterov}
    with ranks_of("gossip_pairs", num_ranks, optimizer=keywords) as ranks:
        rounds(ranks, 30)
        settle(ranks)
        mean = torch.stack([rank.theta for rank in ranks]).mean(dim=0)
        asynchronous = [Rank("gossip_pairs", {}, None, r, num_ranks, 50, keywords) for r in range(num_ranks)]
        rounds(asynchronous, 30)
        torch.testing.assert_close(mean, torch.stack([r.theta for r in asynchronous]).mean(dim=0))
        spread = torch.stack([rank.theta for rank in ranks]).std(dim=0).mean()
        assert spread < torch.stack([r.theta for r in asynchronous]).std(dim=0).mean()


@pytest.mark.parametrize("name", ASYNCHRONOUS)
@pytest.mark.parametrize("num_ranks", SEVERAL)
def test_checkpoint_restores_everything_to_the_last_bit(name: str, num_ranks: int) -> None:
    keywords = {"momentum": 0.9, "nesterov": True}
    with ranks_of(name, num_ranks, optimizer=keywords, tau=2) as ranks:
        rounds(ranks, 7)
        settle(ranks)
        states = [rank.state() for rank in ranks]
        rounds(ranks, 7)
        settle(ranks)
        whole = [rank.theta for rank in ranks]
        scored = [rank.strategy.own_score_vector() for rank in ranks]
    with ranks_of(name, num_ranks, optimizer=keywords, tau=2) as ranks:
        for rank, state in zip(ranks, states, strict=True):
            rank.load(state, [other["strategy"] for other in states])
        rounds(ranks, 7)
        settle(ranks)
        for rank, theta, vector in zip(ranks, whole, scored, strict=True):
            assert torch.equal(rank.theta, theta)
            ours = rank.strategy.own_score_vector()
            assert (ours is None) == (vector is None)
            if ours is not None and vector is not None:
                assert torch.equal(ours, vector)


@pytest.mark.parametrize("by_messages", [False, True])
@pytest.mark.parametrize("name", ASYNCHRONOUS)
def test_ranks_stay_together_that_would_part_on_their_own(name: str, by_messages: bool) -> None:
    def spread(ranks: list[Rank]) -> float:
        theta = torch.stack([rank.theta for rank in ranks])
        return float((theta - theta.mean(dim=0)).square().mean())

    with ranks_of(name, 4, tau=1, by_messages=by_messages) as ranks:
        for _ in range(60):
            rounds(ranks, 1)
            if by_messages:
                time.sleep(0.004)  # what a step takes, so that messages can travel meanwhile
        asynchronous = [Rank(name, {}, None, r, 4, 50, {}) for r in range(4)]
        rounds(asynchronous, 60)
        assert spread(ranks) < 0.25 * spread(asynchronous)


@pytest.mark.parametrize(
    ("name", "disagreement"),
    [("gossip_pull", 4 * 3 / 9), ("elastic_averaging", (1 - 1 / 4) / (2 * 0.2 - 0.2**2))],
)
def test_disagreement_of_real_ranks_in_lockstep_is_that_of_the_law(name: str, disagreement: float) -> None:
    num_parameters = 2000
    seen = []
    with ranks_of(name, 4, num_parameters=num_parameters, tau=1) as ranks:
        for turn in range(120):
            rounds(ranks, 1)
            if turn > 40:
                theta = torch.stack([rank.theta for rank in ranks])
                seen.append(float((theta - theta.mean(dim=0)).square().mean()))
    # One rank after the other is not quite all at once: the later ones pull what the earlier ones published
    # within the same round, and the centre is not at rest.
    assert np.mean(seen) / LEARNING_RATE**2 == pytest.approx(disagreement, rel=0.25)


@pytest.mark.parametrize("name", ["elastic_averaging", "parameter_server"])
def test_server_and_ranks_together_lose_nothing(name: str) -> None:
    with ranks_of(name, 4, tau=1, optimizer={}) as ranks:
        rounds(ranks, 25)
        center = ranks[0].strategy.own_score_vector()
        assert center is not None
        assert all(rank.strategy.own_score_vector() is None for rank in ranks[1:])
        moved = torch.stack([rank.theta for rank in ranks])
        asynchronous = [Rank(name, {}, None, r, 4, 50, {}) for r in range(4)]
        rounds(asynchronous, 25)
        alone = torch.stack([rank.theta for rank in asynchronous]).sum(dim=0)
        if name == "elastic_averaging":
            # What the centre gains the ranks give: their sum is that of ranks on their own.
            torch.testing.assert_close(moved.sum(dim=0) + center, alone)
        else:
            # The server has added up the updates of all.
            torch.testing.assert_close(center, alone)


def test_a_rank_that_nobody_hears_is_not_drawn() -> None:
    with ranks_of("gossip_pull", 3, tau=1) as ranks:
        for rank in ranks[:2]:
            object.__setattr__(rank.strategy._links, "live_ranks", lambda: (0, 1))  # type: ignore[attr-defined]
        lost = ranks[2].theta.clone()
        with torch.no_grad():
            ranks[2].model.first.fill_(1e6)
        ranks[2].step()
        ranks[2].step()
        for _ in range(30):
            ranks[0].step()
            ranks[1].step()
        assert lost.abs().max() < 1e3
        # The first peers were drawn while it was still heard of.
        later = [rank.strategy._rule._next for rank in ranks[:2]]  # type: ignore[attr-defined]
        assert set(later) <= {0, 1}


@pytest.mark.parametrize("name", ["elastic_averaging", "parameter_server"])
def test_center_goes_to_whoever_leads_now_and_is_never_an_older_one(name: str) -> None:
    with ranks_of(name, 3, tau=1) as ranks:
        for rank in ranks:
            object.__setattr__(rank.strategy._links, "leader", lambda: leader)  # type: ignore[attr-defined]
        leader = 0
        rounds(ranks, 10)
        old = ranks[0].strategy.own_score_vector()
        leader = 1
        rounds(ranks, 10)
        # The second leader went on from the centre as it had last seen it.
        center = ranks[1].strategy.own_score_vector()
        assert old is not None
        assert center is not None
        assert ranks[0].strategy.own_score_vector() is None
        assert not torch.equal(center, old)
        states = [rank.state() for rank in ranks]
        leader = 0
        back = ranks[0].strategy.own_score_vector()
        assert back is not None
        assert not torch.equal(back, old)
    with ranks_of(name, 3, tau=1) as ranks:
        for rank, state in zip(ranks, states, strict=True):
            rank.load(state, [other["strategy"] for other in states])
        restored = ranks[0].strategy.own_score_vector()
        assert restored is not None
        assert torch.equal(restored, center)


def test_twin_of_a_rank_has_chance_of_its_own_and_no_message_twice() -> None:
    with ranks_of("gossip_push", 2, tau=1) as ranks:
        for _ in range(50):
            rounds(ranks, 1)
            state = ranks[0].state()
            if state["strategy"]["rule"]["arrived"]:
                break
        assert state["strategy"]["rule"]["arrived"]
        before = ranks[1].strategy.state()["rule"]
        ranks[1].strategy.load(state["strategy"], is_twin=True)
        after = ranks[1].strategy.state()["rule"]
        assert after["generator"] == before["generator"]
        assert after["arrived"].keys() == before["arrived"].keys()
