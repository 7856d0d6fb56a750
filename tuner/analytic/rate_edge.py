"""Estimates the edge: the learning rate above which training breaks down.

Asynchronous ranks apply stale updates (updates that were computed from older parameters), which lowers the
edge. With p such ranks, its logarithm is lower by shift times log p than for ranks that wait for each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from search_spaces import Configuration
from tuner.analytic.laws import Array
from tuner.domain.measurement import NoiseStatistic

#: A run is stuck if its training progress (0 at the first score, 1 at the target) is below this.
_STUCK = 0.05
#: A run has collapsed if the median of its last `_FEWEST_LATER` scores is below this share of its best
#: progress. All of these scores must come after the best one.
_COLLAPSED, _FEWEST_LATER = 0.5, 3


@dataclass(frozen=True, kw_only=True)
class RunEvidence:
    """What is known about one run: learning curve, outcome and gradient noise; models are fitted to it.

    Args:
        configuration: The configuration of the run.
        samples: Number of samples processed at each evaluation, above 0, `(num_points,)`.
        progress: Training progress, (value - start) / (target - start) of the metric, at each evaluation,
            `(num_points,)`.
        samples_to_target: Number of samples processed when the run reached the target; None if it has not.
        diverged: Whether the loss or the parameters became non-finite.
        ended: Whether the run ended without reaching the target.
        turned_back: Whether the run has stopped improving: its metric became worse than its earlier best
            value, or levelled off.
        emulated: Whether the ranks were emulated, that is, trained on this host under a virtual clock.
        noise: Gradient statistics along the run, in order of training.
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
        """Whether the run has made almost no progress to the target, by its last two evaluations."""
        return bool(np.max(self.progress[-2:], initial=0.0) < _STUCK)

    @property
    def has_collapsed(self) -> bool:
        """Whether the run has lost more than half of its best progress, as with too large a learning rate."""
        if not len(self.progress):
            return False
        place = int(np.argmax(self.progress))
        best, later = float(self.progress[place]), self.progress[place + 1 :]
        if best <= _STUCK or len(later) < _FEWEST_LATER:
            return False
        return bool(np.median(later[-_FEWEST_LATER:]) < _COLLAPSED * best)


def broke_down(run: RunEvidence, runs: Sequence[RunEvidence]) -> bool:
    """Whether a run broke down because its learning rate was too large.

    - A run that diverged broke down.
    - A run without progress broke down if another run made progress with a smaller learning rate. The first
      evaluation of the other run must not come after more samples than the last evaluation of the run without
      progress.

    Args:
        run: The run that may have broken down.
        runs: All runs of the study, with which the run is compared.
    """
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


#: Prior of the edge: eight times the best learning rate of large batches, within a factor of three.
_ABOVE_BEST, _SD = math.log(8.0), 1.1
#: The probability that a run breaks down is a logistic function of (log learning rate - log edge) / `_WIDTH`.
_WIDTH = 0.5
#: Prior of the shift: 0 with probability 0.4, else half-normal with a standard deviation of 0.5. For example,
#: a shift of 0.5 lowers the edge by a factor of six on 32 asynchronous ranks.
_NO_SHIFT, _SHIFT_SD = 0.4, 0.5
SHIFTS = np.linspace(0.0, 2.0, 21)


@dataclass(frozen=True, kw_only=True)
class RateEdge:
    """The probability, for each learning rate, that training breaks down above it (that it is the edge).

    It is the joint posterior of the edge and of its shift (see the module docstring), on a grid. The
    logarithm of the edge for ranks that wait for each other is one of the values in `grid`; the shift is one
    of the values in `SHIFTS`.

    Args:
        grid: Logarithms of learning rates, `(num_grid,)`.
        joint: Joint probability of each edge and shift, `(num_grid, num_shifts)`.
    """

    grid: Array
    joint: Array

    @property
    def weights(self) -> Array:
        """Probability of each learning rate of the grid to be the edge, `(num_grid,)`."""
        return np.asarray(self.joint.sum(axis=1))

    def draws(self, uniforms: Array) -> Array:
        """Returns posterior samples of the logarithm of the edge, in the shape of `uniforms`.

        The edge is the learning rate above which training breaks down, here for ranks that wait for each
        other.

        Args:
            uniforms: Uniform random numbers in (0, 1); each selects the edge with that cumulative
                probability.
        """
        return np.asarray(np.interp(uniforms, np.cumsum(self.weights), self.grid), dtype=float)

    def shift_draws(self, edges: Array, uniforms: Array) -> Array:
        """Returns posterior samples of the shift of the edge, given samples of the edge, `(num_draws,)`.

        The shift says how much lower the edge is for asynchronous ranks (see the module docstring).

        Args:
            edges: Posterior samples of the logarithm of the edge, from `draws`, `(num_draws,)`.
            uniforms: Uniform random numbers in (0, 1), independent of those for `draws`, `(num_draws,)`.
        """
        place = np.abs(edges[:, None] - self.grid).argmin(axis=1)
        cumulative = np.cumsum(self.joint[place], axis=1)
        cumulative /= np.maximum(cumulative[:, -1:], 1e-300)
        index = np.minimum((cumulative < uniforms[:, None]).sum(axis=1), len(SHIFTS) - 1)
        return np.asarray(SHIFTS[index], dtype=float)


def fit_rate_edge(best: float, best_sd: float, runs: Sequence[RunEvidence], staleness: Array) -> RateEdge:
    """Estimates the edge, the learning rate above which training breaks down, and its shift.

    The shift is how much smaller the edge is for asynchronous runs. Synchronous runs tell only about the
    edge; asynchronous runs tell about the edge and the shift together. For example, if an asynchronous run on
    many ranks breaks down, a shift may be the reason, so the estimated edge of synchronous runs hardly
    changes.

    Args:
        best: Logarithm of the best learning rate of large batches.
        best_sd: Standard deviation of `best`.
        runs: The runs of the study.
        staleness: log p for each run with p asynchronous ranks, 0 for synchronous runs, `(num_runs,)`.
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
    """Returns how probable the outcome of a run is for each value of the edge, as a logarithm.

    The edge is the learning rate above which training breaks down. The result has the shape of `edge`, and is
    known up to a constant.
    """
    distance = (math.log(run.configuration.learning_rate) - edge) / _WIDTH
    if broke_down(run, runs):
        return np.asarray(-np.logaddexp(0.0, -distance), dtype=float)
    if len(run.samples) and not run.is_stuck:
        return np.asarray(-np.logaddexp(0.0, distance), dtype=float)
    return np.zeros_like(edge)
