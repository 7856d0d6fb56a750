"""Formulas of step time and of the number of samples to target, with their sources and limits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
#: Distance of a normal distribution's 5% and 95% quantiles from its mean, in standard deviations.
NINETY_PERCENT = 1.645
#: A number, or an array that broadcasts against the inputs of a formula: `(num, 1)` gives results `(num,
#: num_inputs)`.
Values = float | Array


def expected_maximum(num_ranks: Array) -> Array:
    """Returns the expected maximum of p standard normals: Phi^-1((p - 3/8) / (p + 1/4)) (Blom 1958).

    It is 0 for one rank. The error is at most 2% for p up to thousands. The expected maximum of heavy-tailed
    jitter is larger.

    Args:
        num_ranks: p, number of ranks in each case, `(num,)`.
    """
    from scipy.special import ndtri  # takes a while to import; only models need it

    p = np.asarray(num_ranks, dtype=float)
    return np.where(p > 1, ndtri((p - 0.375) / (p + 0.25)), 0.0)


def overlapped_seconds(compute: Array, exchange: Array, overlap: Values) -> Array:
    """Returns the seconds of compute and communication that overlap: (c^g + s^g)^(1/g).

    The overlap exponent g is from Pollux (Qiao et al., OSDI 2021, equation 10): with 1, compute and
    communication add up; with large values, only the longer one matters.

    Args:
        compute: c, seconds of compute.
        exchange: s, seconds of communication between ranks.
        overlap: g, at least 1.
    """
    return np.asarray((compute**overlap + exchange**overlap) ** (1 / overlap), dtype=float)


def log_samples_at_best_rate(
    batch_size: Array, *, log_samples: Values, noise_scale: Values, noise_floor: Values = 0.0
) -> Array:
    """Returns the logarithm of the number of samples to target at the best learning rate.

    The number of samples is s (1 + B / B_noise + (B_floor / B)^2).
    The first two terms are McCandlish et al. 2018, equation 2.7, multiplied by the batch size: batches far
    above B_noise waste samples. They assume a constant noise scale. If the noise scale grows, large batches
    are cheaper late in a run than early.

    The third term makes small batches expensive. Their gradient noise raises the final loss, so they need a
    longer run to get below the target (Zhang et al. 2019, the noisy quadratic model; measured by Li et al.
    2025, the Step Law). With a final loss L = E + P steps^-b + Q B^-c, the number of samples to a fixed L
    grows without bound towards the smallest batch that reaches L. The square approximates that growth by a
    finite value. It is steeper than 1 / B, as measured, and adds at most 6% above four times B_floor. The
    minimum is at (2 B_noise B_floor^2)^(1/3).

    Args:
        batch_size: B, global batch size, samples.
        log_samples: Logarithm of s, the number of samples to target of a very small batch without the third
            term.
        noise_scale: B_noise, samples.
        noise_floor: B_floor, the batch size at which the third term adds another s, samples; 0 for no third
            term.
    """
    batch = np.asarray(batch_size, dtype=float)
    return np.asarray(log_samples + np.log1p(batch / noise_scale + (noise_floor / batch) ** 2), dtype=float)


def log_best_rate(batch_size: Array, *, log_rate: Values, noise_scale: Values, exponent: Values) -> Array:
    """Returns the logarithm of the best learning rate: rate / (1 + B_noise / B)^exponent.

    McCandlish et al. 2018, equation 2.6: exponent 1 for SGD; 1/2 for Adam (Malladi et al. 2022).

    Args:
        batch_size: B, global batch size, samples.
        log_rate: Logarithm of the best learning rate for a very large batch.
        noise_scale: B_noise, samples.
        exponent: 1 for SGD, 1/2 for Adam.
    """
    batch = np.asarray(batch_size, dtype=float)
    return np.asarray(log_rate - exponent * np.log1p(noise_scale / batch), dtype=float)


def rate_penalty(log_ratio: Array, *, slope_below: Values, slope_above: Values, width: Values) -> Array:
    """Returns the logarithm of the factor by which samples to target grow away from the best learning rate.

    The formula is slope w (sqrt(1 + (z / w)^2) - 1): quadratic near the best rate. Far below the best rate,
    the number of samples grows as rate^-slope; far above it, as rate^slope, up to the rate at which training
    breaks down.

    Args:
        log_ratio: z, logarithm of the learning rate divided by the best rate.
        slope_below: Slope for z < 0.
        slope_above: Slope for z > 0.
        width: w, width of the quadratic part in units of z.
    """
    z = np.asarray(log_ratio, dtype=float)
    slope = np.where(z < 0, slope_below, slope_above)
    return np.asarray(slope * width * (np.sqrt(1 + (z / width) ** 2) - 1), dtype=float)
