"""Predictions with beliefs set by hand, for what is computed from them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from scipy.special import ndtri

from search_spaces import Configuration
from tuner.analytic.predictor import Chances, Forecast, Predictor, RunState
from tuner.analytic.quasi_random import NUM_DRAWS
from tuner.analytic.speeds import Speeds
from tuner.search.prospects import Prospects, RunStatus, prospects_of, reach_of_list

#: Log seconds a sample of every candidate, where a test says nothing else.
SECONDS_MEAN = -20.0


@dataclass(frozen=True)
class Stated:
    """A forecaster of independent normals, each with the same even draws in an order of its own."""

    mean: np.ndarray
    sd: np.ndarray

    def log_samples_draws(
        self, kinds: Sequence[Configuration], runs: Sequence[int | None], rng: np.random.Generator
    ) -> np.ndarray:
        rows = [kind.nodes - 1 for kind in kinds]
        even = ndtri((np.arange(NUM_DRAWS) + 0.5) / NUM_DRAWS)
        order = np.stack([np.random.default_rng(row).permutation(NUM_DRAWS) for row in rows], axis=1)
        return np.asarray(self.mean[rows] + self.sd[rows] * even[order])

    def speeds(self, configurations: Sequence[Configuration], rng: np.random.Generator) -> Speeds:
        rows = [configuration.nodes - 1 for configuration in configurations]
        draws = self.log_samples_draws(configurations, [None] * len(rows), rng)
        return Speeds(mean=self.mean[rows], sd=self.sd[rows], draws=draws)


def made_forecast(
    mean: Sequence[float],
    sd: Sequence[float],
    *,
    elapsed: Mapping[int, float] | None = None,
    arrived: Mapping[int, float] | None = None,
    ended: Sequence[int] = (),
    seconds_mean: float = SECONDS_MEAN,
    never: Mapping[int, float] | None = None,
    never_of_others: float = 0.0,
) -> Forecast:
    """What is forecast of candidates on 1, 2, ... nodes.

    Args:
        mean: Of log seconds to target.
        sd: Their standard deviations.
        elapsed: Training seconds of begun runs, by candidate.
        arrived: Seconds to target, by candidate.
        ended: Candidates whose run ended without arriving.
        seconds_mean: The part of `mean` that is log seconds a sample, the same for all.
        never: Chances never to arrive, by candidate.
        never_of_others: That of the other candidates.
    """
    num = len(mean)
    candidates = tuple(Configuration(nodes=i + 1) for i in range(num))
    clock = {**(arrived or {}), **(elapsed or {})}
    runs = {
        candidates[i]: RunState(
            configuration=candidates[i],
            index=i,
            samples=round(seconds * math.exp(-seconds_mean)),
            training_seconds=seconds,
            samples_to_target=round(arrived[i] * math.exp(-seconds_mean)) if i in (arrived or {}) else None,
            seconds_to_target=(arrived or {}).get(i),
            ended=i in ended,
        )
        for i, seconds in clock.items()
    }
    predictor = Predictor(
        seconds=cast(Any, Stated(np.full(num, seconds_mean), np.zeros(num))),
        samples=cast(Any, Stated(np.array(mean, dtype=float) - seconds_mean, np.array(sd, dtype=float))),
        chances=Chances(
            of_runs={candidates[i]: chance for i, chance in (never or {}).items()}, of_others=never_of_others
        ),
        runs=runs,
    )
    return predictor.forecast(candidates, candidates, np.random.default_rng(0))


def made_prospects(
    mean: Sequence[float], sd: Sequence[float], *, earliest: Mapping[int, float] | None = None, **more: Any
) -> Prospects:
    """The prospects of candidates on 1, 2, ... nodes.

    Args:
        mean: As for `made_forecast`.
        sd: Likewise.
        earliest: Training seconds before which nothing is seen, by candidate.
        more: Likewise.
    """
    num, forecast = len(mean), made_forecast(mean, sd, **more)

    def filled(values: Mapping[int, float], other: float) -> np.ndarray:
        return np.array([values.get(i, other) for i in range(num)], dtype=float)

    status = RunStatus(
        seconds=filled({**more.get("arrived", {}), **more.get("elapsed", {})}, 0.0),
        arrived=filled(more.get("arrived", {}), np.inf),
        ended=np.isin(np.arange(num), more.get("ended", ())),
        never=filled(more.get("never", {}), more.get("never_of_others", 0.0)),
        never_of_others=more.get("never_of_others", 0.0),
        earliest=filled(earliest or {}, 0.0),
    )
    return prospects_of(forecast, status, np.ones(num, dtype=bool), reach_of_list(status))
