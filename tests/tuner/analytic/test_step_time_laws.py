from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces import STRATEGIES, traits_of
from tuner.analytic.all_reduce_cost import Link, Placements, Sharing, ring_all_reduce_seconds
from tuner.analytic.laws import expected_maximum, overlapped_seconds
from tuner.analytic.step_time_laws import Network
from tuner.analytic.strategy_laws import batch_seconds
from tuner.domain.cluster import RankDelay

RANKS = np.arange(1, 129, dtype=float)
NETWORK = Network(num_bytes=4e6, latency=1e-3, bytes_per_second=1e9, jitter=0.05, persistent=0.5, overlap=1.5)
LATE = (RankDelay(ranks=(1,), low=0.0, high=0.3),)
UNWAITING = [name for name, traits in STRATEGIES.items() if not traits.barrier]


def seconds(
    strategy: str,
    ranks: np.ndarray | float,
    *,
    tau: float = 1.0,
    compute: float = 0.05,
    network: Network = NETWORK,
    devices: int | None = None,
) -> np.ndarray:
    """Seconds of a batch; on whole nodes with so many devices, if that is given."""
    p = np.atleast_1d(np.asarray(ranks, dtype=float))
    if devices is not None:
        network = replace(network, placements=on_whole_nodes(p, devices))
    return batch_seconds(traits_of(strategy), np.full_like(p, compute), p, np.full_like(p, tau), network)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("delays", [(), LATE, (RankDelay(ranks=None, low=0.01, high=0.02),)])
@pytest.mark.parametrize("num_bytes", [0.0, 4e6, 1e10])
def test_every_strategy_has_its_law(strategy: str, delays: tuple[RankDelay, ...], num_bytes: float) -> None:
    """Finite, above the compute alone, for one rank to 128, with and without delays."""
    for tau in (1.0, 16.0):
        found = seconds(
            strategy, RANKS, tau=tau, network=replace(NETWORK, delays=delays, num_bytes=num_bytes)
        )
        assert np.all(np.isfinite(found))
        assert np.all(found >= 0.05 * (1 - 1e-9))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_one_rank_computes_and_nothing_else(strategy: str) -> None:
    assert seconds(strategy, 1.0)[0] == pytest.approx(0.05)
    own = (RankDelay(ranks=(0,), low=0.0, high=0.2),)
    assert seconds(strategy, 1.0, network=replace(NETWORK, delays=own))[0] == pytest.approx(0.15, rel=1e-3)


@pytest.mark.parametrize("strategy", STRATEGIES)
@given(latency=st.floats(0.0, 0.05), bandwidth=st.floats(1e7, 1e11), ranks=st.integers(2, 128))
def test_a_slower_network_never_makes_a_batch_faster(
    strategy: str, latency: float, bandwidth: float, ranks: int
) -> None:
    here = replace(NETWORK, latency=latency, bytes_per_second=bandwidth)
    for worse in (replace(here, latency=latency + 0.01), replace(here, bytes_per_second=bandwidth / 2)):
        slow, fast = seconds(strategy, ranks, network=worse)[0], seconds(strategy, ranks, network=here)[0]
        # Latency keeps ranks away from the server: it may spare a queue nearly as much as it costs.
        assert slow >= fast * (1 - 0.01)


@pytest.mark.parametrize("strategy", [name for name, traits in STRATEGIES.items() if "tau" in traits.knobs])
@given(ranks=st.integers(2, 128))
def test_exchanging_less_often_never_makes_a_batch_slower(strategy: str, ranks: int) -> None:
    found = [seconds(strategy, ranks, tau=tau)[0] for tau in (1.0, 2.0, 8.0, 64.0)]
    assert np.all(np.diff(found) <= 1e-9)


def test_all_reduce_is_the_synchronous_step() -> None:
    exchange = ring_all_reduce_seconds(RANKS, 4e6, latency=1e-3, bytes_per_second=1e9)
    expected = overlapped_seconds(0.05 * (1 + 0.05 * expected_maximum(RANKS)), exchange, 1.5)
    np.testing.assert_allclose(seconds("all_reduce", RANKS), expected, rtol=1e-12)


def test_an_all_reduce_does_not_hide_behind_a_delay() -> None:
    """What a delay of all ranks adds, it adds beside the exchange, however well that hides behind compute."""
    steady = RankDelay(ranks=None, low=0.1, high=0.1)
    for overlap in (1.0, 2.0, 10.0):
        here = replace(NETWORK, jitter=0.0, overlap=overlap, num_bytes=4e7)
        asynchronous = seconds("all_reduce", RANKS, network=replace(here, delays=(steady,)))
        np.testing.assert_allclose(asynchronous, 0.1 + seconds("all_reduce", RANKS, network=here), rtol=1e-4)


@pytest.mark.parametrize("ranks", [8, 32, 128])
@pytest.mark.parametrize("every", [1, 8])
def test_an_all_reduce_among_delayed_ranks_takes_what_a_simulated_one_takes(ranks: int, every: int) -> None:
    """The last rank's compute hides the exchange, its standing still does not."""
    rng, steps, g, exchange = np.random.default_rng(0), 4000, 2.0, 0.07
    compute = 0.05 * (1 + 0.1 * rng.standard_normal((steps, ranks)))
    still = np.where(np.arange(ranks) % every == every - 1, rng.uniform(0.0, 0.3, (steps, ranks)), 0.0)
    last = (compute + still).argmax(axis=1)
    busy, stands = (np.take_along_axis(part, last[:, None], axis=1) for part in (compute, still))
    expected = float(np.mean(stands + (busy**g + exchange**g) ** (1 / g)))
    delay = RankDelay(ranks=tuple(range(every - 1, ranks, every)), low=0.0, high=0.3)
    per_byte = exchange / (2 * (ranks - 1) / ranks)
    network = Network(
        num_bytes=1.0, latency=0.0, bytes_per_second=1 / per_byte, jitter=0.1, persistent=0.0, overlap=g
    )
    found = seconds("all_reduce", float(ranks), network=replace(network, delays=(delay,)))[0]
    assert found == pytest.approx(expected, rel=0.03)


def test_gossip_takes_no_longer_on_many_ranks_than_on_two() -> None:
    for strategy in ("gossip_pull", "gossip_push", "gossip_pairs"):
        found = seconds(strategy, RANKS[1:])
        assert found.max() / found.min() < 1.05


def test_a_server_saturates_where_its_ranks_outnumber_it() -> None:
    # What sends the answers is a station of its own, passed on the way.
    service = 4e6 / 1e9
    think = 0.05 + 2e-3 + service
    found = seconds("elastic_averaging", RANKS)
    load = RANKS / (1 + think / service)
    below, beyond = load < 0.4, load > 2
    assert np.all(found[below][1:] < 1.4 * 0.05)
    # Beyond saturation so many ranks get one exchange in `service` through.
    np.testing.assert_allclose(found[beyond], RANKS[beyond] * service, rtol=1e-6)


def test_local_sgd_waits_for_the_slowest_less_the_rarer_it_waits() -> None:
    instant = replace(NETWORK, num_bytes=0.0, latency=0.0, persistent=0.0)
    excess = [seconds("local_sgd", 32.0, tau=tau, network=instant)[0] - 0.05 for tau in (1.0, 16.0)]
    assert excess[1] == pytest.approx(excess[0] / 4)


@pytest.mark.parametrize("strategy", UNWAITING)
def test_a_delayed_rank_holds_up_those_who_wait_and_not_those_who_do_not(strategy: str) -> None:
    late = replace(NETWORK, delays=LATE)
    waits = seconds("all_reduce", 8.0, network=late)[0] / seconds("all_reduce", 8.0)[0]
    free = seconds(strategy, 8.0, tau=10.0, network=late)[0] / seconds(strategy, 8.0, tau=10.0)[0]
    assert waits > 2.5
    assert free < 1.15


def test_rare_waiting_for_one_delayed_rank_costs_its_mean_delay_all_the_same() -> None:
    late = replace(NETWORK, delays=LATE)
    assert seconds("local_sgd", 8.0, tau=64.0, network=late)[0] > 0.05 + 0.15


def on_whole_nodes(ranks: np.ndarray, devices: int) -> Placements:
    return Placements(
        num_nodes=np.ceil(ranks / devices), num_ranks=ranks, most_on_a_node=np.minimum(ranks, devices)
    )


def with_links(*, latency: float = 1e-5, bandwidth: float = 2e10, **sharing: float) -> Network:
    """Links within nodes beside `NETWORK`'s between them."""
    within = Link(latency_seconds=latency, bytes_per_second=bandwidth)
    return replace(NETWORK, within=within, sharing=Sharing(**sharing))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_links_within_nodes_like_those_between_change_nothing(strategy: str) -> None:
    alike = with_links(latency=NETWORK.latency, bandwidth=NETWORK.bytes_per_second)
    ranks = 4.0 * np.arange(1, 33)
    np.testing.assert_allclose(
        seconds(strategy, ranks, network=alike, tau=2.0, devices=4),
        seconds(strategy, ranks, tau=2.0),
        rtol=1e-12,
    )


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_ranks_on_one_node_do_not_feel_the_links_between_nodes(strategy: str) -> None:
    here = with_links(variation=0.3, device_exponent=0.2)
    slow = replace(here, latency=10.0, bytes_per_second=1e3)
    np.testing.assert_array_equal(
        seconds(strategy, [1.0, 2.0, 8.0], network=here, devices=8),
        seconds(strategy, [1.0, 2.0, 8.0], network=slow, devices=8),
    )
    across = seconds(strategy, 16.0, network=here, devices=8)[0]
    assert seconds(strategy, 16.0, network=slow, devices=8)[0] > across


@pytest.mark.parametrize("strategy", STRATEGIES)
@given(devices=st.sampled_from([2, 4, 8]), nodes=st.integers(1, 16), tau=st.sampled_from([1.0, 8.0]))
def test_quick_links_within_nodes_never_slow_a_batch_down(
    strategy: str, devices: int, nodes: int, tau: float
) -> None:
    ranks = float(devices * nodes)
    found = seconds(strategy, ranks, tau=tau, network=with_links(), devices=devices)[0]
    assert found <= seconds(strategy, ranks, tau=tau)[0] * (1 + 1e-12)


def test_most_peers_are_on_other_nodes_where_there_are_many() -> None:
    ranks = np.array([1.0, 2.0, 4.0, 8.0, 400.0])
    network = replace(with_links(latency=0.0), latency=1.0, placements=on_whole_nodes(ranks, 4))
    hop, _ = network.message_seconds(ranks)
    np.testing.assert_allclose(1 - hop, [0, 1, 1, 3 / 7, 3 / 399])
