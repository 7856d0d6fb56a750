"""Training time until the first scoring: a probe that ends before shows nothing of its curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from search_spaces import Configuration
from tuner.search.state import SearchState


@dataclass(frozen=True, kw_only=True)
class FirstScores:
    """When the started runs were first scored.

    Args:
        seconds: Median training seconds until the first scoring of those that have one; where none has, those
            of the run that was trained longest; 0 if none was started.
        is_unscored: Which candidates have a run without a scoring, `(num,)`.
    """

    seconds: float
    is_unscored: npt.NDArray[np.bool_]


def first_scores(state: SearchState, configurations: Sequence[Configuration]) -> FirstScores:
    """The first scores of a state's runs; a scoring of the untrained model does not count.

    Args:
        state: What was measured.
        configurations: The candidates.
    """
    seconds, unscored_seconds, unscored = [], [], set()
    for run in state.runs.values():
        curve = run.measurement.trained_curve
        if curve:
            seconds.append(curve[0].training_seconds)
        else:
            unscored_seconds.append(run.measurement.training_seconds)
            unscored.add(run.configuration)
    return FirstScores(
        seconds=float(np.median(seconds)) if seconds else max(unscored_seconds, default=0.0),
        is_unscored=np.array([configuration in unscored for configuration in configurations], dtype=bool),
    )
