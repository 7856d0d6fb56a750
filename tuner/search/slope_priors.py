"""Priors of the coefficients of the linear regressions (slope models) that predict times.

A prior is taken from textbooks, learned from past studies, or neutral (with large standard deviations).
"""

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

#: Minimum standard deviation of a regression slope between jobs.
_BETWEEN_JOBS_SD = 0.25

Slopes = Mapping[str, Slope]


@dataclass(frozen=True, kw_only=True)
class SlopeBeliefs:
    """Prior of the regression coefficients of two models: seconds per sample, and samples to target.

    The models combine it with a neutral prior.

    Args:
        name: Name of the prior, such as `textbook`.
        seconds: Maps the name of each column to the prior of its coefficient for log seconds per sample.
        samples: Maps the name of each column to the prior of its coefficient for log samples to target.
    """

    name: str
    seconds: Slopes = field(default_factory=lambda: SECONDS_SLOPES)
    samples: Slopes = field(default_factory=lambda: SAMPLES_SLOPES)


NEUTRAL = SlopeBeliefs(name="neutral")
TEXTBOOK = SlopeBeliefs(name="textbook")


def learnt_from_fits(fits: Sequence[FitRecord]) -> SlopeBeliefs | None:
    """Computes a prior of the regression coefficients from those that were fitted in past studies.

    The prior mean of a coefficient is the mean over the studies, weighted by precision (the reciprocal of the
    variance). The assumed variance of the coefficient between jobs is added to the prior variance.

    Args:
        fits: Records from `Ledger.past_fits`, at most one per study and model.

    Returns:
        The prior; None if one of the two regressions was never fitted.
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
    """Combines the values that a regression coefficient had in past studies with its textbook prior.

    The textbook prior counts as one more study.

    Args:
        known: The textbook prior.
        stated: Posterior mean and standard deviation of the coefficient, one pair for each past study.
    """
    pairs = [(known.mean, known.sd), *((mean, math.hypot(sd, _BETWEEN_JOBS_SD)) for mean, sd in stated)]
    precision = np.array([sd**-2 for _, sd in pairs])
    mean = float(precision @ np.array([mean for mean, _ in pairs]) / precision.sum())
    spread = min(known.sd, math.hypot(_BETWEEN_JOBS_SD, float(precision.sum() ** -0.5)))
    return Slope(mean=mean, sd=spread, neutral_sd=known.neutral_sd, neutral_mean=known.neutral_mean)
