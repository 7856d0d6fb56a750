"""Fits the constants of the cost models of step time to measured times, with relative errors.

Legend: A latency of one hop (seconds), w bandwidth (bytes per second), n size of a vector (bytes), p number
of ranks, b samples per step of a rank, c(b) seconds of such a step, k coefficient of variation of step times,
g exponent of the overlap of compute and all-reduce.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq

from tuner.analytic.laws import expected_maximum
from tuner.analytic.regression import Parameter, Residual, fit
from tuner.calibration.constants import Figure

Array = npt.NDArray[np.float64]

#: Relative standard deviation that a fit assumes for each timing. It is the same for short and long timings,
#: so all of them have the same weight.
_NOISE = 0.05
#: Standard deviation of the wide prior of the logarithm of each constant.
_PRIOR_SD = 3.0
#: The prior mean of each constant is chosen so that the constant explains this share of one measured time.
_FIXED_SHARE = 0.5
#: The overlap is not measured if the shorter of compute and all-reduce is below this share of the longer.
_LEAST_SHARE = 0.05
_LARGEST_OVERLAP = 10.0


@dataclass(frozen=True, kw_only=True)
class FittedLine:
    """Two constants of a cost model: seconds = fixed x (first input) + per_unit x (second input).

    Args:
        fixed: Constant that multiplies the first input.
        per_unit: Constant that multiplies the second input.
        misfit: Largest relative difference between measured and predicted seconds, over all pairs of inputs.
    """

    fixed: Figure
    per_unit: Figure
    misfit: float


def fit_line(fixed: Array, units: Array, seconds: Array) -> FittedLine:
    """Fits two positive constants to timings, by their relative errors.

    Plain least squares would mainly fit the longest timings, and could give a negative constant. Therefore
    the logarithms of the timings are fitted, with the logarithms of both constants as parameters.

    Args:
        fixed: First input of each timing, which multiplies the first constant, `(num_inputs,)`.
        units: Second input of each timing, which multiplies the second constant, `(num_inputs,)`.
        seconds: Timings, `(num_rounds, num_inputs)`; each round measures all pairs of inputs once.
    """
    medians = np.median(seconds, axis=0)
    first, second = _two_constants(fixed, units, medians)
    by_round = np.array([_two_constants(fixed, units, row) for row in seconds])
    law = first * fixed + second * units
    return FittedLine(
        fixed=_figure(first, by_round[:, 0]),
        per_unit=_figure(second, by_round[:, 1]),
        misfit=float(np.max(np.abs(law / medians - 1))),
    )


def _two_constants(fixed: Array, units: Array, seconds: Array) -> tuple[float, float]:
    shortest, longest = int(np.argmin(seconds)), int(np.argmax(units))
    parameters = (
        Parameter(
            name="log fixed",
            mean=math.log(_FIXED_SHARE * seconds[shortest] / fixed[shortest]),
            sd=_PRIOR_SD,
        ),
        Parameter(
            name="log per unit",
            mean=math.log(_FIXED_SHARE * seconds[longest] / units[longest]),
            sd=_PRIOR_SD,
        ),
    )

    def law(theta: Array, inputs: Array) -> Array:
        return np.asarray(np.log(np.exp(theta[0]) * inputs[:, 0] + np.exp(theta[1]) * inputs[:, 1]))

    inputs = np.stack([fixed, units], axis=1)
    found = fit(
        law,
        parameters,
        Residual(sd=0.0, length_scales=(1.0, 1.0)),
        inputs,
        np.log(seconds),
        np.full(len(seconds), _NOISE),
    )
    return float(np.exp(found.theta[0])), float(np.exp(found.theta[1]))


def _figure(value: float, by_round: Array) -> Figure:
    # The fit to the medians may lie outside of the range of the single rounds.
    return Figure(value=value, low=min(value, float(by_round.min())), high=max(value, float(by_round.max())))


def jitter_of(windows: list[list[list[list[float]]]]) -> tuple[Figure, float]:
    """Estimates the jitter k of step times, and the persistent share of its variance.

    A window is a series of consecutive steps with one batch size. The variance within windows is transient.
    The variance between the means of windows (over ranks and rounds) is the persistent part plus the
    transient part divided by the number of steps of a window.

    Args:
        windows: Seconds of steps, indexed by rank, round, batch size and step.

    Returns:
        k, and the share of the variance k^2 that is persistent.
    """
    num_sizes = len(windows[0][0])
    transient, means = [], []
    for size in range(num_sizes):
        of_size = [np.array(rounds[size]) for rank in windows for rounds in rank]
        middle = float(np.median([steps.mean() for steps in of_size]))
        for steps in of_size:
            transient.append(float(steps.std(ddof=1) / steps.mean()) ** 2 if len(steps) > 1 else 0.0)
            means.append((float(steps.mean()) / middle - 1, len(steps)))
    within = float(np.median(transient))
    # Variance of a window's mean due to the transient part.
    left = within * float(np.mean([1.0 / count for _, count in means]))
    # Variance from the quartiles, so that windows in which other processes used the machine do not count.
    offsets = np.array([offset for offset, _ in means])
    low, high = np.quantile(offsets, [0.25, 0.75])
    between = max(0.0, (float(high - low) / 1.349) ** 2 - left)
    jitter, share = math.sqrt(within + between), between / max(within + between, 1e-12)
    singles = np.sqrt(np.array(transient) + between)
    low_k, high_k = (float(q) for q in np.quantile(singles, [0.1, 0.9]))
    return Figure(value=jitter, low=min(low_k, jitter), high=max(high_k, jitter)), share


def fit_overlap(
    alone: Array, combined: Array, exchange_seconds: float, *, jitter: float, num_ranks: int
) -> Figure | None:
    """Estimates g, the exponent of the overlap of compute and all-reduce.

    A step with an all-reduce takes (c^g + s^g)^(1/g), where c is the slowest rank's step time without the
    all-reduce, and s the predicted time of the all-reduce.

    Args:
        alone: Seconds of a step without the all-reduce, by round.
        combined: Seconds of a step with the all-reduce, by round.
        exchange_seconds: s, predicted seconds of the all-reduce.
        jitter: k, coefficient of variation of step times.
        num_ranks: p, number of ranks.

    Returns:
        g; None if c or s is less than a twentieth of the other, or if the rounds contradict each other.
    """
    slowest = float(1 + jitter * expected_maximum(np.array(num_ranks)))
    compute = float(np.median(alone)) * slowest
    if min(compute, exchange_seconds) < _LEAST_SHARE * max(compute, exchange_seconds):
        return None
    by_round = [
        _overlap(own * slowest, exchange_seconds, whole) for own, whole in zip(alone, combined, strict=True)
    ]
    if max(by_round) >= _LARGEST_OVERLAP and min(by_round) <= 1.0:
        return None
    return _figure(_overlap(compute, exchange_seconds, float(np.median(combined))), np.array(by_round))


def _overlap(compute: float, exchange: float, whole: float) -> float:
    """Solves (compute^g + exchange^g)^(1/g) = whole for g, limited to 1 to `_LARGEST_OVERLAP`."""
    larger, smaller = max(compute, exchange), min(compute, exchange)

    def excess(g: float) -> float:
        return float(larger * (1 + (smaller / larger) ** g) ** (1 / g)) - whole

    if excess(1.0) <= 0:
        return 1.0
    if excess(_LARGEST_OVERLAP) >= 0:
        return _LARGEST_OVERLAP
    return float(brentq(excess, 1.0, _LARGEST_OVERLAP))
