"""Initial design: the first short probes, a few configurations as diverse as possible."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from search_spaces import Configuration
from tuner.analytic.features import Features
from tuner.analytic.laws import Array

_NUM_PROBES = 3
#: Where dollars count, the probes are among this share of the cheapest.
_CHEAP_SHARE = 0.4
#: Distances are made smaller at random, down to this factor, so that seeds differ.
_LEAST_FACTOR = 0.5


def first_probes(
    configurations: Sequence[Configuration],
    features: Features,
    price: Array | None,
    rng: np.random.Generator,
) -> list[Configuration]:
    """The first one near the middle, each further one far from those before.

    Args:
        configurations: The candidates.
        features: Their positions.
        price: Cost of a second of each, if the more expensive ones are left out, `(num,)`.
        rng: Draws how much distances count.
    """
    num = len(configurations)
    allowed = rng.permutation(num)
    if price is not None:
        rank = np.argsort(np.argsort(price[allowed], kind="stable"), kind="stable")
        allowed = allowed[rank < max(_CHEAP_SHARE * num, min(_NUM_PROBES, num))]
    positions = features.positions
    spans = np.maximum(np.ptp(positions, axis=0), 1e-9) if positions.size else np.ones(0)
    scaled = 2.0 * positions / spans
    middle = 0.5 * (scaled[allowed].min(axis=0) + scaled[allowed].max(axis=0))
    from_middle = ((scaled[allowed] - middle) ** 2).sum(axis=1) * rng.uniform(
        _LEAST_FACTOR, 1.0, len(allowed)
    )
    picked = [int(allowed[int(np.argmin(from_middle))])]
    while len(picked) < min(_NUM_PROBES, len(allowed)):
        squared = [((scaled[allowed] - scaled[p]) ** 2).sum(axis=1) for p in picked]
        nearest = np.min(squared, axis=0) * rng.uniform(_LEAST_FACTOR, 1.0, len(allowed))
        nearest[np.isin(allowed, picked)] = -1.0
        picked.append(int(allowed[int(np.argmax(nearest))]))
    return [configurations[i] for i in picked]
