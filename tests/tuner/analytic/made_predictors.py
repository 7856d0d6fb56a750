"""Predictors with beliefs set by hand, for what is computed from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from search_spaces import Configuration
from tuner.analytic.features import SECONDS
from tuner.analytic.slope_predictor import RunStatus, SlopeFit, SlopePredictor
from tuner.analytic.slopes import Design, SlopeModel


def believed(mean: Sequence[float], sd: Sequence[float]) -> SlopeModel:
    """A posterior of this mean and spread."""
    columns = np.ones((len(mean), 1))
    return SlopeModel(
        mean=np.array(mean, dtype=float),
        variance=np.array(sd, dtype=float) ** 2,
        slopes=np.zeros(1),
        slopes_sd=np.ones(1),
        weights={"neutral": 1.0},
        own_sd=0.0,
        parts=(),
        design=Design(columns, np.zeros((len(mean), 0)), np.zeros(0)),
        seen=SECONDS.observed(np.array([], dtype=np.intp), np.zeros(0)),
    )


def predictor(
    mean: Sequence[float],
    sd: Sequence[float],
    *,
    elapsed: Mapping[int, float] | None = None,
    arrived: Mapping[int, float] | None = None,
    ended: Sequence[int] = (),
    seconds_mean: float = 0.0,
    never: Mapping[int, float] | None = None,
    never_of_others: float = 0.0,
    earliest: Mapping[int, float] | None = None,
) -> SlopePredictor:
    """What is believed of log seconds to target.

    Args:
        mean: Of log seconds to target.
        sd: Their standard deviations.
        elapsed: Training seconds of begun runs, by candidate.
        arrived: Seconds to target, by candidate.
        ended: Candidates whose run ended without arriving.
        never: Chances never to arrive, by candidate.
        never_of_others: That of the other candidates.
        earliest: Training seconds before which nothing is seen, by candidate.
        seconds_mean: The part of `mean` that is log seconds a sample, the same for all.
    """
    num = len(mean)

    def filled(values: Mapping[int, float] | None, other: float) -> np.ndarray:
        return np.array([(values or {}).get(i, other) for i in range(num)], dtype=float)

    def fit(quantity: str, model: SlopeModel) -> SlopeFit:
        return SlopeFit(quantity=quantity, names=("intercept",), model=model)

    return SlopePredictor(
        configurations=tuple(Configuration(nodes=i + 1) for i in range(num)),
        seconds=fit("seconds a sample", believed([seconds_mean] * num, [0.0] * num)),
        samples=fit("samples to target", believed([m - seconds_mean for m in mean], sd)),
        status=RunStatus(
            seconds=filled({**(arrived or {}), **(elapsed or {})}, 0.0),
            arrived=filled(arrived, np.inf),
            ended=np.isin(np.arange(num), ended),
            never=filled(never, never_of_others),
            never_of_others=never_of_others,
            earliest=filled(earliest, 0.0),
        ),
    )
