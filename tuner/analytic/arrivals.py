"""When each begun run will arrive: its curve extrapolated, with what all runs' errors have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tuner.analytic.curves import CurveFit, RunCurve, extrapolation_error, fit_curves
from tuner.analytic.draws import NUM_DRAWS, spread_normals

Array = npt.NDArray[np.float64]

#: What the curve's form leaves unsaid however late: standard deviation of log samples to target.
_FORM_SD = 0.05
#: e-folds of samples that an extrapolation is taken to reach at the least.
_LEAST_AHEAD = 0.5
#: Share of the variance of extrapolation errors that all runs of a workload have in common: the form errs
#: for all of them alike.
COMMON_SHARE = 0.7
_LARGEST_SD = 2.5


@dataclass(frozen=True, kw_only=True)
class Arrivals:
    """Draws of log samples to target for every run that was scored, joint over runs.

    Whether the target is met early or late by all runs together matters to predictions, not to the
    choice between runs; so the two parts of the error are kept apart.

    Args:
        median: `(num_runs,)`; infinite where nothing is known, or the curve stays below the target.
        own: Each run's own deviation from median and common part, `(NUM_DRAWS, num_runs)`.
        common: The deviation all runs share, `(NUM_DRAWS,)`.
        unreachable: Chance that a run's curve stays below the target, `(num_runs,)`.
        curves: The fit behind it; None before any scoring.
        error_per_log: What extrapolation was seen to err by (`extrapolation_error`).
    """

    median: Array
    own: Array
    common: Array
    unreachable: Array
    curves: CurveFit | None
    error_per_log: float

    @property
    def own_sd(self) -> Array:
        """Standard deviations of the runs' own deviations, `(num_runs,)`."""
        return np.asarray(self.own.std(axis=0), dtype=float)

    @property
    def common_sd(self) -> float:
        """Standard deviation of what all runs share."""
        return float(self.common.std())


def extrapolate(runs: Sequence[RunCurve], arrived: Sequence[float | None]) -> Arrivals:
    """Extrapolates every run's curve to the target.

    Args:
        runs: What was scored of each; runs without a scoring are passed over.
        arrived: Samples at which each reached the target; None where it has not.
    """
    num = len(runs)
    median = np.full(num, np.inf)
    deviation = np.zeros((NUM_DRAWS, num))
    unreachable = np.zeros(num)
    told = [i for i, run in enumerate(runs) if len(run.samples)]
    curves, error_per_log = None, 0.0
    if told:
        shown = [runs[i] for i in told]
        curves, error_per_log = fit_curves(shown), extrapolation_error(shown)
    # Four normals are shared by all runs (shape and form error), three are each run's own.
    normals = spread_normals(NUM_DRAWS, 7)
    common = np.zeros(NUM_DRAWS)
    for position, i in enumerate(told):
        assert curves is not None
        own_normals = np.roll(normals[:, 4:7], 37 * position + 1, axis=0)
        drawn = curves.log_samples_to_level(
            position, 1.0, np.concatenate([normals[:, :3], own_normals[:, :2]], axis=1)
        )
        finite = np.isfinite(drawn)
        unreachable[i] = 1.0 - finite.mean()
        if not finite.any():
            continue
        lower, middle, upper = np.quantile(drawn[finite], [0.16, 0.5, 0.84])
        spread = 0.5 * float(upper - lower)
        seen = float(np.log(runs[i].samples[-1]))
        # The form errs the more, the further it reaches; a little even where the target seems at hand.
        ahead = error_per_log * max(abs(float(middle) - seen), _LEAST_AHEAD)
        error = float(np.hypot(np.hypot(spread, ahead), _FORM_SD))
        overdue = max(seen - float(middle), 0.0) / error
        # A run that should have arrived by now arrives soon: the mean of a normal's tail beyond now.
        median[i] = max(float(middle), seen + 0.7 * error / (1.0 + overdue))
        form = np.sqrt(COMMON_SHARE) * normals[:, 3] + np.sqrt(1 - COMMON_SHARE) * own_normals[:, 2]
        shape = np.clip(np.where(finite, drawn - middle, 3 * spread), -3 * spread, 3 * spread)
        total = shape + ahead * form + _FORM_SD * own_normals[:, 2]
        deviation[:, i] = total * min(1.0, _LARGEST_SD / max(float(total.std()), 1e-9))
    for i, samples in enumerate(arrived):
        if samples is not None:
            median[i], unreachable[i], deviation[:, i] = np.log(max(samples, 1.0)), 0.0, 0.0
    open_runs = [i for i in told if np.isfinite(median[i]) and arrived[i] is None]
    if open_runs:
        # Runs that are sure of themselves say most of what is common.
        weights = 1.0 / (0.05**2 + deviation[:, open_runs].var(axis=0))
        common = deviation[:, open_runs] @ (weights / weights.sum())
    if any(samples is not None for samples in arrived):
        common = np.zeros(NUM_DRAWS)
    own = deviation - common[:, None]
    own[:, [i for i in range(num) if i not in open_runs]] = 0.0
    return Arrivals(
        median=median,
        own=own,
        common=common,
        unreachable=unreachable,
        curves=curves,
        error_per_log=error_per_log,
    )
