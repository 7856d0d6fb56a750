"""Variance that the probes in flight leave for further probes to resolve."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from tuner.search.beliefs import Beliefs
from tuner.search.expected_gain import FEWEST_DRAWS, squared_correlation
from tuner.search.state import SearchState, run_key

Array = npt.NDArray[np.float64]


def left_to_resolve(
    state: SearchState, beliefs: Beliefs, resolves: Callable[[int], float], incumbent: int
) -> Array:
    """The share of each candidate's variance that is left once the probes in flight have ended, `(num,)`.

    A probe in flight resolves a share r of the variance of log time of its own run. Of another
    candidate, whose log time correlates with that by rho over joint draws, it thereby resolves rho^2 r: for
    normal quantities this does not depend on what it will show (Ginsbourger et al. 2010, section 3.2:
    the variance after a fantasy is known before it), so that means need not be guessed. Several probes count
    as independent of each other. The incumbent's own run is left out: candidates are compared given it.

    Args:
        state: What is known, and the slices in flight.
        beliefs: What is believed of the candidates.
        resolves: The share r of a candidate, by its index.
        incumbent: Which candidate the others are compared with.
    """
    num = len(beliefs.configurations)
    left = np.ones(num)
    own = run_key(state.job, beliefs.configurations[incumbent])
    keys = state.keys_under_way - {own}
    if not keys:
        return left
    total = beliefs.forecast.total
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(total)
    for i, configuration in enumerate(beliefs.configurations):
        key = run_key(state.job, configuration)
        if key not in keys:
            continue
        keys.discard(key)
        both = np.isfinite(total) & np.isfinite(total[:, [i]])
        shared = squared_correlation(logs, np.broadcast_to(logs[:, [i]], logs.shape), both)
        explained = np.where(both.sum(axis=0) >= FEWEST_DRAWS, shared, 0.0)
        left *= 1.0 - explained * min(max(resolves(i), 0.0), 1.0)
    return left
