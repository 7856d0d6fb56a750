"""Samples to target by batch size, from a few small batches and the noise scale early in their runs.

log samples(B) = s + a log r(B) + g(B) + e, with r the samples relative to the smallest batch
(`growing_noise.relative_samples`), a the steepness, g a smooth residual and e what is a batch's own: its
recipe and its seeds. The unknowns of r are few but bend the law much (whether there is a critical batch
within reach at all), so that they are not linearised: deterministic draws of the prior, weighted by what was
observed, stand for the posterior, and s and g are integrated exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.models.growing_noise import GrowingNoise, relative_samples
from tuner.analytic.quasi_random import spread_normals
from tuner.analytic.regression import Residual

Array = npt.NDArray[np.float64]

_NUM_DRAWS = 1024
#: Standard deviation of s around the first observation: no prior to speak of.
_LEVEL_SD = 3.0


@dataclass(frozen=True, kw_only=True)
class ScalingPriors:
    """What is believed of any workload before its first run; the same for all.

    Growth of about one order of magnitude along a run, and a noise scale that counts as measured, are
    McCandlish et al. 2018's. `log_critical`, `steepness` and its sd were chosen on a coarse grid by the mean
    quantile loss over the nine workloads of MLPerf's and Pollux's tables of convergence; `own_sd`,
    `residual_sd` and `ONE_RUN_SD` so that 90% intervals over them cover about that. With the first three
    and `own_sd` chosen anew without the workload, the median error is 9% instead of 6% and coverage 86%
    instead of 93% (`benchmarks.samples_to_target` prints it). Growth by an exponent of 0.5 or less would let
    first-epoch statistics understate large batches again.

    Args:
        log_critical: Without statistics: log of the critical batch over the largest batch fitted.
        log_critical_sd: Its standard deviation.
        log_effective: With statistics: log of the noise scale that counts over the measured one.
        log_effective_sd: Its standard deviation.
        growth: Exponent by which the noise scale grows after the statistics end.
        growth_sd: Its standard deviation.
        steepness: a; above 1 where the learning rate is not kept optimal for large batches.
        steepness_sd: Its standard deviation.
        residual_sd: Of log samples, smooth over log batch.
        residual_length: In e-folds of batch.
        own_sd: Of log samples, of a batch's own recipe (rate, warm-up), whatever its number of runs.
    """

    log_critical: float = math.log(8.0)
    log_critical_sd: float = 1.2
    log_effective: float = 0.0
    log_effective_sd: float = 0.4
    growth: float = 1.0
    growth_sd: float = 0.5
    steepness: float = 1.1
    steepness_sd: float = 0.15
    residual_sd: float = 0.06
    residual_length: float = 1.5
    own_sd: float = 0.05

    @property
    def residual(self) -> Residual:
        """The kernel over log batch."""
        return Residual(sd=self.residual_sd, length_scales=(self.residual_length,))


PRIORS = ScalingPriors()
#: Run-to-run standard deviation of log samples where only one run is known: MLPerf's reference runs spread by
#: 3% in the median over batches, by 20% in the worst workload.
ONE_RUN_SD = 0.05


@dataclass(frozen=True, kw_only=True)
class BatchScaling:
    """What is believed after the fit.

    Args:
        batch_sizes: Observed, `(num_observed,)`.
        level: Log samples of the smallest batch, around which s is sought.
        misfit: Observed log samples less level and law, `(num_draws, num_observed)`.
        precision: Inverse covariance of observed log samples given the law, `(num_observed, num_observed)`.
        weights: Of the draws, summing to 1, `(num_draws,)`.
        normals: The draws: growth, noise scale and steepness in prior standard deviations, and one for
            what is left, `(num_draws, 4)`.
        noise: The noise scale along the run, where it was measured.
        priors: As fitted with.
    """

    batch_sizes: Array
    level: float
    misfit: Array
    precision: Array
    weights: Array
    normals: Array
    noise: GrowingNoise | None
    priors: ScalingPriors

    def draws(self, batch_sizes: Array, *, relative_sd: float | Array = 0.0) -> Array:
        """Draws of log samples to target, with `weights`, `(num_draws, num_batches)`.

        Every batch has its marginal distribution; what is left of one is not drawn apart from another's.

        Args:
            batch_sizes: `(num_batches,)`.
            relative_sd: Spread of the figures that are predicted, `(num_batches,)` or one for all: of one
                run, or of a mean of several.
        """
        asked = np.asarray(batch_sizes, dtype=float)
        law = _log_relative(asked, self.batch_sizes, self.normals, self.noise, self.priors)
        between = _covariance(asked, self.batch_sizes, self.priors)
        gain = between @ self.precision
        variance = _LEVEL_SD**2 + self.priors.residual_sd**2 - np.einsum("ij,ij->i", gain, between)
        left = np.sqrt(np.maximum(variance, 0.0) + self.priors.own_sd**2 + np.square(relative_sd))
        return np.asarray(self.level + law + self.misfit @ gain.T + self.normals[:, 3:] * left, dtype=float)

    def quantiles(
        self, batch_sizes: Array, quantiles: Sequence[float], *, relative_sd: float | Array = 0.0
    ) -> Array:
        """Quantiles of samples to target, `(num_quantiles, num_batches)`.

        Args:
            batch_sizes: `(num_batches,)`.
            quantiles: Within (0, 1).
            relative_sd: As for `draws`.
        """
        drawn = self.draws(batch_sizes, relative_sd=relative_sd)
        columns = [weighted_quantiles(column, self.weights, quantiles) for column in drawn.T]
        return np.exp(np.stack(columns, axis=1))


def fit_batch_scaling(
    batch_sizes: Sequence[float] | Array,
    samples: Sequence[float] | Array,
    relative_sd: Sequence[float] | Array,
    *,
    noise: GrowingNoise | None = None,
    priors: ScalingPriors = PRIORS,
) -> BatchScaling:
    """Fits the law to batches that were run to the target.

    Args:
        batch_sizes: Rising, `(num_observed,)`, at least one; the first is the reference.
        samples: Samples (or epochs) each took, above 0; `[1.0]` for one batch gives relative samples.
        relative_sd: Run-to-run spread of each figure, relative.
        noise: The noise scale along the run of the smallest batch; None where it was not measured.
        priors: What is believed before.
    """
    batch, observed = np.asarray(batch_sizes, dtype=float), np.log(np.asarray(samples, dtype=float))
    if len(batch) == 0 or np.any(np.diff(batch) <= 0):
        raise ValueError(f"batch_sizes must rise and hold at least one, not {list(batch_sizes)}")
    normals = spread_normals(_NUM_DRAWS, 4)
    own = priors.own_sd**2 + np.asarray(relative_sd, dtype=float) ** 2
    precision = np.asarray(np.linalg.inv(_covariance(batch, batch, priors) + np.diag(own)), dtype=float)
    law = _log_relative(batch, batch, normals, noise, priors)
    misfit = observed - observed[0] - law
    log_weights = -0.5 * np.einsum("di,ij,dj->d", misfit, precision, misfit)
    weights = np.exp(log_weights - log_weights.max())
    return BatchScaling(
        batch_sizes=batch,
        level=float(observed[0]),
        misfit=misfit,
        precision=precision,
        weights=weights / weights.sum(),
        normals=normals,
        noise=noise,
        priors=priors,
    )


def weighted_quantiles(values: Array, weights: Array, quantiles: Sequence[float]) -> Array:
    """Quantiles of weighted values, linear between the middles of their weights, `(num_quantiles,)`."""
    order = np.argsort(values)
    cumulative = np.cumsum(weights[order]) - 0.5 * weights[order]
    return np.interp(quantiles, cumulative, values[order])


def _covariance(left: Array, right: Array, priors: ScalingPriors) -> Array:
    smooth = priors.residual.covariance(np.log(left)[:, None], np.log(right)[:, None])
    return np.asarray(smooth + _LEVEL_SD**2, dtype=float)


def _log_relative(
    asked: Array, fitted: Array, normals: Array, noise: GrowingNoise | None, priors: ScalingPriors
) -> Array:
    """The law a log r(B), `(num_draws, num_asked)`."""
    steepness = priors.steepness + priors.steepness_sd * normals[:, 2:3]
    if noise is None:
        critical = fitted[-1] * np.exp(priors.log_critical + priors.log_critical_sd * normals[:, 1])
        inverse = np.broadcast_to(1 / critical[:, None, None], (len(normals), len(asked), 1))
        weights = np.ones(1)
    else:
        effective = np.exp(priors.log_effective + priors.log_effective_sd * normals[:, 1])
        growth = priors.growth + priors.growth_sd * normals[:, 0]
        inverse = noise.inverse_scales(asked, growth) / effective[:, None, None]
        weights = noise.weights
    relative = relative_samples(asked, float(fitted[0]), inverse, weights)
    return np.asarray(steepness * np.log(relative), dtype=float)
