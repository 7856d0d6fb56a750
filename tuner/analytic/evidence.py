"""What runs showed, as the models of samples take it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from search_spaces import Configuration
from tuner.domain.measurement import NoiseStatistic

Array = npt.NDArray[np.float64]

#: Progress below which a run counts as stuck at its start.
_STUCK = 0.05


@dataclass(frozen=True, kw_only=True)
class RunEvidence:
    """What one run showed.

    Args:
        configuration: What it was run with.
        samples: Samples seen at each scoring, above 0, `(num_points,)`.
        progress: (value - start) / (target - start) at each scoring, `(num_points,)`.
        samples_to_target: Where it crossed the target; None while it has not.
        diverged: Whether it stopped being finite.
        ended: Whether it came to its end without arriving.
        emulated: Whether its ranks were emulated.
        noise: Gradient noise along it.
    """

    configuration: Configuration
    samples: Array
    progress: Array
    samples_to_target: float | None = None
    diverged: bool = False
    ended: bool = False
    emulated: bool = False
    noise: tuple[NoiseStatistic, ...] = ()

    @property
    def is_stuck(self) -> bool:
        """Whether it never left its start, or fell back to it."""
        return bool(np.max(self.progress[-2:], initial=0.0) < _STUCK)


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
