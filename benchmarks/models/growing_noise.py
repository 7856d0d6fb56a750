"""The noise scale along a run: what early statistics say, how it grows on, and the samples that costs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

#: The noise scale of a very large batch is at most this many times the largest one measured: beyond that,
#: three small batches tell nothing.
_MAX_BEYOND_MEASURED = 4.0
#: Points at which the part of a run that was not measured is summed.
_NUM_AHEAD = 48


def without_own_noise(batch_sizes: Array, noise_scales: Array) -> tuple[Array, Array]:
    """Splits measured noise scales into the workload's and what the measuring batch adds to the gradient.

    At the iterates of a run with batch B the gradient also holds what that run's own noise pushed it off
    course, of variance in proportion to S / B. With |G|^2 + k S / B in the place of |G|^2,

        1 / N(B) = 1 / N + k / B,

    N(B): noise scale measured by the run with batch B (samples); N: that of a run without noise; k: share
    of its own noise in the gradient. Least squares in relative error, both parts at least 0.
    Very early in a run the line in 1 / B bends, and N comes out too large, hence a bound.

    Args:
        batch_sizes: B of each run, rising, `(num_runs,)`.
        noise_scales: N(B) at equal progress, above 0, `(num_runs, num_points)`.

    Returns:
        1 / N (per sample) and k, each `(num_points,)`; k is 0 for one run.
    """
    inverse = 1.0 / np.asarray(noise_scales, dtype=float)
    if len(inverse) == 1:
        return inverse[0], np.zeros(inverse.shape[1])
    per_batch = 1.0 / np.asarray(batch_sizes, dtype=float)[:, None]
    weight = inverse**-2
    total, first, second = weight.sum(axis=0), (weight * per_batch).sum(axis=0), weight * per_batch**2
    curvature = second.sum(axis=0)
    value, slope = (weight * inverse).sum(axis=0), (weight * inverse * per_batch).sum(axis=0)
    determinant = total * curvature - first**2
    flat = (value * curvature - slope * first) / determinant
    share = (total * slope - first * value) / determinant
    flat, share = np.where(share < 0, value / total, flat), np.maximum(share, 0.0)
    least = inverse.min(axis=0) / _MAX_BEYOND_MEASURED
    low = flat < least
    share = np.where(low, np.maximum((slope - least * first) / curvature, 0.0), share)
    return np.where(low, least, flat), share


@dataclass(frozen=True, kw_only=True)
class GrowingNoise:
    """What is known of the noise scale along a run to the target.

    Args:
        progress: Share of the run at the end of each part, rising to 1, `(num_parts,)`.
        inverse: 1 / N of each part (per sample); after the measured ones, the last measured value.
        share: k of each part, as `without_own_noise` gives it, `(num_parts,)`.
        num_measured: How many parts were measured.
    """

    progress: Array
    inverse: Array
    share: Array
    num_measured: int

    @property
    def weights(self) -> Array:
        """How much of the run each part is, summing to 1, `(num_parts,)`."""
        return np.diff(self.progress, prepend=0.0)

    def inverse_scales(self, batch_sizes: Array, growth: Array) -> Array:
        """1 / N(B) along the run, `(num_draws, num_batches, num_parts)`.

        What was measured stays; from its end, at progress u_m, the noise scale goes on as
        N (u / u_m)^growth. McCandlish et al. 2018 find growth by one to two orders of magnitude along a
        training; an exponent of 1 is one order for each tenfold of samples. A schedule that drops the
        learning rate makes it jump, which no power law knows.

        Args:
            batch_sizes: B, `(num_batches,)`.
            growth: Exponents, `(num_draws,)`.
        """
        early = self.progress[self.num_measured - 1]
        ahead = np.log(np.maximum(self.progress / early, 1.0))
        measured = self.inverse + self.share / np.asarray(batch_sizes, dtype=float)[:, None]
        grown = np.exp(-np.asarray(growth, dtype=float)[:, None, None] * ahead)
        return np.asarray(measured * grown, dtype=float)


def growing_noise(progress: Array, batch_sizes: Array, noise_scales: Array) -> GrowingNoise:
    """From statistics of the beginning of one run or several to the whole run.

    Args:
        progress: Where statistics end, as a share of the run to the target, rising within (0, 1],
            `(num_points,)`.
        batch_sizes: Of the runs, rising, `(num_runs,)`.
        noise_scales: Measured at equal progress, above 0, `(num_runs, num_points)`.
    """
    inverse, share = without_own_noise(batch_sizes, noise_scales)
    last, num_measured = float(progress[-1]), len(progress)
    ahead = np.geomspace(last, 1.0, _NUM_AHEAD + 1)[1:] if last < 1.0 else np.zeros(0)
    return GrowingNoise(
        progress=np.concatenate([progress, ahead]),
        inverse=np.concatenate([inverse, np.full(len(ahead), inverse[-1])]),
        share=np.concatenate([share, np.full(len(ahead), share[-1])]),
        num_measured=num_measured,
    )


def relative_samples(batch_sizes: Array, reference: float, inverse_scales: Array, weights: Array) -> Array:
    """Samples to target over those of a reference batch: integral of (1 + B/N(u)) / (1 + B0/N(u)) du.

    B: batch, B0: reference batch, N: noise scale at progress u, where u counts the samples of the reference
    batch. For one N it is the ratio of McCandlish et al. 2018, equation 2.7; for N far below B0, as in
    the first epochs, a step is a step whatever its batch and samples grow as B / B0. It supposes that the
    learning rate follows the batch as the noise scale allows (Johnson et al. 2020, AdaScale); where it does
    not, large batches need more.

    Args:
        batch_sizes: B, `(num_batches,)`.
        reference: B0.
        inverse_scales: 1 / N, `(..., num_batches, num_parts)`.
        weights: du, summing to 1, `(num_parts,)`.

    Returns:
        `(..., num_batches)`, 1 at the reference batch.
    """
    batch = np.asarray(batch_sizes, dtype=float)[:, None]
    return np.asarray(((1 + batch * inverse_scales) / (1 + reference * inverse_scales)) @ weights)
