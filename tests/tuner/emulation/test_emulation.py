from __future__ import annotations

import copy
import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from search_spaces import STRATEGIES
from tests.levels import mostly_slow
from tests.tuner.emulation.toy import CLUSTER, Regression, emulated, parameters_of, scored_parameters
from tuner.analytic.all_reduce_cost import ring_all_reduce_seconds
from tuner.analytic.laws import expected_maximum
from tuner.analytic.step_time_laws import server_exchange_seconds
from tuner.domain.cluster import RankDelay
from tuner.domain.data_order import SampleStream
from tuner.domain.workload import SGDSettings
from tuner.emulation import Emulation

ALL = sorted(STRATEGIES)
ASYNCHRONOUS = [name for name, traits in STRATEGIES.items() if not traits.barrier]
SLOW_LINKS = replace(CLUSTER, latency=3e-3, bytes_per_second=2e5, jitter=0.2)


def batch_seconds(run: Emulation) -> float:
    """Seconds in which all ranks process one global batch."""
    return run.seconds * run.trained.configuration.batch_size / run.samples


def saved(run: Emulation) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(run.state(), file)
    file.seek(0)
    return dict(torch.load(file, weights_only=True))


@pytest.mark.parametrize("strategy", ALL)
def test_the_same_seed_gives_the_same_run_and_another_one_does_not(strategy: str) -> None:
    runs = [emulated(strategy, 4, cluster=SLOW_LINKS, seed=seed) for seed in (5, 5, 6)]
    for run in runs:
        run.run(samples=400)
    assert runs[0].seconds == runs[1].seconds != runs[2].seconds
    torch.testing.assert_close(scored_parameters(runs[0]), scored_parameters(runs[1]), rtol=0, atol=0)
    assert not torch.equal(scored_parameters(runs[0]), scored_parameters(runs[2]))


@pytest.mark.parametrize("strategy", ALL)
def test_it_goes_on_from_a_checkpoint_as_if_never_interrupted(strategy: str) -> None:
    whole, first, second = (emulated(strategy, 4, cluster=SLOW_LINKS) for _ in range(3))
    first.run(samples=200)
    second.load(saved(first))
    assert second.samples == first.samples
    for run in (whole, second):
        run.run(samples=600)
    assert (second.seconds, second.samples, second.rank_steps) == (
        whole.seconds,
        whole.samples,
        whole.rank_steps,
    )
    torch.testing.assert_close(scored_parameters(second), scored_parameters(whole), rtol=0, atol=0)


@pytest.mark.parametrize("strategy", ALL)
def test_one_rank_is_plain_sgd_unless_it_steps_outside(strategy: str) -> None:
    run = emulated(strategy, 1)
    run.run(samples=80)
    plain = Regression()
    model, stream = plain.model(), SampleStream(512, 0)
    optimizer = plain.optimizer(model.parameters(), 0.05)
    for step in range(20):
        take(plain, model, optimizer, stream.indices(4 * step, 4))
    same = torch.allclose(parameters_of(run.model), parameters_of(model), rtol=1e-12)
    assert same == (strategy != "diloco")


@pytest.mark.parametrize("batch_norm", [False, True])
def test_all_reduce_is_the_mean_gradient_over_uneven_shares(batch_norm: bool) -> None:
    workload = Regression(batch_norm=batch_norm)
    run = emulated("all_reduce", 3, workload=workload)
    uneven = replace(run.trained, configuration=run.trained.configuration.replaced(batch_size=11))
    run = type(run)(uneven)
    run.run(samples=110)
    model, stream = workload.model(), SampleStream(512, 0)
    optimizer = workload.optimizer(model.parameters(), 0.05)
    for step in range(10):
        optimizer.zero_grad()
        start = 11 * step
        for size in (4, 4, 3):
            indices = stream.indices(start, size)
            batch = workload.training_data()[indices.tolist()]  # type: ignore[index]
            (workload.loss(model, batch) * size / 11).backward()
            start += size
        optimizer.step()
    torch.testing.assert_close(parameters_of(run.model), parameters_of(model), rtol=1e-10, atol=1e-12)


def test_local_sgd_averages_every_tau_steps() -> None:
    run = emulated("local_sgd", 2, tau=3, workload=Regression(settings=SGDSettings(momentum=0.0)))
    run.run(samples=8 * 5)
    workload = Regression(settings=SGDSettings(momentum=0.0))
    models = [workload.model() for _ in range(2)]
    optimizers = [workload.optimizer(model.parameters(), 0.05) for model in models]
    stream = SampleStream(512, 0)
    for step in range(5):
        for rank, (model, optimizer) in enumerate(zip(models, optimizers, strict=True)):
            take(workload, model, optimizer, stream.indices(8 * step + 4 * rank, 4))
        if step == 2:
            mean = torch.stack([parameters_of(model) for model in models]).mean(dim=0)
            for model in models:
                torch.nn.utils.vector_to_parameters(mean.clone(), model.parameters())
    expected = torch.stack([parameters_of(model) for model in models]).mean(dim=0)
    torch.testing.assert_close(scored_parameters(run), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        parameters_of(run.ranks[1].model), parameters_of(models[1]), rtol=1e-12, atol=0
    )


def take(workload: Regression, model: Any, optimizer: Any, indices: Any) -> None:
    optimizer.zero_grad()
    workload.loss(model, workload.training_data()[indices.tolist()]).backward()  # type: ignore[index]
    optimizer.step()


class InTurn:
    """Ranks as the rules of the paper have them, one step after the other, written out."""

    def __init__(self, num_ranks: int) -> None:
        self.workload = Regression(settings=SGDSettings(momentum=0.0))
        self.models = [copy.deepcopy(self.workload.model()) for _ in range(num_ranks)]
        self.optimizers = [self.workload.optimizer(m.parameters(), 0.05) for m in self.models]
        self.stream, self.num_ranks = SampleStream(512, 0), num_ranks

    def step(self, rank: int, step: int) -> None:
        start = 4 * self.num_ranks * step + 4 * rank
        take(self.workload, self.models[rank], self.optimizers[rank], self.stream.indices(start, 4))

    def vector(self, rank: int) -> Tensor:
        return parameters_of(self.models[rank])

    def set(self, rank: int, vector: Tensor) -> None:
        torch.nn.utils.vector_to_parameters(vector.clone(), self.models[rank].parameters())


def without_momentum(strategy: str, num_ranks: int, num_steps: int, **knobs: Any) -> Emulation:
    """All ranks' steps end at the same moments, rank by rank, and messages take no time."""
    run = emulated(strategy, num_ranks, workload=Regression(settings=SGDSettings(momentum=0.0)), **knobs)
    run.run(samples=4 * num_ranks * num_steps)
    return run


def test_pulling_mixes_what_was_published_at_the_step_before() -> None:
    run = without_momentum("gossip_pull", 3, 6, tau=1)
    written, rngs = InTurn(3), [np.random.default_rng((0, rank, 1)) for rank in range(3)]
    peers = [int(rng.integers(3)) for rng in rngs]
    published = [written.vector(rank) for rank in range(3)]
    fetched = [published[peers[rank]] for rank in range(3)]
    for step in range(7):
        for rank in range(3) if step else ():
            own = written.vector(rank)
            if peers[rank] != rank:
                written.set(rank, 0.5 * (own + fetched[rank]))
            published[rank] = own
            peers[rank] = int(rngs[rank].integers(3))
        # All ask as they begin a step, and each finds what the others published as they began theirs.
        fetched = [published[peers[rank]] for rank in range(3)]
        # The last exchange comes before a step that is not made any more.
        for rank in range(3) if step < 6 else ():
            written.step(rank, step)
    expected = torch.stack([written.vector(rank) for rank in range(3)]).mean(dim=0)
    torch.testing.assert_close(scored_parameters(run), expected, rtol=1e-10, atol=1e-12)


def test_elastic_ranks_and_centre_move_towards_each_other() -> None:
    run = without_momentum("elastic_averaging", 3, 5, tau=2, beta=0.9)
    written = InTurn(3)
    center, rate = written.vector(0), 0.9 / 3
    for step in range(5):
        for rank in range(3):
            if step in (2, 4):
                own = written.vector(rank)
                force = rate * (own - center)
                written.set(rank, own - force)
                center = center + force
        for rank in range(3):
            written.step(rank, step)
    torch.testing.assert_close(scored_parameters(run), center, rtol=1e-10, atol=1e-12)


def test_the_parameter_server_adds_updates_as_they_come() -> None:
    run = without_momentum("parameter_server", 3, 4, tau=1)
    written = InTurn(3)
    center = written.vector(0)
    taken = [center.clone() for _ in range(3)]
    for step in range(4):
        for rank in range(3):
            written.step(rank, step)
        # When the last step has ended, rank 0 has been served, who holds the server; the others ask just now.
        for rank in range(3 if step < 3 else 1):
            center = center + written.vector(rank) - taken[rank]
            taken[rank] = center.clone()
            written.set(rank, center)
    torch.testing.assert_close(scored_parameters(run), center, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("strategy", ["gossip_pairs"])
def test_pairs_keep_the_mean_however_long_messages_take(strategy: str) -> None:
    frozen = emulated(strategy, 5, rate=1e-300, cluster=SLOW_LINKS)
    for rank in frozen.ranks:
        for parameter in rank.model.parameters():
            parameter.data.add_(float(rank.rank))
    before = torch.stack([parameters_of(rank.model) for rank in frozen.ranks])
    frozen.run(samples=4 * 5 * 200)
    after = torch.stack([parameters_of(rank.model) for rank in frozen.ranks])
    assert after.std(dim=0).max() < 0.05 * before.std(dim=0).max()
    # What is still under way is half of a difference that has shrunk.
    torch.testing.assert_close(after.mean(dim=0), before.mean(dim=0), rtol=0, atol=0.02)


@pytest.mark.parametrize("strategy", ALL)
@pytest.mark.parametrize("num_ranks", [2, 5])
def test_without_jitter_and_with_free_links_all_are_equally_fast(strategy: str, num_ranks: int) -> None:
    run = emulated(strategy, num_ranks, cluster=replace(CLUSTER, bytes_per_second=float("inf")))
    run.run(samples=4 * num_ranks * 30)
    assert batch_seconds(run) == pytest.approx(0.014, rel=0.04)


@pytest.mark.parametrize("strategy", ["all_reduce", "local_sgd"])
def test_more_jitter_never_makes_waiting_ranks_faster(strategy: str) -> None:
    seconds = []
    for jitter in (0.0, 0.1, 0.2, 0.3):
        run = emulated(strategy, 8, cluster=replace(CLUSTER, jitter=jitter), seed=1)
        run.run(samples=8 * 4 * 60)
        seconds.append(run.seconds)
    assert seconds == sorted(seconds)
    assert seconds[-1] > 1.2 * seconds[0]


def test_ranks_in_step_wait_for_the_slowest_as_the_law_says() -> None:
    run = emulated("all_reduce", 16, cluster=replace(CLUSTER, jitter=0.1, persistent=0.0))
    run.run(samples=16 * 4 * 300)
    expected = 0.014 * (1 + 0.1 * float(expected_maximum(np.array(16))))
    assert batch_seconds(run) == pytest.approx(expected, rel=0.02)


def test_an_all_reduce_takes_what_the_ring_takes() -> None:
    run = emulated("all_reduce", 8, cluster=replace(CLUSTER, latency=2e-3, bytes_per_second=1e5))
    run.run(samples=8 * 4 * 3)
    num_bytes = parameters_of(run.model).numel() * 8
    ring = float(ring_all_reduce_seconds(np.array(8), num_bytes, latency=2e-3, bytes_per_second=1e5))
    assert batch_seconds(run) == pytest.approx(0.014 + ring)


def test_messages_go_by_links_of_their_own_and_collectives_do_not() -> None:
    own = replace(CLUSTER, message_latency=5e-3, message_bytes_per_second=880 / 0.01)
    for strategy, expected in (("all_reduce", 0.014), ("local_sgd", 0.014), ("elastic_averaging", 0.044)):
        run = emulated(strategy, 2, cluster=replace(own, bytes_per_second=float("inf")), tau=1)
        run.run(samples=2 * 4 * 50)
        assert np.mean(run.times[1].whole[1:]) == pytest.approx(expected, rel=0.02), strategy


@pytest.mark.parametrize("num_ranks", mostly_slow([4, 12, 32], fast=[4, 12]))
def test_the_server_queues_as_the_law_says(num_ranks: int) -> None:
    cluster = replace(CLUSTER, latency=1e-3, bytes_per_second=2e6, jitter=0.3, persistent=0.0)
    run = emulated("elastic_averaging", num_ranks, cluster=cluster, tau=1)
    run.run(samples=num_ranks * 4 * 150)
    service = parameters_of(run.model).numel() * 8 / 2e6
    # Beside the turn: a step, both latencies, and the answer, which leaves while others' vectors come.
    away = 0.014 + 2e-3 + service
    # Rank 0 holds the server and never queues.
    at_server = server_exchange_seconds(np.array([num_ranks - 1]), np.array([service]), np.array([away]))
    waiting = [np.mean(times.whole[10:]) for times in run.times[1:]]
    assert np.mean(waiting) == pytest.approx(away + float(at_server[0]), rel=0.06)
    assert np.mean(run.times[0].whole[10:]) == pytest.approx(0.014, rel=0.05)


def test_a_saturated_server_lets_a_vector_in_and_one_out_at_once() -> None:
    """Beyond saturation as many exchanges get through as its link takes vectors, not half as many."""
    run = emulated("elastic_averaging", 9, cluster=replace(CLUSTER, bytes_per_second=1e4), tau=1)
    run.run(seconds=5.0)
    began, steps = run.seconds, run.ranks[1].step
    run.run(seconds=began + 15.0)
    link = parameters_of(run.model).numel() * 8 / 1e4
    through = (run.ranks[1].step - steps) / (run.seconds - began)
    assert through == pytest.approx(1 / (8 * link), rel=0.1)


@pytest.mark.parametrize("strategy", ASYNCHRONOUS)
def test_a_slow_rank_does_not_hold_the_others_up(strategy: str) -> None:
    slow = replace(CLUSTER, delays=(RankDelay(ranks=(2,), low=1.0, high=1.0),))
    run = emulated(strategy, 4, cluster=slow)
    run.run(samples=4 * 4 * 100)
    assert batch_seconds(run) == pytest.approx(0.014 * 4 / 3, rel=0.06)


@pytest.mark.parametrize("strategy", ["gossip_pull", "gossip_push", "gossip_pairs"])
def test_peers_wait_for_no_message_but_find_older_ones_on_slow_links(strategy: str) -> None:
    # A vector takes 0.09 and 5 steps.
    quick, slow = (
        emulated(strategy, 4, tau=1, cluster=replace(CLUSTER, bytes_per_second=880 / (share * 0.014)))
        for share in (0.09, 5.0)
    )
    for run in (quick, slow):
        run.run(samples=4 * 4 * 100)
        assert batch_seconds(run) == pytest.approx(0.014, rel=0.02)
    assert quick.staleness_steps is not None
    assert slow.staleness_steps is not None
    assert slow.staleness_steps > quick.staleness_steps + 3


def test_an_all_reduce_does_not_hide_behind_a_rank_that_stands_still() -> None:
    delay = RankDelay(ranks=None, low=0.1, high=0.1)
    for overlap in (1.0, 10.0):
        cluster = replace(CLUSTER, latency=2e-3, delays=(delay,), overlap=overlap)
        run = emulated("all_reduce", 3, cluster=cluster)
        run.run(samples=3 * 4 * 10)
        combined = (0.014**overlap + (4 * 2e-3) ** overlap) ** (1 / overlap)
        assert batch_seconds(run) == pytest.approx(0.1 + combined)


def test_staleness_of_a_server_is_the_number_of_other_exchanges() -> None:
    run = emulated("parameter_server", 6, cluster=replace(CLUSTER, jitter=0.1, persistent=0.0), tau=1)
    run.run(samples=6 * 4 * 100)
    assert run.staleness_steps == pytest.approx(5.0, rel=0.03)


def test_a_loss_that_is_not_finite_ends_it() -> None:
    run = emulated("gossip_pull", 2, rate=1e200)
    run.run(samples=10**6)
    assert not run.is_finite
    assert run.samples < 1000


def test_it_needs_an_end() -> None:
    with pytest.raises(ValueError, match="run needs a limit"):
        emulated("all_reduce", 2).run()


def test_it_ends_at_a_moment_of_its_clock() -> None:
    run = emulated("all_reduce", 2)
    run.run(seconds=1.0)
    assert 1.0 <= run.seconds < 1.02
