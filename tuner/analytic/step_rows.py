"""Steps as rows of numbers: where ranks are, their batch, how they exchange, and what of a step is meant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from search_spaces import Configuration, StrategyTraits
from tuner.analytic.all_reduce_cost import Placements
from tuner.analytic.laws import Array
from tuner.analytic.strategy_encoding import (
    NUM_STRATEGIES,
    Setup,
    exchanging_alike,
    setup_of,
    strategy_columns,
)
from tuner.domain.cluster import Cluster

#: Where steps were made: on the cluster to predict, by emulation, on the part at hand.
ASKED, EMULATED, AT_HAND = 0.0, 1.0, 2.0
#: Columns of the inputs; between tau and where there is one for each strategy.
LOG_RANKS, LOG_BATCH, _LOG_TAU = range(3)
_WHERE, NODES, MOST_ON_A_NODE, _OF_COMPUTE = range(3 + NUM_STRATEGIES, 7 + NUM_STRATEGIES)
NUM_COLUMNS = _OF_COMPUTE + 1


@dataclass(frozen=True, kw_only=True)
class Steps:
    """Steps that were timed or are to be predicted, one a row.

    Args:
        placements: Where the ranks are, `(num,)`.
        batch_size_per_rank: Samples of one rank's step, `(num,)`.
        setups: How the ranks exchange, `(num,)`.
        where: `ASKED`, `EMULATED` or `AT_HAND`, `(num,)`; None for `ASKED`.
    """

    placements: Placements
    batch_size_per_rank: Array
    setups: tuple[Setup, ...]
    where: Array | None = None

    def __len__(self) -> int:
        return len(self.batch_size_per_rank)

    def inputs(self, *, of_compute: bool = False) -> Array:
        """What the law takes, `(num, NUM_COLUMNS)`: the whole steps, or only one rank's compute in them."""
        where = self.placements
        found = np.zeros((len(self), NUM_COLUMNS))
        found[:, LOG_RANKS] = np.log(where.num_ranks)
        found[:, LOG_BATCH] = np.log(self.batch_size_per_rank)
        found[:, _LOG_TAU] = np.log([float(setup.tau) for setup in self.setups])
        found[:, 3:_WHERE] = strategy_columns(self.setups)
        found[:, _WHERE] = ASKED if self.where is None else self.where
        found[:, NODES], found[:, MOST_ON_A_NODE] = where.num_nodes, where.most_on_a_node
        found[:, _OF_COMPUTE] = float(of_compute)
        return found


def steps_of(configurations: Sequence[Configuration], cluster: Cluster, where: Array | None = None) -> Steps:
    """The steps of configurations on whole nodes of a cluster."""
    setups = tuple(setup_of(c, cluster.num_ranks(c.nodes)) for c in configurations)
    ranks = np.array([setup.num_ranks for setup in setups], dtype=float)
    per_rank = np.array([c.batch_size for c in configurations], dtype=float) / np.maximum(ranks, 1)
    # If all ranks wait, the largest share counts; if none does, shares average.
    waits = np.array([setup.traits.barrier for setup in setups], dtype=bool)
    most = np.minimum(ranks, float(cluster.devices_per_node))
    return Steps(
        placements=Placements(num_nodes=np.ceil(ranks / most), num_ranks=ranks, most_on_a_node=most),
        batch_size_per_rank=np.where(waits, np.ceil(per_rank), per_rank),
        setups=setups,
        where=where,
    )


@dataclass(frozen=True, kw_only=True)
class Alike:
    """Rows that obey the same formula, repeated for several values of the unknowns.

    Args:
        rows: Which rows of the inputs they are, `(num,)`.
        traits: How they exchange.
        where: `ASKED`, `EMULATED` or `AT_HAND`.
        of_compute: Whether one rank's compute is meant, not the whole step.
        placements: Where the ranks are, `(times * num,)`.
        per_rank: Samples of one rank's step, `(times * num,)`.
        taus: Steps between two exchanges, `(times * num,)`.
    """

    rows: npt.NDArray[np.intp]
    traits: StrategyTraits
    where: float
    of_compute: bool
    placements: Placements
    per_rank: Array
    taus: Array


def alike_rows(inputs: Array, times: int) -> list[Alike]:
    """Inputs divided by the formula that they obey.

    Args:
        inputs: As `Steps.inputs` returns them, `(num, NUM_COLUMNS)`.
        times: How often the rows are repeated.
    """
    found = []
    for traits, rows in exchanging_alike(inputs[:, 3:_WHERE]):
        kinds = inputs[rows][:, [_WHERE, _OF_COMPUTE]]
        for where, of_compute in np.unique(kinds, axis=0):
            own = rows[(kinds[:, 0] == where) & (kinds[:, 1] == of_compute)]
            columns = np.tile(inputs[own], (times, 1))
            found.append(
                Alike(
                    rows=own,
                    traits=traits,
                    where=float(where),
                    of_compute=bool(of_compute),
                    placements=Placements(
                        num_nodes=columns[:, NODES],
                        num_ranks=np.rint(np.exp(columns[:, LOG_RANKS])),
                        most_on_a_node=columns[:, MOST_ON_A_NODE],
                    ),
                    per_rank=np.exp(columns[:, LOG_BATCH]),
                    taus=np.rint(np.exp(columns[:, _LOG_TAU])),
                )
            )
    return found
