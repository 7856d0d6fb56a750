from __future__ import annotations

import heapq

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.analytic.step_time_laws import server_exchange_seconds


def simulated(num_ranks: int, service: float, think: float, *, turns: int = 800, seed: int = 0) -> float:
    """Mean seconds at a server that serves in order of arrival; think times vary by three tenths."""
    rng = np.random.default_rng(seed)

    def away() -> float:
        return max(think * (1 + 0.3 * rng.standard_normal()), 0.0)

    arrivals = [(away(), rank) for rank in range(num_ranks)]
    heapq.heapify(arrivals)
    free, total, counted = 0.0, 0.0, 0
    for turn in range(turns * num_ranks):
        at, rank = heapq.heappop(arrivals)
        free = max(at, free) + service
        if turn > turns * num_ranks / 10:
            total, counted = total + free - at, counted + 1
        heapq.heappush(arrivals, (free + away(), rank))
    return total / counted


def exchange(num_ranks: float, service: float, think: float) -> float:
    return float(server_exchange_seconds(np.array([num_ranks]), np.array([service]), np.array([think]))[0])


# Saturation lies at p* = 1 + think, the service being 1: below, at and beyond it.
@pytest.mark.parametrize("think", [2.0, 9.0, 30.0])
@pytest.mark.parametrize("num_ranks", [2, 4, 8, 10, 16, 32])
def test_a_turn_takes_what_a_simulated_queue_takes(num_ranks: int, think: float) -> None:
    cycle = think + exchange(num_ranks, 1.0, think)
    assert cycle == pytest.approx(think + simulated(num_ranks, 1.0, think), rel=0.03)


def test_constant_service_queues_less_than_plain_mean_value_analysis_says() -> None:
    """At 32 ranks and a think time of half a service, nobody gets through faster than the server."""
    assert exchange(32, 1.0, 0.5) == pytest.approx(31.5)
    queue = spent = 0.0
    for k in range(1, 11):
        spent = 1.0 + queue
        queue = k * spent / (9.0 + spent)
    assert exchange(10, 1.0, 9.0) < 0.8 * spent


times = st.floats(1e-6, 10.0)


@given(service=times, think=times, num_ranks=st.integers(1, 128))
def test_a_rank_waits_at_least_its_own_service_and_at_most_everybody_s(
    service: float, think: float, num_ranks: int
) -> None:
    found = exchange(num_ranks, service, think)
    assert service * (1 - 1e-9) <= found <= num_ranks * service * (1 + 1e-9)
    assert found >= (num_ranks * service - think) * (1 - 1e-9)


@given(service=times, think=times)
def test_more_ranks_never_wait_less_nor_get_less_through(service: float, think: float) -> None:
    ranks = np.arange(1, 65, dtype=float)
    found = server_exchange_seconds(ranks, np.full(64, service), np.full(64, think))
    assert np.all(np.diff(found) >= -1e-9 * found[1:])
    through = ranks / (think + found)
    assert np.all(np.diff(through) >= -1e-9 * through[1:])
    assert np.all(through <= (1 + 1e-9) / service)


def test_one_rank_alone_never_queues() -> None:
    assert exchange(1, 0.3, 5.0) == pytest.approx(0.3)
