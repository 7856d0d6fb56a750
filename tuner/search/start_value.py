"""Start of curves: estimate the metric of the untrained model if it was not scored."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

#: First scorings so many median deviations worse than the median are of runs that broke down.
_BROKEN = 4.0
#: Progress below this only shows that a run is stuck or broke down.
_LEAST_PROGRESS = -0.03
#: More than this adds no information either.
_MOST_PROGRESS = 1e9


def start_value(first_values: Sequence[float]) -> float:
    """The worst of the first scorings, less those of runs that broke down.

    Args:
        first_values: Of the metric, larger being better, at least one.
    """
    values = np.asarray(first_values, dtype=float)
    median = float(np.median(values))
    deviation = float(np.median(np.abs(values - median)))
    return float(values[values >= median - _BROKEN * deviation - 1e-12].min())


def progress_of(values: Array, start: float, target: float) -> Array:
    """(value - start) / (target - start), clamped to its informative range; 1 is the target.

    Args:
        values: Of the metric, larger being better.
        start: Of the untrained model.
        target: That counts as reached.
    """
    span = target - start
    if span <= 0:
        return np.ones_like(values)
    with np.errstate(over="ignore"):  # a span of next to nothing is passed without measure
        return np.asarray(np.clip((values - start) / span, _LEAST_PROGRESS, _MOST_PROGRESS), dtype=float)
