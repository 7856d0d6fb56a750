"""Relates the gradient noise scale that a run measures to the number of samples to target.

The noise scale grows during a run. A run with batch size B needs samples(B) samples to its target:

    samples(B) = s integral_0^1 (1 + B / N(u)) du = s (1 + B / N),   N(u) = N u^g / (1 - g)

- B: batch size over which gradients are averaged, samples (`samples_model.counted_batch`).
- s: number of samples to target of a very small batch.
- u: training progress in (0, 1]: a run with a very small batch has progress u after u s samples.
- N(u): effective noise scale at progress u, samples. It grows as a power of u.
- N: noise scale of the whole run, the harmonic mean of N(u) over u, samples.
- g: growth, 0 <= g < 1. With g = 0 the noise scale is constant (McCandlish et al. 2018, equation 2.7).

A run with batch size B has progress u when it has processed x of its X = samples(B) samples, where

    x / X = (u + r u^(1 - g)) / (1 + r),   r = B / N

At this progress the run measures the noise scale N_measured, where

    1 / N_measured = e^d / N(u) + k / B

- d: logarithm of (N(u) / noise scale that a run with a very large batch would measure at u).
- k: influence of the run's own gradient noise. This noise has the variance S / B (S: total variance of the
  gradient of a single sample). It moves the parameters of the model, and that adds k S / B to the squared
  gradient that the run measures.

Limit: if the schedule drops the learning rate at milestones, N(u) jumps, which a power law does not describe.

Priors: g is 0.5 +- 0.25; with 0.5, N(u) grows by a factor of ten while the number of samples grows by a
factor of a hundred (McCandlish et al. 2018 find a growth by a factor of 10 to 100 during a training). The
effective noise scale is expected to be twice the measured one, within a factor e, since measurements ignore
the curvature of the loss (the same paper, section 2.2). The factor of two was chosen on three networks that
were measured for Pollux (`benchmarks.noise_growth` prints how well they are predicted).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tuner.analytic.laws import Array
from tuner.analytic.regression import Parameter
from tuner.domain.measurement import NoiseStatistic

#: The parameters g, log k and d of the module docstring; the parameter N belongs to the samples model.
GROWTH = Parameter(name="noise scale growth", mean=0.5, sd=0.25)
OWN_NOISE = Parameter(name="log own noise share", mean=math.log(0.15), sd=1.0)
COUNTED = Parameter(name="log noise scale ratio (effective/measured)", mean=math.log(2.0), sd=1.0)
UNKNOWNS = (GROWTH, OWN_NOISE, COUNTED)

#: Largest growth. With more growth, the integral mainly depends on the first samples of a run.
_MOST_GROWTH = 0.95
#: A run is divided into sections, and gradient statistics are averaged within each. First value: length of a
#: section, in e-folds (factors of e) of samples. Second value: largest number of sections of a run.
_FOLDS_COMBINED, _MOST_PLACES = 1.0, 4
#: Standard deviation of the logarithm of a section's noise scale around the power law.
_PLACE_SD = 0.5
#: Standard deviation of the logarithm of the noise scale if it is estimated from one pair of gradients.
_ONE_ESTIMATE_SD = 2.0
_GRID = np.geomspace(1e-6, 1.0, 160)
_LOG_GRID = np.log(_GRID)


@dataclass(frozen=True, kw_only=True)
class NoisePlace:
    """The gradient noise scale that was measured in one section of a run.

    Args:
        log_samples: Logarithm of the number of samples processed, in the middle of the section.
        log_scale: Logarithm of the measured noise scale, samples.
        sd: Standard deviation of `log_scale` around the power law by which the noise scale grows during a
            run.
    """

    log_samples: float
    log_scale: float
    sd: float


def noise_places(statistics: Sequence[NoiseStatistic]) -> list[NoisePlace]:
    """Computes the gradient noise scale S / |G|^2 in each section of a run.

    S is the total variance of the gradient of a single sample, and G the gradient without noise. Each of S
    and |G|^2 is averaged over the section before the division.

    Args:
        statistics: Gradient statistics of the run, in order of training.

    Returns:
        One entry per section. A section is left out if the average of S or of |G|^2 is not above zero.
    """
    seen = [s for s in statistics if s.samples > 0 and s.num_estimates > 0]
    logs = np.log([s.samples for s in seen])
    # Sections are counted from the end of the run: the last section, nearest to the target, is then complete.
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
    """Converts the share of its samples that a run has processed to its training progress u.

    A run with a very small batch has progress u after the share u of its samples. The result has the shape of
    `share`.

    Args:
        share: x / X, share of its samples to target that a run has processed, in (0, 1].
        relative_batch: r = B / N, batch size divided by the noise scale of the whole run, at least 0.
        growth: g, growth of the noise scale, in [0, 1).
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
    """Predicts the logarithm of the gradient noise scale that a run measures, `(num,)`.

    The module docstring has the formula and its symbols.

    Args:
        log_batch: Logarithm of the batch size B, `(num,)`.
        share: Share of its samples to target that the run has processed, in (0, 1], `(num,)`.
        log_noise_scale: Logarithm of N, the noise scale of the whole run, samples.
        unknowns: g, log k and d: values of the parameters in `UNKNOWNS`, `(3,)`.
    """
    growth = float(np.clip(unknowns[0], 0.0, _MOST_GROWTH))
    batch = np.exp(log_batch)
    progress = progress_of_share(share, batch / math.exp(log_noise_scale), growth)
    there = log_noise_scale + growth * np.log(np.maximum(progress, _GRID[0])) - math.log1p(-growth)
    shown = there - unknowns[2]
    return np.asarray(-np.logaddexp(-shown, unknowns[1] - log_batch), dtype=float)


def whole_run_scale(share: Array, log_scale: Array) -> float:
    """Estimates the logarithm of the noise scale of a whole run from measurements during the run.

    It uses the prior means of the parameters g and d of the module docstring, and ignores the run's own
    gradient noise (k).

    Args:
        share: Share of its samples to target that the run had processed at each measurement, `(num,)`.
        log_scale: Logarithm of each measured noise scale, `(num,)`.
    """
    ahead = -GROWTH.mean * np.log(np.maximum(share, _GRID[0])) + math.log1p(-GROWTH.mean)
    return float(np.mean(log_scale + ahead)) + COUNTED.mean


def noise_scale(statistics: Sequence[NoiseStatistic]) -> float | None:
    """Computes the gradient noise scale S / |G|^2 from statistics of one section of a run, in samples.

    S and |G|^2 are averaged before the division.

    Args:
        statistics: Unbiased estimates of S (total variance of the gradient of a single sample) and of |G|^2
            (squared norm of the gradient without noise), from one section of a run.

    Returns:
        The noise scale; None if one of the two averages is not above zero, as happens if noise dominates.
    """
    noise = sum(s.noise * s.num_estimates for s in statistics)
    squared = sum(s.squared_gradient * s.num_estimates for s in statistics)
    return noise / squared if noise > 0 and squared > 0 else None
