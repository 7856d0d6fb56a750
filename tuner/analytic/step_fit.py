"""Fits the model of step time to timed steps, for any distribution of ranks over nodes.

The model is a formula (`step_law`) plus a residual, the smooth deviation of step times from the formula. On a
cluster of separate machines, the residual depends on the fit itself, so the fit has three passes:

1. Fit with the residual that follows from the prior means of the parameters. The result gives the share of
   each step that ranks spend on exchanging gradients or parameters.
2. Fit with the residual for that share. The errors of this fit show by how much compute times and link speeds
   scatter around the formula.
3. Fit with the residual for that share and that scatter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tuner.analytic.laws import Array
from tuner.analytic.mixed_posterior import MixedPosterior, PastLaw, fit_mixed
from tuner.analytic.regression import Kernel, Posterior, fit
from tuner.analytic.step_law import NOMINAL_BYTES, UNSTATED_BYTES, StepLaw, nodes_are_machines
from tuner.analytic.step_parameters import LINKS_VARIATION, prior_parameters
from tuner.analytic.step_residual import SMOOTH, StepResidual
from tuner.analytic.step_rows import Steps
from tuner.domain.cluster import Cluster

#: Prior standard deviation of the logarithm of step time between repeated timings of the same steps; and the
#: weight of this prior, as a number of degrees of freedom.
_PRIOR_BETWEEN_MOMENTS_SD = 0.08
_PRIOR_WEIGHT = 4.0
#: Values of the scatter to try, as multiples of the scatter that `step_residual` assumes; the prior standard
#: deviation of the multiple's logarithm; and the number of rounds in which the two multiples are estimated.
_SCALES = 2.0 ** np.arange(-2.0, 1.5, 0.5)
_SCALE_SD = 1.0
_SCALE_ROUNDS = 2
#: Tolerances of the search for theta (see `fit`): `_ROUGH` for the first two passes, `_FINE` for the last
#: one.
_ROUGH, _FINE = 1e-2, 1e-3


@dataclass(frozen=True, kw_only=True)
class TimedSteps:
    """Measured step times, one entry per timing of a configuration.

    Args:
        steps: For each timing, the number of ranks, their nodes, batch size and strategy, `(num,)`.
        seconds: Mean seconds of a step in each timing, above 0, `(num,)`.
        own_sd: Standard error of the logarithm of `seconds`, estimated from how much the steps within one
            timing differ, `(num,)`.
        wait_seconds: Mean seconds per step in which a rank waits for communication after its compute,
            `(num,)`; NaN if this was not timed.
    """

    steps: Steps
    seconds: Array
    own_sd: Array
    wait_seconds: Array


def fit_steps(
    timed: TimedSteps,
    cluster: Cluster,
    parameter_bytes: int,
    *,
    strategies: Sequence[str] = (),
    past: PastLaw | None = None,
) -> tuple[MixedPosterior, float]:
    """Fits the model of step time to measured step times.

    Args:
        timed: The measured step times; may be empty.
        cluster: The cluster that the steps ran on.
        parameter_bytes: Bytes of the model's parameters; 0 if unknown. If unknown, the law for separate
            machines has an additional parameter for the number of bytes; on one host, the bandwidth stays at
            its prior.
        strategies: Names of the strategies to predict, in addition to those that were timed.
        past: Values of the parameters in past studies, which serve as priors; ignored for a cluster that is
            emulated (ranks are trained on this host under a virtual clock).

    Returns:
        1. The posterior of the logarithm of the seconds of a step; its inputs are rows of `Steps.inputs`.
        2. The standard deviation of the logarithm of seconds between repeated timings of the same steps.
    """
    on_machines = nodes_are_machines(cluster)
    # Artificial delays do not count as compute, so waits are not used on a cluster that has such delays.
    observed = _merged(timed, with_waits=on_machines and not cluster.delays)
    in_play = [*strategies, *(setup.strategy for setup in timed.steps.setups)]
    parameters = prior_parameters(cluster, in_play, parameter_bytes, with_waits=observed.has_waits)
    has_unstated = any(p.name == UNSTATED_BYTES for p in parameters)
    num_bytes = NOMINAL_BYTES if has_unstated else parameter_bytes
    law = StepLaw(parameters=parameters, cluster=cluster, parameter_bytes=num_bytes)
    between = observed.between_sd(1.0)
    residual: Kernel = SMOOTH
    start = None
    if on_machines:
        residual = StepResidual(law=law, theta=np.array([p.mean for p in parameters]))
    if on_machines and len(observed.means):
        start, own, links = _learn_scatter(law, observed, between)
        between = observed.between_sd(own)
        residual = StepResidual(law=law, theta=start, compute_scale=own, exchange_scale=links)
        # Links that scatter more between placements also vary more within a ring.
        parameters = tuple(
            replace(p, mean=p.mean + math.log(links)) if p.name == LINKS_VARIATION else p for p in parameters
        )
    past = past if past is not None and cluster.virtual is None else {}
    data, slopes = observed.data(between), law.slopes
    posterior = fit_mixed(law, parameters, past, residual, *data, slopes=slopes, start=start, tolerance=_FINE)
    return posterior, between


def _learn_scatter(law: StepLaw, observed: _Merged, between: float) -> tuple[Array, float, float]:
    """Makes the first two passes of the fit; returns theta, and the scatter of compute and of communication.

    Each scatter is a multiple of the scatter that `step_residual` assumes.
    """
    theta = np.array([p.mean for p in law.parameters])
    for _ in range(2):
        residual = StepResidual(law=law, theta=theta)
        data = observed.data(between)
        found = fit(law, law.parameters, residual, *data, slopes=law.slopes, start=theta, tolerance=_ROUGH)
        theta = found.theta
    return theta, *_scales(found, observed, residual)


def _scales(found: Posterior, observed: _Merged, residual: StepResidual) -> tuple[float, float]:
    """Estimates how much compute and communication scatter, as multiples of the assumed scatter.

    In each round, one multiple is estimated while the other one is fixed, then the reverse. The estimate is
    the root of the posterior mean of the squared multiple over the grid `_SCALES`, with the formula of step
    time linearized around the fit. If no step was timed repeatedly, the variance between repeated timings is
    assumed to grow with the scatter of compute.
    """
    compute, exchange = residual.parts(found.inputs, found.inputs)
    mean, sd = (np.array([getattr(p, name) for p in found.parameters]) for name in ("mean", "sd"))
    missed = observed.means - found.law(found.theta, found.inputs) + found.jacobian @ (found.theta - mean)
    unknown = (found.jacobian * sd**2) @ found.jacobian.T
    # The noise variance is a linear function of scale^2, so two of its values determine both coefficients.
    least = np.diag(observed.noise_sd(observed.between_sd(0.0)) ** 2)
    compute = compute + np.diag(observed.noise_sd(observed.between_sd(1.0)) ** 2) - least
    own = links = 1.0
    for _ in range(_SCALE_ROUNDS):
        links = _scale_of(exchange, unknown + least + own**2 * compute, missed)
        own = _scale_of(compute, unknown + least + links**2 * exchange, missed)
    return own, links


def _scale_of(part: Array, remainder: Array, missed: Array) -> float:
    """Estimates by which factor `scale` one part of the standard deviation of errors must be multiplied.

    The errors `missed` have the covariance remainder + scale^2 part. Let L be the Cholesky factor of
    remainder + part, and Q diag(e) Q' the eigendecomposition of L^-1 part L^-T. Then the covariance of
    Q' L^-1 missed is diagonal for every scale, with the variances 1 + (scale^2 - 1) e.

    Args:
        part: Covariance that scale^2 multiplies, `(num, num)`.
        remainder: Remaining covariance, `(num, num)`.
        missed: Observations minus the predictions of the prior, `(num,)`.

    Returns:
        The root of the posterior mean of scale^2.
    """
    inverse = np.linalg.inv(np.linalg.cholesky(remainder + part))
    values, vectors = np.linalg.eigh(inverse @ part @ inverse.T)
    squares = (vectors.T @ (inverse @ missed)) ** 2
    variances = 1.0 + (_SCALES[:, None] ** 2 - 1.0) * np.clip(values, 0.0, 1.0)
    logs = -0.5 * (
        np.sum(squares / variances + np.log(variances), axis=1) + (np.log(_SCALES) / _SCALE_SD) ** 2
    )
    weights = np.exp(logs - logs.max())
    return math.sqrt(float(weights @ _SCALES**2 / weights.sum()))


@dataclass(frozen=True, kw_only=True)
class _Merged:
    """Measured step times, in which all timings of equal steps are merged into one observation.

    Args:
        inputs: The distinct rows of inputs of the formula, `(num, NUM_COLUMNS)`.
        means: Mean logarithm of the seconds of the timings with each row, `(num,)`.
        own_variance: Variance of each mean, estimated from how much the steps within a timing differ,
            `(num,)`.
        counts: Number of timings of each row, `(num,)`.
        squares: Sum of squared differences between timings of whole steps and the mean of their row.
        degrees: Degrees of freedom of `squares`.
        has_waits: Whether waits were timed, so some rows describe one rank's compute instead of whole steps.
    """

    inputs: Array
    means: Array
    own_variance: Array
    counts: Array
    squares: float
    degrees: float
    has_waits: bool

    def between_sd(self, scale: float) -> float:
        """Returns by how much repeated timings of the same steps differ, as a standard deviation."""
        prior = (scale * _PRIOR_BETWEEN_MOMENTS_SD) ** 2
        return math.sqrt((_PRIOR_WEIGHT * prior + self.squares) / (_PRIOR_WEIGHT + self.degrees))

    def noise_sd(self, between: float) -> Array:
        """Returns the standard deviation of the noise of each observation, `(num,)`."""
        return np.asarray(np.sqrt(between**2 / self.counts + self.own_variance), dtype=float)

    def data(self, between: float) -> tuple[Array, Array, Array]:
        """Returns inputs, observations and noise standard deviations, in the order that `fit` needs."""
        return self.inputs, self.means, self.noise_sd(between)


def _merged(timed: TimedSteps, *, with_waits: bool) -> _Merged:
    steps, seconds = timed.steps, timed.seconds
    known = with_waits & (timed.wait_seconds > 0) & (timed.wait_seconds < seconds)
    rows = np.concatenate([steps.inputs(), steps.inputs(of_compute=True)[known]])
    observed = np.log(np.concatenate([seconds, (seconds - timed.wait_seconds)[known]]))
    variance = np.concatenate([timed.own_sd, timed.own_sd[known]]) ** 2
    different, place = np.unique(rows, axis=0, return_inverse=True)
    counts = np.bincount(place, minlength=len(different)).astype(float)
    means = np.bincount(place, observed, len(different)) / counts
    whole = place[: len(steps)]
    return _Merged(
        inputs=different,
        means=means,
        own_variance=np.bincount(place, variance, len(different)) / counts**2,
        counts=counts,
        squares=float(np.sum((observed[: len(whole)] - means[whole]) ** 2)),
        degrees=float(len(whole) - len(np.unique(whole))),
        has_waits=bool(known.any()),
    )
