"""The gradient noise scale that grows along a run: from measurements at some places to the whole run.

    samples(B) = s integral_0^1 (1 + B / N(u)) du,   N(u) = N u^g / (1 - g)      so that it is s (1 + B / N)

B: counted batch; u: progress, the share of its samples that a very small batch has seen; N(u): noise scale
there (samples); N: that of the whole run, the harmonic mean along it; g: growth, 0 <= g < 1. g = 0 is one
noise scale along the run (McCandlish et al. 2018, equation 2.7). A run with batch B is at u after the share

    x / X = (u + r u^(1 - g)) / (1 + r),   r = B / N

of its samples. What a run with batch B measures there is

    1 / N_measured = e^d / N(u) + k / B

d: log of the noise scale that counts over the one that gradients show; k: share of the run's own noise in
its gradient. This noise, of variance S / B, moves the iterates, so it is part of their squared gradient. A
schedule that drops the learning rate makes N(u) jump, which no power law describes.

Where the constants come from. Growth of 0.5 give or take 0.25 is an order of magnitude over a hundredfold of
samples (McCandlish et al. 2018 find one to two along a training). The scale that counts is expected at twice
the measured one, within a factor e: the measured one leaves out the curvature (the same paper, section 2.2).
The factor was chosen with Pollux's three networks in view, which are all there is (`benchmarks.noise_growth`
prints how well they are predicted).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tuner.analytic.laws import Array
from tuner.analytic.regression import Parameter
from tuner.domain.measurement import NoiseStatistic

#: Unknowns besides N.
GROWTH = Parameter(name="growth of the noise scale", mean=0.5, sd=0.25)
OWN_NOISE = Parameter(name="log share of a run's own noise in its gradient", mean=math.log(0.15), sd=1.0)
COUNTED = Parameter(name="log noise scale that counts over the measured", mean=math.log(2.0), sd=1.0)
UNKNOWNS = (GROWTH, OWN_NOISE, COUNTED)

#: Beyond this the integral hangs on a run's first samples.
_MOST_GROWTH = 0.95
#: A run's statistics are averaged over so many e-folds of samples, and of these so many at most.
_FOLDS_COMBINED, _MOST_PLACES = 1.0, 4
#: What a place strays from the power law, standard deviation of the logarithm.
_PLACE_SD = 0.5
#: One pair of gradients determines the logarithm of a noise scale no better than this.
_ONE_ESTIMATE_SD = 2.0
_GRID = np.geomspace(1e-6, 1.0, 160)
_LOG_GRID = np.log(_GRID)


@dataclass(frozen=True, kw_only=True)
class NoisePlace:
    """Gradient statistics of one section of a run.

    Args:
        log_samples: Logarithm of the samples seen there.
        log_scale: Logarithm of the noise scale that was measured, samples.
        sd: Its standard deviation around what the law says.
    """

    log_samples: float
    log_scale: float
    sd: float


def noise_places(statistics: Sequence[NoiseStatistic]) -> list[NoisePlace]:
    """One run's statistics by where they were taken; S and |G|^2 are averaged separately at each place.

    Args:
        statistics: Of one run, in its order. A place whose mean squared gradient is lost in noise is
            left out.
    """
    seen = [s for s in statistics if s.samples > 0 and s.num_estimates > 0]
    logs = np.log([s.samples for s in seen])
    # From the end on, so that what is nearest to the target is not split.
    back = np.minimum((logs.max(initial=0.0) - logs) // _FOLDS_COMBINED, _MOST_PLACES - 1)
    found = []
    for place in np.unique(back)[::-1]:
        members = np.flatnonzero(back == place)
        scale = noise_scale([seen[i] for i in members])
        if scale is None:
            continue
        weights = np.array([seen[i].num_estimates for i in members], dtype=float)
        sd = math.hypot(_PLACE_SD, _ONE_ESTIMATE_SD / math.sqrt(weights.sum()))
        middle = float(weights @ logs[members] / weights.sum())
        found.append(NoisePlace(log_samples=middle, log_scale=math.log(scale), sd=sd))
    return found


def progress_of_share(share: Array, relative_batch: Array, growth: float) -> Array:
    """u of runs that have seen a share of their samples to target, the same shape.

    Args:
        share: x / X, in (0, 1].
        relative_batch: r = B / N, at least 0.
        growth: g, in [0, 1).
    """
    share, relative = np.broadcast_arrays(np.asarray(share, dtype=float), relative_batch)
    found, log_share = np.empty(share.shape), np.log(share)
    power = _GRID ** (1.0 - growth)
    for r in np.unique(relative):
        rows = relative == r
        shares = (_GRID + r * power) / (1.0 + r)
        found[rows] = np.exp(np.interp(log_share[rows], np.log(shares), _LOG_GRID))
    return found


def log_measured_scale(
    log_batch: Array, share: Array, log_noise_scale: float, unknowns: Sequence[float] | Array
) -> Array:
    """Logarithm of the noise scale that a run measures, `(num,)`.

    Args:
        log_batch: Of the counted batch, `(num,)`.
        share: Of its samples to target that the run has seen, in (0, 1], `(num,)`.
        log_noise_scale: log N.
        unknowns: Values of `UNKNOWNS`.
    """
    growth = float(np.clip(unknowns[0], 0.0, _MOST_GROWTH))
    batch = np.exp(log_batch)
    progress = progress_of_share(share, batch / math.exp(log_noise_scale), growth)
    there = log_noise_scale + growth * np.log(np.maximum(progress, _GRID[0])) - math.log1p(-growth)
    shown = there - unknowns[2]
    return np.asarray(-np.logaddexp(-shown, unknowns[1] - log_batch), dtype=float)


def whole_run_scale(share: Array, log_scale: Array) -> float:
    """log N from the priors' means alone, from scales measured at shares of runs: the start of a fit."""
    ahead = -GROWTH.mean * np.log(np.maximum(share, _GRID[0])) + math.log1p(-GROWTH.mean)
    return float(np.mean(log_scale + ahead)) + COUNTED.mean


def noise_scale(statistics: Sequence[NoiseStatistic]) -> float | None:
    """S / |G|^2 in samples: numerator and denominator are averaged separately, then divided.

    Args:
        statistics: Unbiased estimates from about one place of a run.

    Returns:
        The noise scale, or None where the mean squared gradient is not above zero, as happens when
        noise drowns it.
    """
    noise = sum(s.noise * s.num_estimates for s in statistics)
    squared = sum(s.squared_gradient * s.num_estimates for s in statistics)
    return noise / squared if noise > 0 and squared > 0 else None
