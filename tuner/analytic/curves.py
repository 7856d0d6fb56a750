"""Learning curves of one workload: one shared shape, a time warp for each run.

A curve is seen in units of progress: y = (value - start) / (target - start), so that it begins near 0 and
the target is 1, whether the metric rises or falls. All runs share the shape

    y(s) = h (1 - (1 + k s^u)^(-q))

with s samples seen, h the height the curve tends to, u and q the form of its rise and of its power tail
(an exponential tail is far too optimistic on real curves), and k the run's own speed. Each run may also
fall a little short of, or exceed, the shared height. Unfinished runs count as much as finished ones.
The form holds within one phase of a learning-rate schedule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tuner.analytic.draws import spread_normals

Array = npt.NDArray[np.float64]

#: Prior means and standard deviations of (h - 1, log u, log q) and of a run's own height. Chosen so that a
#: prior curve nearly always reaches the target, since users ask for what can be had; text-book
#: learning curves have tail exponents of 0.3 to 2 (Viering and Loog 2022).
_HEIGHT_MEAN, _HEIGHT_SD = 0.2, 0.09
_LOG_U_MEAN, _LOG_U_SD = 0.0, 0.25
_LOG_Q_MEAN, _LOG_Q_SD = np.log(0.6), 0.5
_OWN_HEIGHT_SD = 0.015
_LOG_K_SD = 6.0
#: Prior of the noise of one scoring, in units of progress, and how many scorings it is worth.
_NOISE, _NOISE_WEIGHT = 0.02, 6.0
_MAX_POINTS = 24
#: A noisy curve first touches the target when the smooth one is still about this many standard
#: deviations of one scoring below it (the expected maximum of the few scorings near the crossing).
_EARLY_TOUCH = 0.7
#: Prior of `extrapolation_error`, and how many runs it is worth.
_ERROR_PER_LOG, _ERROR_WEIGHT = 0.2, 3.0
_ITERATIONS = 40


@dataclass(frozen=True, kw_only=True)
class RunCurve:
    """One run's progress.

    Args:
        samples: Samples seen at each scoring, ascending, above 0, `(num_points,)`.
        progress: y at each scoring, `(num_points,)`.
    """

    samples: Array
    progress: Array


@dataclass(frozen=True, kw_only=True)
class CurveFit:
    """The joint posterior of shape and runs, linear around its mode.

    Args:
        theta: (h - 1, log u, log q, then log k of each run, then each run's own height) at the mode.
        covariance: Of theta.
        num_runs: Runs that went in.
        scale: Samples that were counted as one while fitting.
        noise: Standard deviation of one scoring in units of progress.
        converged: Whether the search for the mode settled.
    """

    theta: Array
    covariance: Array
    num_runs: int
    scale: float
    noise: float
    converged: bool

    def log_samples_to_level(self, run: int, level: float, normals: Array) -> Array:
        """Draws of the logarithm of samples at which a run's curve touches a level of progress.

        The shared shape is drawn from the first three normals alone: draws of several runs with the
        same ones are of the same shape, as they should be.

        Args:
            run: Index of the run.
            level: Progress; 1 is the target.
            normals: Independent standard normals, `(num_draws, 5)`.

        Returns:
            `(num_draws,)`; infinite where the drawn curve stays below the level.
        """
        indices = [0, 1, 2, 3 + run, 3 + self.num_runs + run]
        covariance = self.covariance[np.ix_(indices, indices)]
        tiny = 1e-12 * np.trace(covariance) * np.eye(len(indices))
        draws = self.theta[indices] + normals @ np.linalg.cholesky(covariance + tiny).T
        level -= _EARLY_TOUCH * self.noise
        height = 1.0 + draws[:, 0] + draws[:, 4]
        u, q = np.exp(draws[:, 1]), np.exp(draws[:, 2])
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            inner = np.power(1.0 - level / height, -1.0 / q) - 1.0
            found = (np.log(inner) - draws[:, 3]) / u + np.log(self.scale)
        return np.where(height > level, found, np.inf)

    def look_error(self, log_samples_to_target: Array, log_samples: Array) -> Array:
        """How well one more scoring tells a run's speed: standard deviation of log samples.

        The scoring's noise over the slope of the curve there; where the curve is flat it tells little.

        Args:
            log_samples_to_target: What the runs are expected to need, any shape.
            log_samples: Where they would be scored, the same shape.
        """
        height = max(1.0 + float(self.theta[0]), 1.02)
        u, q = float(np.exp(self.theta[1])), float(np.exp(self.theta[2]))
        at_target = np.log((1.0 - 1.0 / height) ** (-1.0 / q) - 1.0)
        speed = np.exp(np.clip(at_target + u * (log_samples - log_samples_to_target), -30.0, 30.0))
        slope = height * q * u * (1.0 + speed) ** (-q - 1.0) * speed
        return np.asarray(self.noise / np.maximum(slope, 1e-3), dtype=float)


def fit_curves(runs: Sequence[RunCurve]) -> CurveFit:
    """Fits the shared shape and every run's speed, by Levenberg-Marquardt on a robust loss.

    Args:
        runs: At least one; each with at least one scoring.
    """
    thinned = [_thinned(run) for run in runs]
    scale = float(np.exp(np.mean([np.log(run.samples).mean() for run in thinned])))
    num = len(runs)
    owner = np.concatenate([np.full(len(run.samples), i) for i, run in enumerate(thinned)])
    log_s = np.log(np.concatenate([run.samples for run in thinned]) / scale)
    y = np.concatenate([run.progress for run in thinned])
    prior_mean = np.concatenate([[_HEIGHT_MEAN, _LOG_U_MEAN, _LOG_Q_MEAN], np.zeros(num), np.zeros(num)])
    prior_sd = np.concatenate(
        [
            [_HEIGHT_SD, _LOG_U_SD, _LOG_Q_SD],
            np.full(num, _LOG_K_SD),
            np.full(num, _OWN_HEIGHT_SD),
        ]
    )
    theta = prior_mean.copy()
    theta[3 : 3 + num] = [_first_speed(run, scale) for run in thinned]
    noise, weights, converged = 0.03, np.ones_like(y), False
    for _ in range(3):
        theta, converged = _minimise(theta, prior_mean, prior_sd, log_s, owner, num, y, weights / noise)
        misfit = y - _curve(theta, log_s, owner, num)
        noise = _noise_of(misfit * weights, num)
        # Spikes of an oscillating run count less (Huber 1964).
        weights = np.sqrt(np.minimum(1.0, 2.0 * noise / np.maximum(np.abs(misfit), 1e-12)))
    jacobian = _jacobian(theta, log_s, owner, num) * (weights / noise)[:, None]
    information = jacobian.T @ jacobian + np.diag(prior_sd**-2.0)
    return CurveFit(
        theta=theta,
        covariance=np.asarray(np.linalg.inv(information), dtype=float),
        num_runs=num,
        scale=scale,
        noise=noise,
        converged=converged,
    )


def _noise_of(misfit: Array, num_runs: int) -> float:
    """Noise of one scoring: the prior mixed with what is left of the misfit's degrees of freedom.

    Every run's speed takes one up, the shape three.
    """
    degrees = max(len(misfit) - num_runs - 3, 0)
    squares = float(misfit @ misfit) if degrees else 0.0
    return float(np.sqrt((_NOISE_WEIGHT * _NOISE**2 + squares) / (_NOISE_WEIGHT + degrees)))


def extrapolation_error(runs: Sequence[RunCurve]) -> float:
    """How far curves of this workload go astray when extrapolated, learnt by going back in time.

    Every run that saw enough is cut to its first third, all are fitted again, and the samples at which
    each run's present level should have been met are held against where it was. The mean square of
    these errors is mixed with a prior worth `_ERROR_WEIGHT` runs.

    Returns:
        Standard deviation of log samples, for each e-fold by which a level lies ahead of what was seen.
    """
    told: list[tuple[RunCurve, RunCurve]] = []
    for run in runs:
        early = run.samples <= run.samples[-1] / 3
        if early.sum() >= 3 and np.median(run.progress[-3:]) > 0.3:
            told.append((run, RunCurve(samples=run.samples[early], progress=run.progress[early])))
    total, weight = _ERROR_WEIGHT * _ERROR_PER_LOG**2, _ERROR_WEIGHT
    if told:
        cut = fit_curves([early for _, early in told])
        normals = spread_normals(64, 5)
        for index, (run, early) in enumerate(told):
            level = float(np.median(run.progress[-3:]))
            draws = cut.log_samples_to_level(index, level, normals)
            predicted = float(np.median(draws))
            ahead = float(np.log(np.median(run.samples[-3:]) / early.samples[-1]))
            # A draw that stays below the level errs by as much as the span itself, at the least.
            error = (
                predicted - float(np.log(np.median(run.samples[-3:]))) if np.isfinite(predicted) else ahead
            )
            total += (error / ahead) ** 2
            weight += 1.0
    return float(np.sqrt(total / weight))


def _thinned(run: RunCurve) -> RunCurve:
    if len(run.samples) <= _MAX_POINTS:
        return run
    keep = np.unique(np.linspace(0, len(run.samples) - 1, _MAX_POINTS).round().astype(int))
    return RunCurve(samples=run.samples[keep], progress=run.progress[keep])


def _first_speed(run: RunCurve, scale: float) -> float:
    """log k that brings the prior's curve through the run's last scoring."""
    height = 1.0 + _HEIGHT_MEAN
    y = float(np.clip(np.median(run.progress[-3:]), 0.003, 0.95 * height))
    inner = (1.0 - y / height) ** (-1.0 / np.exp(_LOG_Q_MEAN)) - 1.0
    return float(np.log(inner) - np.log(run.samples[-1] / scale))


def _curve(theta: Array, log_s: Array, owner: npt.NDArray[np.intp], num: int) -> Array:
    height = 1.0 + theta[0] + theta[3 + num + owner]
    u, q = np.exp(theta[1]), np.exp(theta[2])
    speed = np.exp(np.clip(theta[3 + owner] + u * log_s, -60.0, 60.0))
    return np.asarray(height * (1.0 - (1.0 + speed) ** (-q)), dtype=float)


def _jacobian(theta: Array, log_s: Array, owner: npt.NDArray[np.intp], num: int) -> Array:
    height = 1.0 + theta[0] + theta[3 + num + owner]
    u, q = np.exp(theta[1]), np.exp(theta[2])
    speed = np.exp(np.clip(theta[3 + owner] + u * log_s, -60.0, 60.0))
    tail = (1.0 + speed) ** (-q)
    by_log_k = height * q * tail * speed / (1.0 + speed)
    rows = np.arange(len(log_s))
    jacobian = np.zeros((len(log_s), len(theta)))
    jacobian[:, 0] = 1.0 - tail
    jacobian[:, 1] = by_log_k * u * log_s
    jacobian[:, 2] = height * tail * np.log1p(speed) * q
    jacobian[rows, 3 + owner] = by_log_k
    jacobian[rows, 3 + num + owner] = 1.0 - tail
    return jacobian


def _minimise(
    theta: Array,
    prior_mean: Array,
    prior_sd: Array,
    log_s: Array,
    owner: npt.NDArray[np.intp],
    num: int,
    y: Array,
    weights: Array,
) -> tuple[Array, bool]:
    damping = 1e-2

    def misfits(at: Array) -> Array:
        return np.concatenate([(y - _curve(at, log_s, owner, num)) * weights, (prior_mean - at) / prior_sd])

    current = misfits(theta)
    for _ in range(_ITERATIONS):
        jacobian = np.concatenate(
            [_jacobian(theta, log_s, owner, num) * weights[:, None], np.diag(1.0 / prior_sd)]
        )
        gradient = jacobian.T @ current
        hessian = jacobian.T @ jacobian
        gained = -1.0
        while damping < 1e9:
            step = np.linalg.solve(hessian + damping * np.diag(np.diag(hessian)), gradient)
            trial = misfits(theta + np.clip(step, -2.0, 2.0))
            gained = float(current @ current - trial @ trial)
            if gained > 0:
                break
            damping *= 5
        if gained <= 0:
            return theta, True
        theta, current = theta + np.clip(step, -2.0, 2.0), trial
        damping = max(damping / 10, 1e-9)
        if gained < 1e-6 * (1 + float(current @ current)):
            return theta, True
    return theta, False
