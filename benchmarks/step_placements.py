"""Placements of timed steps: from devices on each node, spread evenly, and some rows of a table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from search_spaces import Configuration
from tuner.analytic.all_reduce_cost import Placements
from tuner.analytic.step_rows import Steps
from tuner.analytic.strategy_encoding import setup_of


def placements_of(ranks_per_node: Sequence[Sequence[int]]) -> Placements:
    """Placements from the number of ranks on each node, as in `[(4, 4), (1, 2, 1)]`."""
    used = [[count for count in counts if count] for counts in ranks_per_node]
    if not all(used):
        raise ValueError("a placement has no rank")
    return Placements(
        num_nodes=np.array([len(counts) for counts in used], dtype=float),
        num_ranks=np.array([sum(counts) for counts in used], dtype=float),
        most_on_a_node=np.array([max(counts) for counts in used], dtype=float),
    )


def spread_evenly(num_ranks: int, num_nodes: int) -> tuple[int, ...]:
    """Ranks on each node where they differ by at most one: `spread_evenly(7, 3)` is `(3, 2, 2)`."""
    if not 1 <= num_nodes <= num_ranks:
        raise ValueError(f"{num_ranks} ranks cannot use all of {num_nodes} nodes")
    each, remainder = divmod(num_ranks, num_nodes)
    return tuple(each + (node < remainder) for node in range(num_nodes))


def all_reduce_steps(placements: Placements, batch_size_per_rank: npt.NDArray[np.float64]) -> Steps:
    """Steps of ranks that all-reduce after each of them."""
    setups = [setup_of(Configuration(), int(ranks)) for ranks in placements.num_ranks]
    return Steps(placements=placements, batch_size_per_rank=batch_size_per_rank, setups=tuple(setups))


def steps_at(steps: Steps, rows: npt.NDArray[np.intp]) -> Steps:
    """Some rows of all-reduce's steps."""
    placements = steps.placements
    found = Placements(
        num_nodes=placements.num_nodes[rows],
        num_ranks=placements.num_ranks[rows],
        most_on_a_node=placements.most_on_a_node[rows],
    )
    return all_reduce_steps(found, steps.batch_size_per_rank[rows])
