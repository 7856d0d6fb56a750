"""Slope model: Bayesian linear regression with a Gaussian-process residual, mixed over several priors.

A candidate i has y_i = w' x_i + g(x_i) + d_i, with slopes w ~ N(m, diag(v)), a zero-mean Gaussian process g,
and an independent deviation d_i ~ N(0, own_sd^2). An observation is y_i + c a_i + e_i: c ~ N(0, 1) is the
common error of all unfinished runs, with standard deviation a_i, and e_i is noise. The posterior has a closed
form (Rasmussen and Williams 2006, section 2.7). Prior means, residual sizes and length scales form the
components of a mixture, weighted by their marginal likelihood (Bayesian model averaging; Hoeting et al.
1999), so that a wrong prior loses its weight after a few observations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tuner.analytic.laws import Array
from tuner.analytic.quasi_random import NUM_DRAWS, shuffled_normals
from tuner.analytic.regression import IntArray

#: Factors on the length scales; the model mixes them.
LENGTH_FACTORS = (0.6, 1.2)
#: Coprime to the number of draws, a power of two.
_COPRIME = 97
#: Added to the diagonal of a covariance that may be singular after rounding.
_JITTER = 1e-9
#: Components with a smaller weight are dropped.
_LEAST_WEIGHT = 0.02


@dataclass(frozen=True, kw_only=True)
class SlopePrior:
    """A prior of the slopes.

    Args:
        name: The name, such as `neutral`.
        mean: Means, one for each column of the design, `(num_columns,)`.
        sd: Standard deviations, `(num_columns,)`.
    """

    name: str
    mean: Array
    sd: Array


@dataclass(frozen=True, kw_only=True)
class Observations:
    """Observations of candidates.

    Args:
        rows: Index of the candidate of each, `(num,)`.
        values: Observed values, `(num,)`.
        noise_sd: Standard deviation of the noise e, above 0, `(num,)`.
        common_sd: a, standard deviation of the common error, `(num,)`.
    """

    rows: IntArray
    values: Array
    noise_sd: Array
    common_sd: Array


class Design:
    """The columns of the candidates and the kernels of the residual, computed once for a space.

    Args:
        columns: Columns of the slopes, with the intercept's, `(num_candidates, num_columns)`.
        positions: Inputs of the residual, `(num_candidates, num_axes)`.
        lengths: Length scales of the positions, `(num_axes,)`.
    """

    def __init__(self, columns: Array, positions: Array, lengths: Array) -> None:
        self.columns = columns
        self._positions = positions / lengths
        self._kernels: dict[float, Array] = {}
        self._roots: dict[float, Array] = {}

    def kernel(self, factor: float) -> Array:
        """Correlations of the residual with scaled lengths, `(num_candidates, num_candidates)`."""
        known = self._kernels.get(factor)
        if known is None:
            z = self._positions / factor
            squared = (z**2).sum(axis=1)
            distance = np.maximum(squared[:, None] + squared[None, :] - 2 * z @ z.T, 0.0)
            known = self._kernels[factor] = np.asarray(np.exp(-0.5 * distance), dtype=float)
        return known

    def root(self, factor: float) -> Array:
        """Cholesky factor of `kernel`, `(num_candidates, num_candidates)`."""
        known = self._roots.get(factor)
        if known is None:
            kernel = self.kernel(factor)
            root = np.linalg.cholesky(kernel + _JITTER * np.eye(len(kernel)))
            known = self._roots[factor] = np.asarray(root, dtype=float)
        return known


@dataclass(frozen=True, kw_only=True)
class Component:
    """One prior with one residual, fitted to the observations.

    Args:
        design: The candidates.
        seen: The observations.
        own_sd: Standard deviation of each candidate's independent deviation.
        prior: The prior of the slopes.
        residual_sd: Standard deviation of the residual.
        length_factor: Factor on the length scales.
        log_evidence: Log marginal likelihood of the observations.
        inverse_root: Inverse Cholesky factor of the observations' covariance, `(num, num)`.
        whitened: `inverse_root` times the misfit, `(num,)`.
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
        """`inverse_root` times the covariance of observations and candidates, `(num, num_candidates)`."""
        columns, rows = self.design.columns, self.seen.rows
        cross = (columns[rows] * self.prior.sd**2) @ columns.T
        cross = cross + self.residual_sd**2 * self.design.kernel(self.length_factor)[rows]
        cross[np.arange(len(rows)), rows] += self.own_sd**2
        return np.asarray(self.inverse_root @ cross, dtype=float)

    @cached_property
    def mean(self) -> Array:
        """Posterior mean of all candidates, `(num_candidates,)`."""
        return np.asarray(self.design.columns @ self.prior.mean + self.whitened @ self.lowered, dtype=float)

    @cached_property
    def variance(self) -> Array:
        """Posterior variance of all candidates, `(num_candidates,)`."""
        prior = self.design.columns**2 @ self.prior.sd**2 + self.residual_sd**2 + self.own_sd**2
        explained = np.einsum("ij,ij->j", self.lowered, self.lowered)
        return np.asarray(np.maximum(prior - explained, 1e-8), dtype=float)


@dataclass(frozen=True, kw_only=True)
class SlopeModel:
    """The posterior of the mixture for all candidates.

    Args:
        mean: Mean of y, `(num_candidates,)`.
        variance: Variance of y, `(num_candidates,)`.
        slopes: Mean slopes, `(num_columns,)`.
        slopes_sd: Standard deviations of the slopes, `(num_columns,)`.
        weights: Weight of each prior, by name.
        own_sd: Standard deviation of each candidate's independent deviation.
        parts: The components with their weights, without those of small weight.
        design: The candidates.
        seen: The observations.
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
        """Joint draws of y of all candidates, `(NUM_DRAWS, num_candidates)`.

        The number of draws of a component is proportional to its weight. Draws of the prior are conditioned
        on the observations (Matheron's rule; Wilson et al. 2020), which needs no covariance of all
        candidates.

        Args:
            rng: Generator of the draws.
        """
        columns, seen = self.design.columns, self.seen
        ends = np.round(np.cumsum([weight for weight, _ in self.parts]) * NUM_DRAWS).astype(int)
        num, num_slopes = columns.shape
        residuals, own, slopes = (shuffled_normals(rng, size) for size in (num, num, num_slopes))
        common, errors = shuffled_normals(rng, 1), shuffled_normals(rng, len(seen.rows))
        observing = errors * seen.noise_sd + common * seen.common_sd
        found = np.empty((NUM_DRAWS, len(columns)))
        # Neighboring draws belong to different components.
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
        """Log density of each observation, predicted from the others, `(num_observations,)`.

        Rasmussen and Williams 2006, section 5.4.2; components are mixed by weight.
        """
        found = []
        for weight, component in self.parts:
            root, whitened = component.inverse_root, component.whitened
            precision = (root**2).sum(axis=0)
            misfit = (root.T @ whitened) / precision
            found.append(math.log(weight) + normal_log_density(misfit, 1.0 / precision))
        return np.asarray(np.logaddexp.reduce(found, axis=0), dtype=float)


def normal_log_density(misfit: Array, variance: Array) -> Array:
    """Log density of zero-mean normals, `(num,)`."""
    return np.asarray(-0.5 * (misfit**2 / variance + np.log(2 * math.pi * variance)), dtype=float)


def fit_slopes(
    design: Design,
    priors: Sequence[SlopePrior],
    seen: Observations,
    *,
    residual_sds: Sequence[float],
    own_sd: float,
) -> SlopeModel:
    """Fits the mixture to observations.

    Args:
        design: The candidates.
        priors: At least one; all have the same prior probability.
        seen: The observations; may be empty.
        residual_sds: Standard deviations of the residual; the model mixes them.
        own_sd: Standard deviation of each candidate's independent deviation.
    """
    rows = seen.rows
    base = np.diag(seen.noise_sd**2) + np.outer(seen.common_sd, seen.common_sd)
    base += own_sd**2 * (rows[:, None] == rows[None, :])
    components = [
        _fitted(design, prior, seen, base, sd, length, own_sd)
        for prior in priors
        for length in LENGTH_FACTORS
        for sd in residual_sds
    ]
    evidence = np.array([component.log_evidence for component in components])
    weights = np.exp(evidence - evidence.max())
    weights[weights < _LEAST_WEIGHT * weights.sum()] = 0.0
    weights /= weights.sum()
    parts = [(float(w), component) for w, component in zip(weights, components, strict=True) if w > 0]
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
