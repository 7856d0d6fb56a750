"""Largest stable learning rate: the edge above which training breaks down, lower for stale updates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from search_spaces import Configuration
from tuner.analytic.laws import Array
from tuner.domain.measurement import NoiseStatistic

#: A run with less progress is stuck at its start.
_STUCK = 0.05
#: A run has collapsed if the median of its last `_FEWEST_LATER` scores, all after its best score, is below
#: this share of its best progress.
_COLLAPSED, _FEWEST_LATER = 0.5, 3


@dataclass(frozen=True, kw_only=True)
class RunEvidence:
    """What one run showed.

    Args:
        configuration: The configuration of the run.
        samples: Samples seen at each evaluation, above 0, `(num_points,)`.
        progress: (value - start) / (target - start) at each evaluation, `(num_points,)`.
        samples_to_target: Samples at which it reached the target; None if it has not.
        diverged: Whether the loss or the parameters became non-finite.
        ended: Whether it ended without reaching the target.
        turned_back: Whether the metric is worse than its best value before.
        emulated: Whether the ranks were emulated.
        noise: Gradient statistics along the run.
    """

    configuration: Configuration
    samples: Array
    progress: Array
    samples_to_target: float | None = None
    diverged: bool = False
    ended: bool = False
    turned_back: bool = False
    emulated: bool = False
    noise: tuple[NoiseStatistic, ...] = ()

    @property
    def is_stuck(self) -> bool:
        """Whether its progress is still, or again, near 0."""
        return bool(np.max(self.progress[-2:], initial=0.0) < _STUCK)

    @property
    def has_collapsed(self) -> bool:
        """Whether it lost most of its progress, as with too large a learning rate."""
        if not len(self.progress):
            return False
        place = int(np.argmax(self.progress))
        best, later = float(self.progress[place]), self.progress[place + 1 :]
        if best <= _STUCK or len(later) < _FEWEST_LATER:
            return False
        return bool(np.median(later[-_FEWEST_LATER:]) < _COLLAPSED * best)


def broke_down(run: RunEvidence, runs: Sequence[RunEvidence]) -> bool:
    """Whether a run diverged, or is stuck where a run with a smaller learning rate made progress."""
    if run.diverged:
        return True
    if not run.is_stuck or not len(run.samples):
        return False
    return any(
        other.configuration.learning_rate < run.configuration.learning_rate
        and not other.diverged
        and not other.is_stuck
        and len(other.samples)
        and other.samples[0] <= run.samples[-1]
        for other in runs
    )


#: Prior: the edge is a factor of eight above the best rate of large batches, within a factor of three.
_ABOVE_BEST, _SD = math.log(8.0), 1.1
#: Width of the logistic likelihood that a run breaks down, in e-folds of the learning rate.
_WIDTH = 0.5
#: Prior of the shift, by which the log edge falls per e-fold of asynchronous ranks: 0 with probability 0.4,
#: else half-normal with this standard deviation. On 32 ranks, 0.5 is a factor of six.
_NO_SHIFT, _SHIFT_SD = 0.4, 0.5
SHIFTS = np.linspace(0.0, 2.0, 21)


@dataclass(frozen=True, kw_only=True)
class RateEdge:
    """The posterior of the edge and of its shift, on a grid.

    With p asynchronous ranks, the edge is at log rate `grid` - `SHIFTS` log p; with a barrier, at `grid`.

    Args:
        grid: Logarithms of learning rates, `(num_grid,)`.
        joint: Joint probabilities of edge and shift, `(num_grid, num_shifts)`.
    """

    grid: Array
    joint: Array

    @property
    def weights(self) -> Array:
        """Probabilities of the edge, `(num_grid,)`."""
        return np.asarray(self.joint.sum(axis=1))

    def draws(self, uniforms: Array) -> Array:
        """Draws of the edge by inverse transform; the shape of `uniforms`."""
        return np.asarray(np.interp(uniforms, np.cumsum(self.weights), self.grid), dtype=float)

    def shift_draws(self, edges: Array, uniforms: Array) -> Array:
        """Draws of the shift, conditional on draws of the edge, `(num_draws,)`."""
        place = np.abs(edges[:, None] - self.grid).argmin(axis=1)
        cumulative = np.cumsum(self.joint[place], axis=1)
        cumulative /= np.maximum(cumulative[:, -1:], 1e-300)
        index = np.minimum((cumulative < uniforms[:, None]).sum(axis=1), len(SHIFTS) - 1)
        return np.asarray(SHIFTS[index], dtype=float)


def fit_rate_edge(best: float, best_sd: float, runs: Sequence[RunEvidence], staleness: Array) -> RateEdge:
    """The posterior of the edge.

    Runs with a barrier determine the edge; asynchronous runs determine edge and shift jointly. If one of
    these breaks down on many ranks, staleness may explain it, so the edge of all-reduce hardly changes.

    Args:
        best: Logarithm of the best rate of large batches.
        best_sd: Standard deviation of `best`.
        runs: The runs.
        staleness: log p of each asynchronous run, 0 of others, `(num_runs,)`.
    """
    center, sd = best + _ABOVE_BEST, math.hypot(_SD, best_sd)
    grid = np.linspace(center - 4 * sd, center + 4 * sd, 161)
    log_weights = -0.5 * ((grid - center) / sd) ** 2
    slab = np.exp(-0.5 * (SHIFTS / _SHIFT_SD) ** 2)
    prior = (1.0 - _NO_SHIFT) * slab / slab.sum()
    prior[0] += _NO_SHIFT
    log_joint = np.repeat(log_weights[:, None], len(SHIFTS), axis=1)
    for run, stale in zip(runs, staleness, strict=True):
        log_joint += _log_likelihood(run, runs, grid[:, None] - stale * SHIFTS)
    joint = prior * np.exp(log_joint - log_joint.max())
    return RateEdge(grid=grid, joint=joint / joint.sum())


def _log_likelihood(run: RunEvidence, runs: Sequence[RunEvidence], edge: Array) -> Array:
    """Log likelihood of a run for each edge, up to a constant; the shape of `edge`."""
    distance = (math.log(run.configuration.learning_rate) - edge) / _WIDTH
    if broke_down(run, runs):
        return np.asarray(-np.logaddexp(0.0, -distance), dtype=float)
    if len(run.samples) and not run.is_stuck:
        return np.asarray(-np.logaddexp(0.0, distance), dtype=float)
    return np.zeros_like(edge)
