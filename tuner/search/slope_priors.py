"""Priors of slope models, for searches in recorded runs: textbook, learned from past studies, or neutral."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tuner.analytic.features import (
    SAMPLES_SLOPES,
    SECONDS_SLOPES,
    Slope,
)
from tuner.domain.ledger import FitRecord

#: Minimum standard deviation of a slope between jobs.
_BETWEEN_JOBS_SD = 0.25

Slopes = Mapping[str, Slope]


@dataclass(frozen=True, kw_only=True)
class SlopeBeliefs:
    """Prior slopes; they are always combined with a neutral prior.

    Args:
        name: Name of the prior.
        seconds: Slopes of log seconds per sample.
        samples: Slopes of log samples to target.
        sign: Factor of the means; -1 reverses them.
    """

    name: str
    seconds: Slopes = field(default_factory=lambda: SECONDS_SLOPES)
    samples: Slopes = field(default_factory=lambda: SAMPLES_SLOPES)
    sign: float = 1.0


NEUTRAL = SlopeBeliefs(name="neutral")
TEXTBOOK = SlopeBeliefs(name="textbook")
REVERSED = SlopeBeliefs(name="reversed", sign=-1.0)


def learnt_from_fits(fits: Sequence[FitRecord]) -> SlopeBeliefs | None:
    """Prior slopes learned from past studies, one fit for each study; None if there are none.

    Slopes are averaged, weighted by their precision. The variance between jobs is added.

    Args:
        fits: Records from `Ledger.past_fits`.
    """
    learnt = {}
    for quantity, known in (("seconds", SECONDS_SLOPES), ("samples", SAMPLES_SLOPES)):
        stated: dict[str, list[tuple[float, float]]] = {}
        for fit in fits:
            if fit.model == quantity:
                for name, (mean, sd) in fit.parameters.items():
                    if name in known and sd > 0:
                        stated.setdefault(name, []).append((float(mean), float(sd)))
        learnt[quantity] = {name: pooled(known[name], stated.get(name, ())) for name in known}
        if not stated:
            return None
    return SlopeBeliefs(name="learnt", seconds=learnt["seconds"], samples=learnt["samples"])


def pooled(known: Slope, stated: Sequence[tuple[float, float]]) -> Slope:
    """Combines the slopes of past studies with the textbook slope, which counts as one more study."""
    pairs = [(known.mean, known.sd), *((mean, math.hypot(sd, _BETWEEN_JOBS_SD)) for mean, sd in stated)]
    precision = np.array([sd**-2 for _, sd in pairs])
    mean = float(precision @ np.array([mean for mean, _ in pairs]) / precision.sum())
    spread = min(known.sd, math.hypot(_BETWEEN_JOBS_SD, float(precision.sum() ** -0.5)))
    return Slope(mean=mean, sd=spread, neutral_sd=known.neutral_sd, neutral_mean=known.neutral_mean)
