"""Slope model: Bayesian linear regression with a smooth residual, as a mixture over several priors.

The model predicts a quantity y, such as the logarithm of seconds per sample, for every candidate
configuration i:

    y_i = w' x_i + g(x_i) + d_i

- x_i: the candidate's row of the design matrix, such as the logarithm of the number of nodes.
- w ~ N(m, diag(v)): the regression coefficients (slopes).
- g: the residual, a zero-mean Gaussian process: the smooth deviation from the linear function.
- d_i ~ N(0, own_sd^2): an independent deviation of each candidate.

An observation of candidate i is y_i + a c + e.

- c ~ N(0, 1): an error that is the same for all unfinished runs, such as that of the learning-curve template.
- a: the standard deviation of that error in this observation; 0 for a finished run.
- e: independent noise of this observation.

The posterior has a closed form (Rasmussen and Williams 2006, section 2.7). Each combination of a prior mean,
a residual size and a length scale is one component of a mixture. Its weight is its marginal likelihood
(Bayesian model averaging; Hoeting et al. 1999), so a misleading prior loses its weight after a few
observations.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tuner.analytic.laws import Array
from tuner.analytic.quasi_random import NUM_DRAWS, shuffled_normals
from tuner.analytic.regression import IntArray

#: Factors by which the length scales of the residual are multiplied; the mixture has components for each
#: factor.
LENGTH_FACTORS = (0.6, 1.2)
#: Posterior sample i is moved to row i times this number, modulo `NUM_DRAWS`. The number is coprime to
#: `NUM_DRAWS`, so every row is used once.
_COPRIME = 97
#: Added to the diagonal of a covariance matrix, which rounding may otherwise make singular.
_JITTER = 1e-9
#: Mixture components with a smaller weight than this are dropped.
_LEAST_WEIGHT = 0.02


@dataclass(frozen=True, kw_only=True)
class SlopePrior:
    """A normal prior of the coefficients (slopes) of a linear regression.

    Args:
        name: Name of the prior, such as `neutral`.
        mean: Prior mean of each coefficient, one for each column of the design matrix, `(num_columns,)`.
        sd: Prior standard deviation of each coefficient, `(num_columns,)`.
    """

    name: str
    mean: Array
    sd: Array


@dataclass(frozen=True, kw_only=True)
class Observations:
    """Observed values of some candidate configurations; a candidate may have several observations.

    Args:
        rows: Index of the observed candidate for each observation, `(num,)`.
        values: Observed value of the quantity y that the regression predicts, usually a logarithm, `(num,)`.
        noise_sd: Standard deviation of the independent noise of each observation, above 0, `(num,)`.
        common_sd: Standard deviation of the error that all unfinished runs have in common, `(num,)`.
    """

    rows: IntArray
    values: Array
    noise_sd: Array
    common_sd: Array


class Design:
    """The inputs of a linear regression for all candidates: design matrix, and covariances of the residual.

    The residual is the smooth deviation from the regression, a Gaussian process.

    Args:
        columns: Design matrix: one row per candidate, one column per regression coefficient, including the
            intercept, `(num_candidates, num_columns)`.
        positions: Inputs of the residual's Gaussian process, `(num_candidates, num_axes)`.
        lengths: Length scale of each column of `positions`, `(num_axes,)`.
    """

    def __init__(self, columns: Array, positions: Array, lengths: Array) -> None:
        self.columns = columns
        self._positions = positions / lengths
        self._kernels: dict[float, Array] = {}
        self._roots: dict[float, Array] = {}

    def kernel(self, factor: float) -> Array:
        """Returns the correlations of the residual between all pairs of candidates.

        The residual is the smooth deviation from the regression. The shape is `(num_candidates,
        num_candidates)`.

        Args:
            factor: Factor by which the length scales of the residual are multiplied.
        """
        known = self._kernels.get(factor)
        if known is None:
            z = self._positions / factor
            squared = (z**2).sum(axis=1)
            distance = np.maximum(squared[:, None] + squared[None, :] - 2 * z @ z.T, 0.0)
            known = self._kernels[factor] = np.asarray(np.exp(-0.5 * distance), dtype=float)
        return known

    def root(self, factor: float) -> Array:
        """Returns the Cholesky factor of `kernel(factor)`, `(num_candidates, num_candidates)`.

        Args:
            factor: Factor by which the length scales of the residual are multiplied.
        """
        known = self._roots.get(factor)
        if known is None:
            kernel = self.kernel(factor)
            root = np.linalg.cholesky(kernel + _JITTER * np.eye(len(kernel)))
            known = self._roots[factor] = np.asarray(root, dtype=float)
        return known


@dataclass(frozen=True, kw_only=True)
class Component:
    """One linear regression of the mixture: one prior of its coefficients and one kernel of its residual.

    The residual is the smooth deviation from the regression.

    Args:
        design: The design matrix and residual kernels of all candidates.
        seen: The `num` observations that the regression was fitted to.
        own_sd: Standard deviation of the independent deviation of each candidate from the regression.
        prior: The prior of the regression coefficients.
        residual_sd: Standard deviation of the residual.
        length_factor: Factor by which the length scales of the residual are multiplied.
        log_evidence: Logarithm of the marginal likelihood of the observations.
        inverse_root: Inverse of the Cholesky factor of the prior covariance of the observations, `(num,
            num)`.
        whitened: `inverse_root` times the observed values minus their prior means, `(num,)`.
    """

    design: Design
    seen: Observations
    own_sd: float
    prior: SlopePrior
    residual_sd: float
    length_factor: float
    log_evidence: float
    inverse_root: Array
    whitened: Array

    @cached_property
    def lowered(self) -> Array:
        """`inverse_root` times the prior covariance between observations and candidates.

        The shape is `(num, num_candidates)`.
        """
        columns, rows = self.design.columns, self.seen.rows
        cross = (columns[rows] * self.prior.sd**2) @ columns.T
        cross = cross + self.residual_sd**2 * self.design.kernel(self.length_factor)[rows]
        cross[np.arange(len(rows)), rows] += self.own_sd**2
        return np.asarray(self.inverse_root @ cross, dtype=float)

    @cached_property
    def mean(self) -> Array:
        """Posterior mean of the predicted quantity for every candidate, `(num_candidates,)`."""
        return np.asarray(self.design.columns @ self.prior.mean + self.whitened @ self.lowered, dtype=float)

    @cached_property
    def variance(self) -> Array:
        """Posterior variance of the predicted quantity for every candidate, `(num_candidates,)`."""
        prior = self.design.columns**2 @ self.prior.sd**2 + self.residual_sd**2 + self.own_sd**2
        explained = np.einsum("ij,ij->j", self.lowered, self.lowered)
        return np.asarray(np.maximum(prior - explained, 1e-8), dtype=float)


@dataclass(frozen=True, kw_only=True)
class SlopeModel:
    """The fitted mixture of linear regressions, with its predictions for all candidates.

    Args:
        mean: Posterior mean of the predicted quantity, `(num_candidates,)`.
        variance: Posterior variance of the predicted quantity, `(num_candidates,)`.
        slopes: Posterior means of the regression coefficients, `(num_columns,)`.
        slopes_sd: Posterior standard deviations of the regression coefficients, `(num_columns,)`.
        weights: Maps the name of each prior to its weight; the weights add up to 1.
        own_sd: Standard deviation of the independent deviation of each candidate from the regression.
        parts: The regressions of the mixture, each with its weight; those of small weight are left out.
        design: The design matrix and residual kernels of all candidates.
        seen: The observations that the model was fitted to.
    """

    mean: Array
    variance: Array
    slopes: Array
    slopes_sd: Array
    weights: dict[str, float]
    own_sd: float
    parts: tuple[tuple[float, Component], ...]
    design: Design
    seen: Observations

    def draws(self, rng: np.random.Generator) -> Array:
        """Returns joint posterior samples of the predicted quantity, `(NUM_DRAWS, num_candidates)`.

        The number of posterior samples from a component of the mixture is proportional to the component's
        weight. A posterior sample is a sample from the prior that is corrected by the observations
        (Matheron's rule; Wilson et al. 2020). This way, the posterior covariance matrix of all candidates is
        not needed.

        Args:
            rng: Random generator of the posterior samples.
        """
        columns, seen = self.design.columns, self.seen
        ends = np.round(np.cumsum([weight for weight, _ in self.parts]) * NUM_DRAWS).astype(int)
        num, num_slopes = columns.shape
        residuals, own, slopes = (shuffled_normals(rng, size) for size in (num, num, num_slopes))
        common, errors = shuffled_normals(rng, 1), shuffled_normals(rng, len(seen.rows))
        observing = errors * seen.noise_sd + common * seen.common_sd
        found = np.empty((NUM_DRAWS, len(columns)))
        # Shuffled, so that neighboring posterior samples come from different components.
        order = (np.arange(NUM_DRAWS) * _COPRIME) % NUM_DRAWS
        for (_, component), first, end in zip(self.parts, [0, *ends[:-1]], ends, strict=True):
            rows = order[first:end]
            residual = residuals[rows] @ self.design.root(component.length_factor).T
            y = (slopes[rows] * component.prior.sd) @ columns.T
            y += component.residual_sd * residual + self.own_sd * own[rows]
            misfit = y[:, seen.rows] + observing[rows]
            found[rows] = component.mean + y - (misfit @ component.inverse_root.T) @ component.lowered
        return found

    def left_out_log_densities(self) -> Array:
        """Returns how well each observation is predicted from all others, as a log density, `(num,)`.

        The formula is that of Rasmussen and Williams 2006, section 5.4.2. The densities of the components of
        the mixture are averaged with the components' weights.
        """
        found = []
        for weight, component in self.parts:
            root, whitened = component.inverse_root, component.whitened
            precision = (root**2).sum(axis=0)
            misfit = (root.T @ whitened) / precision
            found.append(math.log(weight) + normal_log_density(misfit, 1.0 / precision))
        return np.asarray(np.logaddexp.reduce(found, axis=0), dtype=float)


def normal_log_density(misfit: Array, variance: Array) -> Array:
    """Returns the log density of each value under a zero-mean normal distribution, `(num,)`.

    Args:
        misfit: The values, such as observed minus predicted, `(num,)`.
        variance: Variance of each normal distribution, `(num,)`.
    """
    return np.asarray(-0.5 * (misfit**2 / variance + np.log(2 * math.pi * variance)), dtype=float)


def fit_slopes(
    design: Design,
    priors: Sequence[SlopePrior],
    seen: Observations,
    *,
    residual_sds: Sequence[float],
    own_sd: float,
) -> SlopeModel:
    """Fits a mixture of linear regressions to observations, and predicts all candidates.

    Args:
        design: The design matrix and residual kernels of all candidates.
        priors: Priors of the regression coefficients, at least one; all have the same prior probability.
        seen: The observations; may be empty.
        residual_sds: Standard deviations to try for the residual, the smooth deviation from the regression;
            the mixture has components for each of them.
        own_sd: Standard deviation of the independent deviation of each candidate from the regression.
    """
    rows = seen.rows
    base = np.diag(seen.noise_sd**2) + np.outer(seen.common_sd, seen.common_sd)
    base += own_sd**2 * (rows[:, None] == rows[None, :])
    components: list[Component | None] = []
    evidences: list[float] = []
    for prior, length, sd in itertools.product(priors, LENGTH_FACTORS, residual_sds):
        component = _fitted(design, prior, seen, base, sd, length, own_sd)
        components.append(component)
        evidences.append(component.log_evidence)
        # A component holds a square matrix. One whose weight stays below the limit whatever follows goes now.
        relative = np.exp(np.array(evidences) - max(evidences))
        for index in np.flatnonzero(relative < 0.5 * _LEAST_WEIGHT * relative.sum()):
            components[index] = None
    evidence = np.array(evidences)
    weights = np.exp(evidence - evidence.max())
    weights[weights < _LEAST_WEIGHT * weights.sum()] = 0.0
    weights /= weights.sum()
    parts = [(float(w), c) for w, c in zip(weights, components, strict=True) if w > 0 and c is not None]
    mean = np.sum([w * c.mean for w, c in parts], axis=0)
    slopes, second = np.zeros(design.columns.shape[1]), np.zeros(design.columns.shape[1])
    by_prior: dict[str, float] = {}
    for weight, component in parts:
        prior = component.prior
        lowered = component.inverse_root @ (design.columns[rows] * prior.sd**2)
        own = prior.mean + component.whitened @ lowered
        slopes += weight * own
        second += weight * (prior.sd**2 - (lowered**2).sum(axis=0) + own**2)
        by_prior[prior.name] = by_prior.get(prior.name, 0.0) + weight
    return SlopeModel(
        mean=mean,
        variance=np.sum([w * (c.variance + (c.mean - mean) ** 2) for w, c in parts], axis=0),
        slopes=slopes,
        slopes_sd=np.sqrt(np.maximum(second - slopes**2, 0.0)),
        weights=by_prior,
        own_sd=own_sd,
        parts=tuple(parts),
        design=design,
        seen=seen,
    )


def _fitted(
    design: Design,
    prior: SlopePrior,
    seen: Observations,
    base: Array,
    sd: float,
    length: float,
    own_sd: float,
) -> Component:
    x = design.columns[seen.rows]
    whole = base + (x * prior.sd**2) @ x.T + sd**2 * design.kernel(length)[np.ix_(seen.rows, seen.rows)]
    root = np.linalg.cholesky(whole)
    inverse_root = np.linalg.inv(root)
    whitened = inverse_root @ (seen.values - x @ prior.mean)
    return Component(
        design=design,
        seen=seen,
        own_sd=own_sd,
        prior=prior,
        residual_sd=sd,
        length_factor=length,
        log_evidence=-0.5 * float(whitened @ whitened) - float(np.log(np.diag(root)).sum()),
        inverse_root=inverse_root,
        whitened=whitened,
    )
