"""Bayesian nonlinear regression: fits a formula with priors on its parameters, plus a smooth residual.

The formula (law) is a function that predicts observations from parameters theta and inputs x:

    y_i = law(theta, x_i) + g(x_i) + e_i

- theta ~ N(prior_mean, prior_sd^2): the parameters.
- g: the residual, a zero-mean Gaussian process: the smooth deviation of reality from the formula.
- e_i ~ N(0, noise_sd_i^2): noise of observation i.

The fit finds theta with the highest posterior density and linearizes the formula around it. Predictions are
those of one Gaussian process with kernel J(x) diag(prior_sd^2) J(x')' + k(x, x'), where J is the Jacobian of
the formula and k the kernel of the residual (O'Hagan 1978; Rasmussen and Williams 2006, section 2.7). The
linearization is accurate if data or prior determine theta so well that the formula is nearly linear over the
remaining range.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tuner.analytic.laws import Array

IntArray = npt.NDArray[np.intp]
Law = Callable[[Array, Array], Array]
"""Function `law(theta, inputs)` that returns predictions, `(num_points,)`.

theta is `(num_parameters,)` and inputs is `(num_points, num_features)`. `broadcast_slopes` calls a law with
many thetas at once: then theta is `(num_parameters, num, 1)`, and the law returns `(num, num_points)`.
"""

Slopes = Callable[[Array, Array], Array]
"""Function `slopes(theta, inputs)` that returns the Jacobian of a law, `(num_points, num_parameters)`."""

_MAX_ITERATIONS = 60
_STEP = 1e-4


class Kernel(Protocol):
    """Interface of the covariance function of the residual.

    The residual is the smooth deviation of observations from the fitted formula, a Gaussian process.
    """

    def covariance(self, left: Array, right: Array) -> Array:
        """Returns the covariances of the residual between all pairs of inputs, `(num_left, num_right)`.

        Args:
            left: Inputs of the rows of the result, `(num_left, num_features)`.
            right: Inputs of the columns of the result, `(num_right, num_features)`.
        """


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One parameter of a fitted formula, with its normal prior.

    Args:
        name: Name of the parameter, with its unit.
        mean: Prior mean, on the scale on which the formula uses the parameter (often a logarithm).
        sd: Prior standard deviation, on the same scale.
    """

    name: str
    mean: float
    sd: float


@dataclass(frozen=True, kw_only=True)
class Residual:
    """Squared-exponential covariance function of the residual.

    The residual is the smooth deviation of observations from the fitted formula, a Gaussian process.

    Args:
        sd: Standard deviation of the residual; 0 for no residual.
        length_scales: Length scale of each feature, in the feature's unit, `(num_features,)`; infinite for a
            feature that has no effect on the residual.
    """

    sd: float
    length_scales: tuple[float, ...]

    def covariance(self, left: Array, right: Array) -> Array:
        """Returns the covariances of the residual between all pairs of inputs, `(num_left, num_right)`.

        Args:
            left: Inputs of the rows of the result, `(num_left, num_features)`.
            right: Inputs of the columns of the result, `(num_right, num_features)`.
        """
        # Most features have the same value in all inputs and add nothing to the distance, so they are
        # skipped.
        both = np.concatenate([left, right])
        differ = both.max(axis=0, initial=-np.inf) > both.min(axis=0, initial=np.inf)
        differ &= np.isfinite(self.length_scales)
        squared = np.zeros((len(left), len(right)))
        for column in np.flatnonzero(differ):
            scale = self.length_scales[column]
            squared += np.subtract.outer(left[:, column] / scale, right[:, column] / scale) ** 2
        return np.asarray(self.sd**2 * np.exp(-0.5 * squared), dtype=float)


@dataclass(frozen=True, kw_only=True)
class Posterior:
    """Result of a fit: the posterior of the parameters of a formula and of the residual.

    The residual is the smooth deviation of observations from the formula (law), a Gaussian process.

    Args:
        law: The fitted formula.
        slopes: Function that returns the Jacobian of the formula (see `Slopes`).
        parameters: The parameters with their priors, in the order of `theta`.
        theta: Maximum a posteriori values of the parameters, `(num_parameters,)`.
        theta_sd: Posterior standard deviations of the parameters, `(num_parameters,)`.
        residual: Covariance function of the residual.
        inputs: Inputs x of the observations, `(num_points, num_features)`.
        weights: K^-1 (y - law(theta, x)), `(num_points,)`, where K is the covariance of residual plus noise
            and y the observations. A prediction multiplies its covariances with the observations by them.
        precision: Inverse of the prior covariance of the observations, which includes the uncertainty of
            theta, the residual and the noise, `(num_points, num_points)`.
        jacobian: Jacobian of the formula at the observations, `(num_points, num_parameters)`.
        converged: Whether the search for theta converged.
        rms: Root mean square of the observations minus the formula's predictions.
        log_evidence: Log marginal likelihood of the observations (Laplace's approximation); 0 without
            observations.
    """

    law: Law
    slopes: Slopes
    parameters: tuple[Parameter, ...]
    theta: Array
    theta_sd: Array
    residual: Kernel
    inputs: Array
    weights: Array
    precision: Array
    jacobian: Array
    converged: bool
    rms: float
    log_evidence: float

    def predict(
        self, inputs: Array, *, observed: IntArray | None = None, own_variance: float = 0.0
    ) -> tuple[Array, Array]:
        """Predicts observations at new inputs; returns the mean `(num,)` and the covariance `(num, num)`.

        The prediction is that of the fitted formula plus the residual (the smooth deviation from it). In
        addition, each run deviates by the effect of its random seed. A fit treats this deviation as noise of
        the run's observation. It is the same whenever the same run is predicted, but other runs with the same
        inputs do not have it. Therefore:

        - Predictions of an observed run include its deviation, as far as the observation shows it.
        - Predictions of a new run do not include a deviation.

        Args:
            inputs: The inputs to predict, `(num, num_features)`.
            observed: For each input, the index of the observation of the same run, or -1 for a new run,
                `(num,)`; None if all inputs are of new runs.
            own_variance: Variance of the deviation between runs with the same inputs but different seeds.
        """
        mean = self.law(self.theta, inputs)
        jacobian = self.slopes(self.theta, inputs)
        prior_variance = np.array([p.sd**2 for p in self.parameters])
        covariance = (jacobian * prior_variance) @ jacobian.T + self.residual.covariance(inputs, inputs)
        itself = np.zeros((len(inputs), len(self.inputs)))
        if observed is not None:
            rows = np.flatnonzero(observed >= 0)
            itself[rows, observed[rows]] = own_variance
            covariance[rows, rows] += own_variance
        residual_cross = self.residual.covariance(inputs, self.inputs) + itself
        mean = mean + residual_cross @ self.weights
        cross = (jacobian * prior_variance) @ self.jacobian.T + residual_cross
        covariance = covariance - cross @ self.precision @ cross.T
        return mean, 0.5 * (covariance + covariance.T)

    def at_prior(self) -> list[str]:
        """Returns the names of the parameters that the observations hardly determine.

        Their posterior is nearly as wide as their prior.
        """
        known = zip(self.parameters, self.theta_sd, strict=True)
        return [parameter.name for parameter, sd in known if sd > 0.9 * parameter.sd]


def fit(
    law: Law,
    parameters: Sequence[Parameter],
    residual: Kernel,
    inputs: Array,
    observations: Array,
    noise_sd: Array,
    *,
    slopes: Slopes | None = None,
    start: Array | None = None,
    tolerance: float = 1e-7,
) -> Posterior:
    """Fits the parameters of a formula to observations, with a smooth residual.

    Args:
        law: The formula: a function that predicts the observations from parameters and inputs.
        parameters: The parameters with their priors, `(num_parameters,)`.
        residual: Covariance function of the residual, the smooth deviation of the observations from the
            formula.
        inputs: Inputs of the observations, `(num_points, num_features)`; may be empty, then the result is the
            prior.
        observations: Observed values, `(num_points,)`.
        noise_sd: Standard deviation of the noise of each observation, above 0, `(num_points,)`.
        slopes: Function that returns the Jacobian of the formula; None to compute it by central differences
            (`broadcast_slopes`).
        start: Initial theta of the search, `(num_parameters,)`; None for the prior mean.
        tolerance: The search for theta minimizes a sum of squares. It ends when a step reduces this sum by
            less than `tolerance` times (1 + the sum).
    """
    slopes = slopes or broadcast_slopes(law)
    prior_mean = np.array([p.mean for p in parameters], dtype=float)
    prior_sd = np.array([p.sd for p in parameters], dtype=float)
    covariance = residual.covariance(inputs, inputs) + np.diag(noise_sd**2)
    whitening = np.linalg.inv(np.linalg.cholesky(covariance))

    def stacked(theta: Array) -> Array:
        whitened = whitening @ (observations - law(theta, inputs))
        return np.concatenate([whitened, (theta - prior_mean) / prior_sd])

    def stacked_slopes(theta: Array) -> Array:
        return np.concatenate([-whitening @ slopes(theta, inputs), np.diag(1.0 / prior_sd)])

    start = prior_mean if start is None else start
    theta, converged = _levenberg_marquardt(stacked, stacked_slopes, start, prior_sd, tolerance)
    jacobian = slopes(theta, inputs)
    misfit = observations - law(theta, inputs)
    inverse_noise = whitening.T @ whitening
    explained = inverse_noise @ jacobian
    information = jacobian.T @ explained + np.diag(prior_sd**-2.0)
    unknown = np.linalg.inv(information)
    # The inverse of covariance + jacobian diag(prior_sd^2) jacobian' (Woodbury), and its determinant.
    precision = inverse_noise - explained @ unknown @ explained.T
    log_determinant = np.linalg.slogdet(information)[1] + 2.0 * np.sum(np.log(prior_sd))
    log_determinant -= 2.0 * np.sum(np.log(np.diag(whitening)))
    # Observations minus predictions at the prior mean, with the law linearized around theta.
    missed = misfit + jacobian @ (theta - prior_mean)
    squared = missed @ precision @ missed
    return Posterior(
        law=law,
        slopes=slopes,
        parameters=tuple(parameters),
        theta=theta,
        theta_sd=np.sqrt(np.diag(unknown)),
        residual=residual,
        inputs=inputs,
        weights=inverse_noise @ misfit,
        precision=precision,
        jacobian=jacobian,
        converged=converged,
        rms=float(np.sqrt(np.mean(misfit**2))) if len(observations) else 0.0,
        log_evidence=-0.5 * float(squared + log_determinant + len(missed) * np.log(2 * np.pi)),
    )


def broadcast_slopes(law: Law) -> Slopes:
    """Returns a function that computes the Jacobian of a formula by central differences, in one call.

    Args:
        law: The formula. It must accept many values of theta at once (see `Law`).
    """

    def slopes(theta: Array, inputs: Array) -> Array:
        units = np.eye(len(theta)) * _STEP
        trials = np.concatenate([theta[:, None] + units, theta[:, None] - units], axis=1)
        above, below = np.split(law(trials[:, :, None], inputs), 2)
        return np.asarray((above - below).T / (2 * _STEP), dtype=float)

    return slopes


def _levenberg_marquardt(
    residuals: Callable[[Array], Array],
    slopes: Callable[[Array], Array],
    start: Array,
    scale: Array,
    tolerance: float,
) -> tuple[Array, bool]:
    """Minimizes a sum of squares by Levenberg-Marquardt; returns theta and whether the search converged.

    `scipy.optimize.least_squares` (method `lm`) is not used: it finds the same theta to 4 digits but takes
    1.1 to 1.2 times as long (measured in fits to 9 runs and to 24 timings), and the differences in further
    digits would change the decisions of searches with a given seed.

    Args:
        residuals: Function of theta that returns the terms whose squares are added, `(num_terms,)`.
        slopes: Function of theta that returns the Jacobian of `residuals`, `(num_terms, num_parameters)`.
        start: First theta of the search, `(num_parameters,)`.
        scale: Prior standard deviation of each parameter, `(num_parameters,)`. It scales the damping, and no
            step changes a parameter by more than three times this value.
        tolerance: See `fit`.
    """
    theta, damping = start.copy(), 1e-2
    current = residuals(theta)
    for _ in range(_MAX_ITERATIONS):
        jacobian = slopes(theta)
        gradient = jacobian.T @ current
        while damping < 1e8:
            hessian = jacobian.T @ jacobian + np.diag(damping / scale**2)
            step = np.clip(-np.linalg.solve(hessian, gradient), -3 * scale, 3 * scale)
            if -(step @ gradient) < tolerance * (1 + current @ current):
                # The linearized law predicts no further decrease, so smaller steps would only cost
                # evaluations.
                return theta, True
            trial = residuals(theta + step)
            if trial @ trial < current @ current:
                break
            damping *= 4
        else:
            return theta, True
        gained = current @ current - trial @ trial
        theta, current = theta + step, trial
        damping = max(damping / 8, 1e-8)
        if gained < tolerance * (1 + current @ current):
            return theta, True
    return theta, False
