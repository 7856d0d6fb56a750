"""The learning rate above which training breaks down, and how much lower it lies for stale updates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from search_spaces import Configuration
from tuner.analytic.laws import Array
from tuner.domain.measurement import NoiseStatistic

#: Progress below which a run counts as stuck at its start.
_STUCK = 0.05
#: A run has collapsed if its last scores, so many after the best one at least, show less than this share of
#: the best progress that it made.
_COLLAPSED, _FEWEST_LATER = 0.5, 3


@dataclass(frozen=True, kw_only=True)
class RunEvidence:
    """The evidence of one run.

    Args:
        configuration: What it was run with.
        samples: Samples seen at each evaluation, above 0, `(num_points,)`.
        progress: (value - start) / (target - start) at each evaluation, `(num_points,)`.
        samples_to_target: Where it crossed the target; None if it has not.
        diverged: Whether it stopped being finite.
        ended: Whether it came to its end without arriving.
        turned_back: Whether it passed its best value and got worse since.
        emulated: Whether its ranks were emulated.
        noise: Gradient noise along it.
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
        """Whether it never left its start, or fell back to it."""
        return bool(np.max(self.progress[-2:], initial=0.0) < _STUCK)

    @property
    def has_collapsed(self) -> bool:
        """Whether it lost most of what it had gained, as with too large a rate.

        Where it collapsed says nothing of how far other runs come.
        """
        if not len(self.progress):
            return False
        place = int(np.argmax(self.progress))
        best, later = float(self.progress[place]), self.progress[place + 1 :]
        if best <= _STUCK or len(later) < _FEWEST_LATER:
            return False
        return bool(np.median(later[-_FEWEST_LATER:]) < _COLLAPSED * best)


def broke_down(run: RunEvidence, runs: Sequence[RunEvidence]) -> bool:
    """Whether a run diverged, or its rate is so large that it is stuck where a smaller one got away."""
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


#: The edge lies a factor of eight above the best rate of large batches, give or take a factor of three.
_ABOVE_BEST, _SD = math.log(8.0), 1.1
#: Half of an e-fold: the width of the logistic by which a run that broke down or went well moves it.
_WIDTH = 0.5
#: How much lower the edge lies for each e-fold of ranks that do not wait: with odds of two to three not at
#: all, else half a normal of this standard deviation. On 32 ranks 0.5 is a factor of six.
_NO_SHIFT, _SHIFT_SD = 0.4, 0.5
SHIFTS = np.linspace(0.0, 2.0, 21)


@dataclass(frozen=True, kw_only=True)
class RateEdge:
    """Beliefs about the edge, on a grid.

    The edge of a training with p ranks that do not wait lies at log rate `grid` - `SHIFTS` log p; that of
    all others at `grid`.

    Args:
        grid: Logarithms of rates at which training may break down, `(num_grid,)`.
        joint: Probabilities of both, `(num_grid, num_shifts)`.
    """

    grid: Array
    joint: Array

    @property
    def weights(self) -> Array:
        """Probabilities of `grid`, `(num_grid,)`."""
        return np.asarray(self.joint.sum(axis=1))

    def draws(self, uniforms: Array) -> Array:
        """Draws of the edge by inverse transform, the same shape."""
        return np.asarray(np.interp(uniforms, np.cumsum(self.weights), self.grid), dtype=float)

    def shift_draws(self, edges: Array, uniforms: Array) -> Array:
        """Draws of the shift, each given its draw of the edge, `(num_draws,)`."""
        place = np.abs(edges[:, None] - self.grid).argmin(axis=1)
        cumulative = np.cumsum(self.joint[place], axis=1)
        cumulative /= np.maximum(cumulative[:, -1:], 1e-300)
        index = np.minimum((cumulative < uniforms[:, None]).sum(axis=1), len(SHIFTS) - 1)
        return np.asarray(SHIFTS[index], dtype=float)


def fit_rate_edge(best: float, best_sd: float, runs: Sequence[RunEvidence], staleness: Array) -> RateEdge:
    """What runs show of the edge.

    Runs whose ranks wait show the edge itself. Others show edge and shift jointly: one that broke down on
    many ranks is as well explained by its staleness, and leaves rates of all-reduce nearly as they were.

    Args:
        best: Logarithm of the best rate of large batches.
        best_sd: Its standard deviation.
        runs: What was run.
        staleness: log p of each run whose ranks do not wait, else 0, `(num_runs,)`.
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
    """Of what a run did, were the edge there, up to a constant; the same shape."""
    distance = (math.log(run.configuration.learning_rate) - edge) / _WIDTH
    if broke_down(run, runs):
        return np.asarray(-np.logaddexp(0.0, -distance), dtype=float)
    if len(run.samples) and not run.is_stuck:
        return np.asarray(-np.logaddexp(0.0, distance), dtype=float)
    return np.zeros_like(edge)
