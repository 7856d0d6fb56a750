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
class _Component:
    """One prior with one residual, fitted to the observations.

    Args:
        log_evidence: Log marginal likelihood of the observations.
        inverse_root: Inverse Cholesky factor of the observations' covariance, `(num, num)`.
        whitened: `inverse_root` times the misfit, `(num,)`.
    """

    prior: SlopePrior
    residual_sd: float
    length_factor: float
    log_evidence: float
    inverse_root: Array
    whitened: Array


@dataclass(frozen=True, kw_only=True)
class _Part:
    """The posterior of a component for all candidates.

    Args:
        lowered: `inverse_root` times the covariance of observations and candidates, `(num, num_candidates)`.
    """

    weight: float
    component: _Component
    lowered: Array
    mean: Array
    variance: Array


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
    """

    mean: Array
    variance: Array
    slopes: Array
    slopes_sd: Array
    weights: dict[str, float]
    own_sd: float
    parts: tuple[_Part, ...]
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
        ends = np.round(np.cumsum([part.weight for part in self.parts]) * NUM_DRAWS).astype(int)
        num, num_slopes = columns.shape
        residuals, own, slopes = (shuffled_normals(rng, size) for size in (num, num, num_slopes))
        common, errors = shuffled_normals(rng, 1), shuffled_normals(rng, len(seen.rows))
        observing = errors * seen.noise_sd + common * seen.common_sd
        found = np.empty((NUM_DRAWS, len(columns)))
        # Neighboring draws belong to different components.
        order = (np.arange(NUM_DRAWS) * _COPRIME) % NUM_DRAWS
        for part, first, end in zip(self.parts, [0, *ends[:-1]], ends, strict=True):
            rows, component = order[first:end], part.component
            residual = residuals[rows] @ self.design.root(component.length_factor).T
            y = (slopes[rows] * component.prior.sd) @ columns.T
            y += component.residual_sd * residual + self.own_sd * own[rows]
            misfit = y[:, seen.rows] + observing[rows]
            found[rows] = part.mean + y - (misfit @ component.inverse_root.T) @ part.lowered
        return found

    def left_out_log_densities(self) -> Array:
        """Log density of each observation, predicted from the others, `(num_observations,)`.

        Rasmussen and Williams 2006, section 5.4.2; components are mixed by weight.
        """
        found = []
        for part in self.parts:
            root, whitened = part.component.inverse_root, part.component.whitened
            precision = (root**2).sum(axis=0)
            misfit = (root.T @ whitened) / precision
            found.append(math.log(part.weight) + normal_log_density(misfit, 1.0 / precision))
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
        _solved(design, prior, seen, base, sd, length)
        for prior in priors
        for length in LENGTH_FACTORS
        for sd in residual_sds
    ]
    evidence = np.array([component.log_evidence for component in components])
    weights = np.exp(evidence - evidence.max())
    weights[weights < _LEAST_WEIGHT * weights.sum()] = 0.0
    weights /= weights.sum()
    parts = tuple(
        _part(design, seen, component, float(weight), own_sd)
        for component, weight in zip(components, weights, strict=True)
        if weight > 0
    )
    return _mixed(design, seen, parts, own_sd)


def _solved(
    design: Design, prior: SlopePrior, seen: Observations, base: Array, sd: float, length: float
) -> _Component:
    x = design.columns[seen.rows]
    whole = base + (x * prior.sd**2) @ x.T + sd**2 * design.kernel(length)[np.ix_(seen.rows, seen.rows)]
    root = np.linalg.cholesky(whole)
    inverse_root = np.linalg.inv(root)
    whitened = inverse_root @ (seen.values - x @ prior.mean)
    return _Component(
        prior=prior,
        residual_sd=sd,
        length_factor=length,
        log_evidence=-0.5 * float(whitened @ whitened) - float(np.log(np.diag(root)).sum()),
        inverse_root=inverse_root,
        whitened=whitened,
    )


def _part(design: Design, seen: Observations, component: _Component, weight: float, own_sd: float) -> _Part:
    columns, rows, prior, sd = design.columns, seen.rows, component.prior, component.residual_sd
    cross = (columns[rows] * prior.sd**2) @ columns.T + sd**2 * design.kernel(component.length_factor)[rows]
    cross[np.arange(len(rows)), rows] += own_sd**2
    lowered = component.inverse_root @ cross
    mean = columns @ prior.mean + component.whitened @ lowered
    variance = columns**2 @ prior.sd**2 + sd**2 + own_sd**2 - np.einsum("ij,ij->j", lowered, lowered)
    variance = np.maximum(variance, 1e-8)
    return _Part(weight=weight, component=component, lowered=lowered, mean=mean, variance=variance)


def _mixed(design: Design, seen: Observations, parts: tuple[_Part, ...], own_sd: float) -> SlopeModel:
    mean = np.sum([part.weight * part.mean for part in parts], axis=0)
    variance = np.sum([part.weight * (part.variance + (part.mean - mean) ** 2) for part in parts], axis=0)
    slopes, second = np.zeros(design.columns.shape[1]), np.zeros(design.columns.shape[1])
    weights: dict[str, float] = {}
    for part in parts:
        component = part.component
        prior = component.prior
        lowered = component.inverse_root @ (design.columns[seen.rows] * prior.sd**2)
        own = prior.mean + component.whitened @ lowered
        slopes += part.weight * own
        second += part.weight * (prior.sd**2 - (lowered**2).sum(axis=0) + own**2)
        weights[prior.name] = weights.get(prior.name, 0.0) + part.weight
    return SlopeModel(
        mean=mean,
        variance=variance,
        slopes=slopes,
        slopes_sd=np.sqrt(np.maximum(second - slopes**2, 0.0)),
        weights=weights,
        own_sd=own_sd,
        parts=parts,
        design=design,
        seen=seen,
    )
