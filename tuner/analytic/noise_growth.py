"""Growth of the gradient noise scale during a run, and the noise scale of the whole run.

    samples(B) = s integral_0^1 (1 + B / N(u)) du = s (1 + B / N),   N(u) = N u^g / (1 - g)

B: counted batch; u: progress, the share of its samples that a very small batch has seen; N(u): noise scale
there (samples); N: noise scale of the whole run, the harmonic mean of N(u); g: growth, 0 <= g < 1. With g = 0
the noise scale is constant (McCandlish et al. 2018, equation 2.7). A run with batch B reaches u after the
share

    x / X = (u + r u^(1 - g)) / (1 + r),   r = B / N

of its samples. There it measures the noise scale

    1 / N_measured = e^d / N(u) + k / B

d: log of the effective noise scale over the measured one; k: share of the run's own noise in its gradient.
This noise, of variance S / B, moves the iterates, so it is part of their squared gradient. Schedules that
drop the learning rate make N(u) jump, which a power law does not describe.

The priors: growth of 0.5 +- 0.25 is an order of magnitude per hundredfold of samples (McCandlish et al. 2018
find one to two orders during a training). The effective noise scale is expected at twice the measured one,
within a factor e, since measurements ignore the curvature (the same paper, section 2.2). The factor of two
was chosen on Pollux's three networks (`benchmarks.noise_growth` prints how well they are predicted).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tuner.analytic.laws import Array
from tuner.analytic.regression import Parameter
from tuner.domain.measurement import NoiseStatistic

#: The unknowns besides N: g, log k and d.
GROWTH = Parameter(name="growth of the noise scale", mean=0.5, sd=0.25)
OWN_NOISE = Parameter(name="log share of a run's own noise in its gradient", mean=math.log(0.15), sd=1.0)
COUNTED = Parameter(name="log noise scale that counts over the measured", mean=math.log(2.0), sd=1.0)
UNKNOWNS = (GROWTH, OWN_NOISE, COUNTED)

#: Largest growth: above it, the integral depends on the first samples of a run.
_MOST_GROWTH = 0.95
#: Statistics are averaged over sections of this many e-folds of samples; largest number of sections in a run.
_FOLDS_COMBINED, _MOST_PLACES = 1.0, 4
#: Standard deviation of the log noise scale of a section around the power law.
_PLACE_SD = 0.5
#: Standard deviation of the log noise scale from one pair of gradients.
_ONE_ESTIMATE_SD = 2.0
_GRID = np.geomspace(1e-6, 1.0, 160)
_LOG_GRID = np.log(_GRID)


@dataclass(frozen=True, kw_only=True)
class NoisePlace:
    """The noise scale of one section of a run.

    Args:
        log_samples: Logarithm of the samples seen, in the middle of the section.
        log_scale: Logarithm of the measured noise scale, samples.
        sd: Standard deviation of `log_scale` around the law.
    """

    log_samples: float
    log_scale: float
    sd: float


def noise_places(statistics: Sequence[NoiseStatistic]) -> list[NoisePlace]:
    """The noise scales along one run; S and |G|^2 are averaged separately in each section.

    Args:
        statistics: Gradient statistics of the run, in order.

    Returns:
        One entry for each section, except those whose mean squared gradient is not above the noise.
    """
    seen = [s for s in statistics if s.samples > 0 and s.num_estimates > 0]
    logs = np.log([s.samples for s in seen])
    # Counted from the end, so that the section nearest to the target is complete.
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
    """Progress u of runs that have seen a share of their samples to target; the shape of `share`.

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
        log_batch: Logarithm of the counted batch, `(num,)`.
        share: Share of its samples to target that the run has seen, in (0, 1], `(num,)`.
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
    """An estimate of log N from noise scales measured at shares of runs, with the priors' means."""
    ahead = -GROWTH.mean * np.log(np.maximum(share, _GRID[0])) + math.log1p(-GROWTH.mean)
    return float(np.mean(log_scale + ahead)) + COUNTED.mean


def noise_scale(statistics: Sequence[NoiseStatistic]) -> float | None:
    """The noise scale S / |G|^2, samples; numerator and denominator are averaged separately.

    Args:
        statistics: Unbiased estimates from one section of a run.

    Returns:
        The noise scale, or None if an average is not above zero, as happens if noise dominates.
    """
    noise = sum(s.noise * s.num_estimates for s in statistics)
    squared = sum(s.squared_gradient * s.num_estimates for s in statistics)
    return noise / squared if noise > 0 and squared > 0 else None
