"""Formulas for the number of samples to target and for parts of the step time, with sources and limits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
#: Distance of a normal distribution's 5% and 95% quantiles from its mean, in standard deviations.
NINETY_PERCENT = 1.645
#: A parameter of a formula: one number, or an array of several values of the parameter, `(num, 1)`. With an
#: array, the formula returns one row of results per value, `(num, num_inputs)`.
Values = float | Array


def expected_maximum(num_ranks: Array) -> Array:
    """Returns the expected maximum of p standard normals: Phi^-1((p - 3/8) / (p + 1/4)) (Blom 1958).

    Phi^-1 is the inverse of the standard normal distribution function. The result is 0 for one rank. Its
    error is at most 2% for p up to thousands. If jitter has heavier tails than a normal, its expected maximum
    is larger.

    Args:
        num_ranks: p, number of ranks in each case, `(num,)`.
    """
    from scipy.special import ndtri  # takes a while to import; only models need it

    p = np.asarray(num_ranks, dtype=float)
    return np.where(p > 1, ndtri((p - 0.375) / (p + 0.25)), 0.0)


def overlapped_seconds(compute: Array, exchange: Array, overlap: Values) -> Array:
    """Returns the total seconds of compute and communication that partly overlap: (c^g + s^g)^(1/g).

    The symbols are those of the arguments. The overlap exponent g is from Pollux (Qiao et al., OSDI 2021,
    equation 10): with 1, compute and communication add up; with large values, only the longer one matters.

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

    The number of samples is s (1 + B / B_noise + (B_floor / B)^2), with the symbols of the arguments. The
    first two terms are McCandlish et al. 2018, equation 2.7, multiplied by the batch size: batches far above
    the noise scale B_noise waste samples. These terms assume that the noise scale is constant. If it grows
    during a run, large batches waste fewer samples late in the run than early.

    The third term makes small batches expensive. Their gradient noise raises the final loss, so they need a
    longer run to get below the target (Zhang et al. 2019, the noisy quadratic model; measured by Li et al.
    2025, the Step Law). For example, let the final loss be L = E + P steps^-b + Q B^-c with positive
    constants E, P, Q, b and c. Then the number of samples to a given L grows without bound towards the
    smallest B that reaches L. The third term approximates this growth by a finite value. It falls faster with
    B than 1 / B, as measured, and adds at most 6% to s if B is above four times B_floor. The number of
    samples is smallest at B = (2 B_noise B_floor^2)^(1/3).

    Args:
        batch_size: B, global batch size, samples.
        log_samples: Logarithm of s, the number of samples to target that a very small batch would need
            without the third term.
        noise_scale: B_noise, gradient noise scale, samples.
        noise_floor: B_floor, the batch size at which the third term adds another s, samples; 0 for no third
            term.
    """
    batch = np.asarray(batch_size, dtype=float)
    return np.asarray(log_samples + np.log1p(batch / noise_scale + (noise_floor / batch) ** 2), dtype=float)


def log_best_rate(batch_size: Array, *, log_rate: Values, noise_scale: Values, exponent: Values) -> Array:
    """Returns the logarithm of the best learning rate for a batch size, r / (1 + B_noise / B)^x.

    The formula is that of McCandlish et al. 2018, equation 2.6, with x = 1 for SGD. For Adam, x = 1/2
    (Malladi et al. 2022). The symbols are those of the arguments.

    Args:
        batch_size: B, global batch size, samples.
        log_rate: Logarithm of r, the best learning rate of a very large batch.
        noise_scale: B_noise, gradient noise scale, samples.
        exponent: x, 1 for SGD and 1/2 for Adam.
    """
    batch = np.asarray(batch_size, dtype=float)
    return np.asarray(log_rate - exponent * np.log1p(noise_scale / batch), dtype=float)


def rate_penalty(log_ratio: Array, *, slope_below: Values, slope_above: Values, width: Values) -> Array:
    """Returns how many more samples a learning rate needs than the best one, as a logarithm of the ratio.

    The formula is a w (sqrt(1 + (z / w)^2) - 1), with the symbols of the arguments. It is quadratic near the
    best rate. Far below the best rate, the number of samples is proportional to rate^-a. Far above it, the
    number is proportional to rate^a, up to the rate at which training breaks down. The exponent a differs
    below and above the best rate.

    Args:
        log_ratio: z, logarithm of the learning rate divided by the best rate.
        slope_below: a for z < 0.
        slope_above: a for z > 0.
        width: w, width of the quadratic part in units of z.
    """
    z = np.asarray(log_ratio, dtype=float)
    slope = np.where(z < 0, slope_below, slope_above)
    return np.asarray(slope * width * (np.sqrt(1 + (z / width) ** 2) - 1), dtype=float)
