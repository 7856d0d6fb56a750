"""Fits the constants of the step-time laws to measured times, with relative errors and bounds.

Legend: A latency of a hop (s), w bytes a second, n bytes, p ranks, b samples of a rank's step, c(b) its
seconds, k coefficient of variation, g overlap exponent.
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

#: Timings are fitted as if each were known this well, relative: all sizes count alike.
_NOISE = 0.05
#: How little is assumed of a constant beforehand: a standard deviation of its logarithm.
_PRIOR_SD = 3.0
#: Where the prior of the fixed part lies, as a share of the shortest timing.
_FIXED_SHARE = 0.5
#: Too short compared with the other to measure the overlap.
_LEAST_SHARE = 0.05
_LARGEST_OVERLAP = 10.0


@dataclass(frozen=True, kw_only=True)
class FittedLine:
    """Timings as fixed x `fixed` + per_unit x `units`.

    Args:
        fixed: First constant.
        per_unit: Second constant.
        misfit: Largest relative error at one place.
    """

    fixed: Figure
    per_unit: Figure
    misfit: float


def fit_line(fixed: Array, units: Array, seconds: Array) -> FittedLine:
    """Two positive constants from timings, each weighted by its own size.

    Least squares would follow the longest timings alone and may give a negative fixed part: instead the
    logarithms are fitted, over the logarithms of both constants (as the seconds model does).

    Args:
        fixed: What the first constant is multiplied by, `(num_places,)`.
        units: What the second is multiplied by, `(num_places,)`.
        seconds: Timings, `(num_rounds, num_places)`.
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
    # The fit to medians may lie outside of all rounds.
    return Figure(value=value, low=min(value, float(by_round.min())), high=max(value, float(by_round.max())))


def jitter_of(windows: list[list[list[list[float]]]]) -> tuple[Figure, float]:
    """k of a rank's steps, and the share of its variance that lasts longer than a window.

    A window's steps vary around its mean by the transient part; the means of windows of one batch size, over
    ranks and rounds, vary by the persistent part and by what is left of the transient one.

    Args:
        windows: Seconds of steps, by rank, round, batch size and step.
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
    # A mean of so many steps still varies by a share of what single steps do.
    left = within * float(np.mean([1.0 / count for _, count in means]))
    # From the middle half of the windows: one in which the machine was busy otherwise says nothing of a rank.
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
    """g with which a step and its all-reduce take as long together as measured.

    (c^g + s^g)^(1/g), c being the slowest rank's step without the exchange, s the exchange by its law.

    Args:
        alone: Seconds of a step without the exchange, by round.
        combined: With it.
        exchange_seconds: s.
        jitter: k of the steps.
        num_ranks: p.

    Returns:
        None where the shorter is less than a twentieth of the longer one, or where rounds say anything.
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
    """The g, from 1 to `_LARGEST_OVERLAP`, with which both take as long as measured."""
    larger, smaller = max(compute, exchange), min(compute, exchange)

    def excess(g: float) -> float:
        return float(larger * (1 + (smaller / larger) ** g) ** (1 / g)) - whole

    if excess(1.0) <= 0:
        return 1.0
    if excess(_LARGEST_OVERLAP) >= 0:
        return _LARGEST_OVERLAP
    return float(brentq(excess, 1.0, _LARGEST_OVERLAP))
