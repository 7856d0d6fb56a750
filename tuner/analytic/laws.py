"""Formulas of step time and of samples to target, with their sources and limits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
#: Distance of a normal distribution's 5% and 95% quantiles from its mean, in standard deviations.
NINETY_PERCENT = 1.645
#: A number, or an array that broadcasts against the law's inputs: `(num, 1)` gives `(num, num_inputs)`.
Values = float | Array


def expected_maximum(num_ranks: Array) -> Array:
    """Expected maximum of p standard normals: m_p = Phi^-1((p - 3/8) / (p + 1/4)) (Blom 1958).

    It is 0 for one rank. The error is at most 2% for p up to thousands; heavy-tailed jitter exceeds it.

    Args:
        num_ranks: p, `(num,)`.
    """
    from scipy.special import ndtri  # takes a while to import; only models need it

    p = np.asarray(num_ranks, dtype=float)
    return np.where(p > 1, ndtri((p - 0.375) / (p + 0.25)), 0.0)


def overlapped_seconds(compute: Array, exchange: Array, overlap: Values) -> Array:
    """Seconds of compute and an exchange that overlaps with it: (c^g + s^g)^(1/g).

    The overlap exponent g is from Pollux (Qiao et al., OSDI 2021, equation 10): with 1, compute and exchange
    add up; with large values, only the longer one counts.

    Args:
        compute: c, seconds of compute.
        exchange: s, seconds of the exchange.
        overlap: g, at least 1.
    """
    return np.asarray((compute**overlap + exchange**overlap) ** (1 / overlap), dtype=float)


def log_samples_at_best_rate(
    batch_size: Array, *, log_samples: Values, noise_scale: Values, noise_floor: Values = 0.0
) -> Array:
    """Logarithm of samples to target at the best learning rate: s (1 + B / B_noise + (B_floor / B)^2).

    The first two terms are McCandlish et al. 2018, equation 2.7, multiplied by the batch: batches far above
    B_noise waste samples. They hold for a constant noise scale; if it grows, large batches are cheaper late
    in a run than early.

    The third term makes small batches expensive: their gradient noise raises the final loss, so they need a
    longer run to get below the target (Zhang et al. 2019, the noisy quadratic model; measured by Li et al.
    2025, the Step Law). With a final loss L = E + P steps^-b + Q B^-c, samples to a fixed L grow without
    bound towards the smallest batch that reaches L. The square approximates that with a finite value: steeper
    than 1 / B, as measured, and at most 6% above four times B_floor. The minimum is at
    (2 B_noise B_floor^2)^(1/3).

    Args:
        batch_size: B, samples of a step over all ranks.
        log_samples: Logarithm of s, the samples that a very small batch needs without a floor.
        noise_scale: B_noise, samples.
        noise_floor: B_floor, the batch (samples) at which the floor adds another s; 0 for no floor.
    """
    batch = np.asarray(batch_size, dtype=float)
    return np.asarray(log_samples + np.log1p(batch / noise_scale + (noise_floor / batch) ** 2), dtype=float)


def log_best_rate(batch_size: Array, *, log_rate: Values, noise_scale: Values, exponent: Values) -> Array:
    """Logarithm of the best learning rate: rate / (1 + B_noise / B)^exponent.

    McCandlish et al. 2018, equation 2.6: exponent 1 for SGD; 1/2 for Adam (Malladi et al. 2022).

    Args:
        batch_size: B.
        log_rate: Logarithm of the best rate of a very large batch.
        noise_scale: B_noise, samples.
        exponent: 1 for SGD, 1/2 for Adam.
    """
    batch = np.asarray(batch_size, dtype=float)
    return np.asarray(log_rate - exponent * np.log1p(noise_scale / batch), dtype=float)


def rate_penalty(log_ratio: Array, *, slope_below: Values, slope_above: Values, width: Values) -> Array:
    """Logarithm of the factor by which samples to target grow off the best learning rate.

    slope w (sqrt(1 + (z / w)^2) - 1): quadratic near the best rate. Far below it, samples grow as
    rate^-slope; far above it, as rate^slope, up to the edge of stability.

    Args:
        log_ratio: z, logarithm of rate over best rate.
        slope_below: Slope for z < 0.
        slope_above: Slope for z > 0.
        width: w, in units of z, of the quadratic part.
    """
    z = np.asarray(log_ratio, dtype=float)
    slope = np.where(z < 0, slope_below, slope_above)
    return np.asarray(slope * width * (np.sqrt(1 + (z / width) ** 2) - 1), dtype=float)
