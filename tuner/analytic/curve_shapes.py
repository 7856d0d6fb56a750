"""Shapes of learning curves believed beforehand: how long each takes from one level of progress to another.

A curve is seen in units of progress: y = (value - start) / (target - start), so that it begins near 0 and
the target is 1, whether the metric rises or falls. In DESIGN's power-tail form

    y(s) = h (1 - (1 + k s^u)^(-q))

with s samples seen, h the height the curve tends to, u and q the form of its rise and of its tail, and k the
run's own speed. Solved for the samples at a level v of progress, below h,

    log s(v) = (log K(v) - log k) / u,    K(v) = (1 - v / h)^(-1 / q) - 1

so that e-folds of samples between two levels depend on the shape (h, u, q) alone. Shapes lie on a grid, with
a broad prior; all have h > 1, since only a curve that arrives tells how long the way to the target is. The
form holds within one phase of a learning-rate schedule.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

#: Grid of shapes. Text-book curves have tail exponents u q of 0.3 to 2 (Viering and Loog 2022); a rise that
#: waits at chance first has u above 1.
_HEIGHTS = np.array([1.02, 1.05, 1.1, 1.2, 1.4, 2.0])
_HEIGHT_WEIGHTS = np.array([0.14, 0.15, 0.17, 0.15, 0.1, 0.05])
_RISES = np.exp(np.linspace(np.log(0.5), np.log(2.8), 5))
_TAILS = np.exp(np.linspace(np.log(0.3), np.log(4.0), 4))
_LOG_U_SD, _LOG_Q_MEAN, _LOG_Q_SD = 0.45, np.log(0.9), 0.7


def _grid() -> tuple[Array, Array]:
    height, rise, tail = (axis.ravel() for axis in np.meshgrid(_HEIGHTS, _RISES, _TAILS, indexing="ij"))
    log_weight = np.log(np.repeat(_HEIGHT_WEIGHTS, len(_RISES) * len(_TAILS)))
    log_weight -= 0.5 * (np.log(rise) / _LOG_U_SD) ** 2
    log_weight -= 0.5 * ((np.log(tail) - _LOG_Q_MEAN) / _LOG_Q_SD) ** 2
    weight = np.exp(log_weight - log_weight.max())
    return np.stack([height, rise, tail], axis=1), np.asarray(weight / weight.sum(), dtype=float)


#: Shapes (h, u, q), `(num_shapes, 3)`, and the probability of each beforehand, `(num_shapes,)`.
SHAPES, PRIOR = _grid()


def _log_k(level: float) -> Array:
    """log K of a level of progress for every shape, `(num_shapes,)`."""
    height, tail = SHAPES[:, 0], SHAPES[:, 2]
    return np.asarray(np.log(np.power(1.0 - level / height, -1.0 / tail) - 1.0), dtype=float)


def arriving_increments(levels: Array) -> Array:
    """e-folds of samples between levels of progress, each the prior's median over all shapes.

    Args:
        levels: Ascending, in (0, 1], `(num_levels,)`.

    Returns:
        `(num_levels - 1,)`.
    """
    at = np.stack([_log_k(level) / SHAPES[:, 1] for level in levels], axis=1)
    found = []
    for column in np.diff(at, axis=1).T:
        order = np.argsort(column)
        middle = int(np.searchsorted(np.cumsum(PRIOR[order]), 0.5 * PRIOR.sum()))
        found.append(float(column[order[middle]]))
    return np.array(found)
