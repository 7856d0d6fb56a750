"""First looks: unlike each other, among the cheaper where dollars count, the same for the same seed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces import Configuration
from tests.levels import examples
from tests.recorded_grid import MACHINES, configuration
from tuner.analytic.features import features_of
from tuner.search.model_policy import first_probes

CORES = {name: machine.cores for name, machine in MACHINES.items()}
GRID = [
    configuration(*values)
    for values in itertools.product((1, 2, 4, 8), ("small", "large"), (32, 128, 512), (0.001, 0.01, 0.1))
]


def first_candidates(
    listed: list[Configuration], seed: int, price: np.ndarray | None = None
) -> list[Configuration]:
    return first_probes(listed, features_of(listed, cores=CORES), price, np.random.default_rng(seed))


@examples(30)
@given(seed=st.integers(0, 10_000), num=st.integers(1, len(GRID)))
def test_first_probes_are_a_few_that_differ(seed: int, num: int) -> None:
    found = first_candidates(GRID[:num], seed)
    assert len(found) == len(set(found)) == min(3, num)
    assert set(found) <= set(GRID[:num])


@examples(30)
@given(seed=st.integers(0, 10_000), num=st.integers(1, len(GRID)))
def test_where_dollars_count_first_probes_are_among_the_cheaper(seed: int, num: int) -> None:
    price = np.random.default_rng(seed).uniform(1.0, 50.0, num)
    found = first_candidates(GRID[:num], seed, price)
    assert len(set(found)) == min(3, num)
    # Two fifths, but enough to look at.
    cheap = set(np.argsort(price)[: max(int(np.ceil(0.4 * num)), 3)])
    assert {GRID.index(candidate) for candidate in found} <= cheap


def test_the_same_seed_gives_the_same_probes_and_others_give_others() -> None:
    assert first_candidates(GRID, 3) == first_candidates(GRID, 3)
    assert len({tuple(first_candidates(GRID, seed)) for seed in range(10)}) >= 8


def test_first_probes_are_less_alike_than_any_three() -> None:
    def nearest(some: list[Configuration]) -> float:
        at = positions[[GRID.index(c) for c in some]]
        return min(float(np.sum((a - b) ** 2)) for a, b in itertools.combinations(at, 2))

    positions = features_of(GRID, cores=CORES).positions
    positions = positions / np.ptp(positions, axis=0)
    rng = np.random.default_rng(0)
    any_three = [nearest([GRID[i] for i in rng.choice(len(GRID), 3, replace=False)]) for _ in range(200)]
    chosen = [nearest(first_candidates(GRID, seed)) for seed in range(50)]
    assert np.mean(chosen) > 1.5 * np.mean(any_three)
    assert min(chosen) > np.quantile(any_three, 0.4)


@pytest.mark.parametrize("num", [1, 2])
def test_of_one_or_two_all_are_compared(num: int) -> None:
    listed = [Configuration(batch_size=2**i) for i in range(num)]
    assert set(first_candidates(listed, 0)) == set(first_candidates(listed, 0, np.ones(num))) == set(listed)
