"""What the next slice of each candidate is charged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tuner.search.emulation_cost import fit_emulation_cost
from tuner.search.prospects import Prospects
from tuner.search.state import SearchState

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ProbeCost:
    """Charges of the machine that runs the slices.

    Args:
        price: In the goal's unit, of one charged second, `(num,)`.
        per_second: In the goal's unit, of one training second, `(num,)`.
        per_slice: In the goal's unit, of the next slice besides its training, `(num,)`.
        startup: Seconds that starting a slice takes.
    """

    price: Array
    per_second: Array
    per_slice: Array
    startup: float


def probe_cost(state: SearchState, prospects: Prospects, price: Array) -> ProbeCost:
    """The charges of real ranks and of emulated ones, each where it would run.

    Real ranks hold their nodes while they train and score. Emulated ones hold this machine, a second of which
    counts as one of the cheapest nodes.

    Args:
        state: What was measured.
        prospects: The candidates.
        price: Of a second of training of each, in the goal's unit, `(num,)`.
    """
    startup = state.slice_seconds if state.terms.pays_to_resume else state.startup_seconds
    charged = np.full(len(price), state.overhead)
    emulated = np.array([state.cluster.emulates(c) for c in prospects.configurations], dtype=bool)
    if emulated.any():
        model = fit_emulation_cost(state.probes, state.cluster)
        per_sample = np.array([model.seconds_per_sample(c, state.cluster) for c in prospects.configurations])
        charged = np.where(emulated, per_sample / prospects.seconds_per_sample, charged)
        price = np.where(emulated, price.min(), price)
    is_free = prospects.status.started & (not state.terms.pays_to_resume)
    return ProbeCost(
        price=price,
        per_second=charged * price,
        per_slice=np.where(is_free, 0.0, startup) * price,
        startup=startup,
    )
