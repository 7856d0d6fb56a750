"""Learning curves made from known shapes, in units of progress."""

from __future__ import annotations

from typing import cast

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def power_tail(
    samples: Array, to_target: float, height: float = 1.1, rise: float = 1.0, tail: float = 1.0
) -> Array:
    """y(s) = h (1 - (1 + K (s / S)^u)^(-q)), K such that y(S) = min(1, 0.9 h).

    Args:
        samples: s.
        to_target: S, the samples to target, or to nine tenths of a height that is no more than 1.
        height: h.
        rise: u.
        tail: q.
    """
    level = 1.0 if height > 1.0 else 0.9 * height
    scale = (1.0 - level / height) ** (-1.0 / tail) - 1.0
    return cast(Array, height * (1.0 - (1.0 + scale * (samples / to_target) ** rise) ** -tail))
