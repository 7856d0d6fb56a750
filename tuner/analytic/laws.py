"""Laws of seconds and of samples, as functions of arrays, each with its source and its limits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
#: A normal's 5% and 95% quantiles lie so many standard deviations from its mean.
NINETY_PERCENT = 1.645
#: A number, or an array that broadcasts against the law's inputs: `(num, 1)` gives `(num, num_inputs)`.
Values = float | Array


def expected_maximum(num_ranks: Array) -> Array:
    """Expected maximum of p standard normals: m_p = Phi^-1((p - 3/8) / (p + 1/4)) (Blom 1958).

    Zero for one rank. Good to 2% for p up to thousands; jitter with heavy tails exceeds it.
    """
    from scipy.special import ndtri  # takes a while to import; only models need it

    p = np.asarray(num_ranks, dtype=float)
    return np.where(p > 1, ndtri((p - 0.375) / (p + 0.25)), 0.0)


def overlapped_seconds(compute: Array, exchange: Array, overlap: Values) -> Array:
    """Seconds of compute with an exchange that overlaps with it: (c^g + s^g)^(1/g).

    The overlap exponent g is Pollux's (Qiao et al., OSDI 2021, equation 10): 1 adds compute and exchange,
    large values hide the smaller one.

    Args:
        compute: c, seconds of compute.
        exchange: s, seconds of the exchange.
        overlap: g, at least 1.
    """
    return np.asarray((compute**overlap + exchange**overlap) ** (1 / overlap), dtype=float)


def log_samples_at_best_rate(
    batch_size: Array, *, log_samples: Values, noise_scale: Values, noise_floor: Values = 0.0
) -> Array:
    """Logarithm of samples to target at the best rate: samples = s (1 + B / B_noise + (B_floor / B)^2).

    The first two terms are McCandlish et al. 2018, equation 2.7, with steps turned into samples: batches far
    above B_noise waste samples. They hold for one noise scale along the run; a scale that grows makes large
    batches cheaper late than early.

    The third term is the other side of the U. A small batch ends at a loss that its own gradient noise holds
    up, so it needs a longer run to get below the target (Zhang et al. 2019, the noisy quadratic model; Li et
    al. 2025, the Step Law, measured it). Where the final loss is L = E + P steps^-b + Q B^-c, samples to a
    fixed L grow without bound towards the smallest batch that reaches L. The square stands in for that with a
    finite value: steeper than 1 / B, as measured, and at most 6% from two octaves above B_floor on. The
    minimum lies at (2 B_noise B_floor^2)^(1/3).

    Args:
        batch_size: B, samples of a step over all ranks.
        log_samples: Logarithm of s, samples; what a very small batch needs if there is no floor.
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
    """How much longer, as a logarithm, training takes off the best learning rate.

    Near the best rate it is quadratic; far below, samples grow as rate^-slope (a slope of 1 is a run
    that crawls in proportion), far above with the steeper slope, until the edge of stability:
    slope w (sqrt(1 + (z / w)^2) - 1).

    Args:
        log_ratio: z, logarithm of rate over best rate.
        slope_below: Slope for z < 0.
        slope_above: Slope for z > 0.
        width: w, in units of z, of the quadratic part.
    """
    z = np.asarray(log_ratio, dtype=float)
    slope = np.where(z < 0, slope_below, slope_above)
    return np.asarray(slope * width * (np.sqrt(1 + (z / width) ** 2) - 1), dtype=float)
