"""Pollux's model of seconds a step, as a baseline for `benchmarks.step_time`.

    T_grad = alpha_c + beta_c b
    T_sync = alpha + beta max(p - 2, 0): alpha_n, beta_n on several nodes, alpha_r, beta_r on one; 0 for p = 1
    T_step = (T_grad^gamma + T_sync^gamma)^(1/gamma), 1 <= gamma <= 10

Qiao et al., OSDI 2021, section 3.2; the rules for what too few probes cannot tell are those of
`fit_perf_params` in adaptdl's `goodput.py`. Its penalties on beta and gamma are optional: `penalties=True`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

from tuner.analytic.step_rows import Steps

Array = npt.NDArray[np.float64]

_LEAST = 1e-8
_MOST = 1e4
_STARTING_GAMMAS = (1.01, 2.0, 4.0)


@dataclass(frozen=True, kw_only=True)
class PolluxSeconds:
    """Pollux's seven parameters: log alpha_c, beta_c, alpha_n, beta_n, alpha_r, beta_r, then gamma."""

    theta: Array

    def seconds(self, steps: Steps) -> Array:
        return _predict(self.theta, steps)[0]


def fit_pollux(
    steps: Steps, step_seconds: Array, wait_seconds: Array | None = None, *, penalties: bool = False
) -> PolluxSeconds:
    """Least squares on logarithms of the step and, where waits were timed, of the compute too."""
    start, free = _start(steps, step_seconds)
    lower = np.array([np.log(_LEAST)] * 6 + [1.0])
    upper = np.array([np.log(_MOST)] * 6 + [10.0])

    def filled(values: Array) -> Array:
        theta = start.copy()
        theta[free] = values
        return theta

    def misfit(values: Array) -> Array:
        theta = filled(values)
        step, compute = _predict(theta, steps)
        parts = [np.log(step / step_seconds)]
        if wait_seconds is not None:
            parts.append(np.log(compute / (step_seconds - wait_seconds)))
        if penalties:
            weights = np.sqrt(len(step_seconds) * np.array([1e-3, 1e-2, 1e-2]))
            ratios = np.exp([theta[3] - theta[2], theta[5] - theta[4]])
            parts.append(weights * np.array([theta[6] - 1.0, *ratios]))
        return np.concatenate(parts)

    best = None
    for gamma in _STARTING_GAMMAS:
        start[6] = gamma
        found = least_squares(misfit, start[free], bounds=(lower[free], upper[free]))
        if best is None or found.cost < best.cost:
            best = found
    assert best is not None
    return PolluxSeconds(theta=filled(best.x))


def _start(steps: Steps, step_seconds: Array) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Where the search starts, `(7,)`, and which parameters it may move."""
    nodes, ranks = steps.placements.num_nodes, steps.placements.num_ranks
    shortest = float(step_seconds.min())
    per_sample = float((step_seconds / steps.batch_size_per_rank).min())
    theta = np.log(
        [0.5 * shortest, 0.5 * per_sample, 0.3 * shortest, 0.015 * shortest, 0.1 * shortest, 0.005 * shortest]
    )
    free = np.ones(7, dtype=bool)
    several, within = nodes > 1, (nodes == 1) & (ranks > 1)
    free[2:4], free[4:6] = several.any(), within.any()
    free[[3, 5]] &= bool(np.any(ranks > 2))
    theta[~free[:6]] = np.log(_LEAST)
    if len(np.unique(steps.batch_size_per_rank)) == 1:
        theta[0], free[0] = np.log(0.5 * float(step_seconds.mean())), False
    return np.append(theta, 2.0), free


def _predict(theta: Array, steps: Steps) -> tuple[Array, Array]:
    nodes, ranks = steps.placements.num_nodes, steps.placements.num_ranks
    alpha_c, beta_c, alpha_n, beta_n, alpha_r, beta_r = np.exp(theta[:6])
    gamma = theta[6]
    beyond_two = np.maximum(ranks - 2, 0)
    several, within = alpha_n + beta_n * beyond_two, alpha_r + beta_r * beyond_two
    compute = alpha_c + beta_c * steps.batch_size_per_rank
    exchange = np.where(nodes > 1, several, np.where(ranks > 1, within, _LEAST))
    return (compute**gamma + exchange**gamma) ** (1 / gamma), compute
