"""Converts training steps to rows of numbers, from which the formula of step time predicts their seconds."""

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

#: Where steps ran. `ASKED`: on the cluster whose step times are predicted. `EMULATED`: on ranks that were
#: trained on this host under a virtual clock. `AT_HAND`: on those nodes of an emulated cluster that exist
#: (`Cluster.at_hand`; an emulated cluster is given by a description, `[cluster.machine]`).
ASKED, EMULATED, AT_HAND = 0.0, 1.0, 2.0
#: Indices of the columns of the inputs. The columns between `_LOG_TAU` and `_WHERE` are those of
#: `strategy_columns`.
LOG_RANKS, LOG_BATCH, _LOG_TAU = range(3)
_WHERE, NODES, MOST_ON_A_NODE, _OF_COMPUTE = range(3 + NUM_STRATEGIES, 7 + NUM_STRATEGIES)
NUM_COLUMNS = _OF_COMPUTE + 1


@dataclass(frozen=True, kw_only=True)
class Steps:
    """Training steps that were timed or will be predicted, `num` in all.

    Args:
        placements: How the ranks of each step are distributed over nodes, `(num,)`.
        batch_size_per_rank: Number of samples that one rank processes per step, `(num,)`.
        setups: Strategy and number of ranks of each step, `(num,)`.
        where: Where each step ran: `ASKED`, `EMULATED` or `AT_HAND`, `(num,)`; None if all are `ASKED`.
    """

    placements: Placements
    batch_size_per_rank: Array
    setups: tuple[Setup, ...]
    where: Array | None = None

    def __len__(self) -> int:
        return len(self.batch_size_per_rank)

    def inputs(self, *, of_compute: bool = False) -> Array:
        """Converts the steps to rows of numbers for the formula of step time, `(num, NUM_COLUMNS)`.

        Args:
            of_compute: Whether the rows describe only one rank's compute in the steps, instead of whole
                steps.
        """
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
    """Returns the training steps of configurations, for which the step time is then predicted.

    Args:
        configurations: The configurations, `(num,)`.
        cluster: The cluster that the steps run on.
        where: Where each step ran, see `Steps`.
    """
    setups = tuple(setup_of(c, cluster.num_ranks(c.nodes)) for c in configurations)
    ranks = np.array([setup.num_ranks for setup in setups], dtype=float)
    per_rank = np.array([c.batch_size for c in configurations], dtype=float) / np.maximum(ranks, 1)
    # With a barrier, the rank with the largest share of the batch determines the step time; without one, the
    # mean share does.
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
    """Training steps whose time has the same formula, as inputs of this formula.

    The steps are repeated for several values of the parameters.

    Args:
        rows: Indices of the steps in the inputs, `(num,)`.
        traits: Properties of one of the strategies whose step time has this formula.
        where: Where the steps ran: `ASKED`, `EMULATED` or `AT_HAND`.
        of_compute: Whether only one rank's compute is predicted, instead of the whole step.
        placements: How the ranks are distributed over nodes, `(times * num,)`.
        per_rank: Number of samples that one rank processes per step, `(times * num,)`.
        taus: Steps between two exchanges of gradients or parameters, `(times * num,)`.
    """

    rows: npt.NDArray[np.intp]
    traits: StrategyTraits
    where: float
    of_compute: bool
    placements: Placements
    per_rank: Array
    taus: Array


def alike_rows(inputs: Array, times: int) -> list[Alike]:
    """Groups training steps by the formula of their step time.

    Args:
        inputs: Rows of `Steps.inputs`, `(num, NUM_COLUMNS)`.
        times: How often to repeat the rows in the result: the number of parameter values for which the caller
            evaluates the law at once.
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
