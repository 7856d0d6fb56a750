"""Predicts time to target: seconds per sample times samples to target, as draws from both posteriors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from search_spaces import Configuration, traits_of
from tuner.analytic.laws import Array
from tuner.analytic.quasi_random import NUM_DRAWS, spread_normals, spread_uniforms
from tuner.analytic.samples_model import SEED_SD, SamplesModel, staleness
from tuner.analytic.step_time_model import SecondsModel


@dataclass(frozen=True, kw_only=True)
class RunState:
    """A started run: what resuming it saves.

    Args:
        configuration: What it runs with.
        index: Its place among the runs the samples model was fitted to.
        samples: Samples seen.
        training_seconds: Its training clock.
        samples_to_target: Where it crossed the target; None while it has not.
        seconds_to_target: Its training clock at the crossing; None while it has not.
        ended: Whether it broke down and cannot resume.
        is_timed: Whether its clock is that of the cluster to predict.
    """

    configuration: Configuration
    index: int
    samples: int
    training_seconds: float
    samples_to_target: float | None = None
    seconds_to_target: float | None = None
    ended: bool = False
    is_timed: bool = True


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Draws of what configurations take, `(NUM_DRAWS, num_configurations)` each.

    Args:
        configurations: What they are about, in order.
        total: Training seconds from the start to the target; infinite where it is never reached.
        samples: Samples to the target, of a started run too; infinite if it is never reached.
        seconds_per_sample: Median, `(num_configurations,)`.
        log_seconds_sd: Standard deviation of log seconds a sample, `(num_configurations,)`.
    """

    configurations: tuple[Configuration, ...]
    total: Array
    samples: Array
    seconds_per_sample: Array
    log_seconds_sd: Array

    def quantile(self, level: float) -> Array:
        """Quantiles of `total` were the target reached, `(num_configurations,)`; infinite if it never is."""
        ordered = np.sort(self.total, axis=0)
        position = (level * np.isfinite(ordered).sum(axis=0)).astype(int)
        return np.asarray(ordered[position, np.arange(ordered.shape[1])], dtype=float)

    def probability_of_reaching(self) -> Array:
        """Share of draws in which the target is reached, `(num_configurations,)`."""
        return np.asarray(np.isfinite(self.total).mean(axis=0), dtype=float)


@dataclass(frozen=True, kw_only=True)
class SlopeDraws:
    """Draws of log samples to target by the slope models.

    Args:
        kinds: Statistics (`StrategyTraits.statistics_of`) to the column of each.
        rows: Which of all draws they are, `(num,)`.
        log_samples: `(num, num_kinds)`.
    """

    kinds: Mapping[Configuration, int]
    rows: npt.NDArray[np.intp]
    log_samples: Array

    def of(self, kinds: Sequence[Configuration]) -> Array:
        """The draws of some statistics, `(num, len(kinds))`."""
        return np.asarray(self.log_samples[:, [self.kinds[kind] for kind in kinds]], dtype=float)


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """Predicts training seconds to target.

    Args:
        seconds: Seconds a sample.
        samples: Samples to target.
        runs: Started runs, by their statistics (`StrategyTraits.statistics_of`).
        slopes: Draws of samples to target by slopes, in the place of some of the law's; None for none.
    """

    seconds: SecondsModel
    samples: SamplesModel
    runs: Mapping[Configuration, RunState] = field(default_factory=dict)
    slopes: SlopeDraws | None = None

    def forecast(self, configurations: Sequence[Configuration], normals: Array) -> Forecast:
        """What configurations take, as draws that are joint over all of them.

        Args:
            configurations: Of the job's space, or others.
            normals: Independent standard normals, `(NUM_DRAWS, 2 * num_configurations)` or more.
        """
        statistics = [traits_of(c.strategy).statistics_of(c) for c in configurations]
        kinds, kind_of = _distinct(statistics)
        speeds, speed_of = _distinct([_timed_as(c) for c in configurations])
        log_samples = self._log_samples(kinds, normals[:, : len(kinds)])
        mean, covariance = self.seconds.log_seconds_per_sample(speeds)
        later = normals[:, len(kinds) : len(kinds) + len(speeds)]
        log_seconds = mean + _correlated(covariance, later)
        # The same machine at another moment: shared by all, since all would run at that moment.
        moment = spread_normals(NUM_DRAWS, 1) * self.seconds.between_moments_sd
        seconds_per_sample = np.exp(log_seconds + moment)[:, speed_of]
        reached = np.isfinite(log_samples)
        samples = np.where(reached, np.exp(np.minimum(log_samples, 600.0)), np.inf)[:, kind_of]
        total = samples * seconds_per_sample
        for column, (configuration, kind) in enumerate(zip(configurations, statistics, strict=True)):
            run = self.runs.get(kind)
            if run is not None and run.configuration == configuration and run.is_timed:
                left = np.maximum(samples[:, column] - run.samples, 0.0) * seconds_per_sample[:, column]
                total[:, column] = run.training_seconds + left
                if run.seconds_to_target is not None:
                    total[:, column] = run.seconds_to_target
        speeds_sd = np.sqrt(np.maximum(np.diag(covariance), 0.0))
        return Forecast(
            configurations=tuple(configurations),
            total=total,
            samples=samples,
            seconds_per_sample=np.exp(mean)[speed_of],
            log_seconds_sd=speeds_sd[speed_of],
        )

    def _log_samples(self, kinds: Sequence[Configuration], normals: Array) -> Array:
        """Draws of log samples to target `(NUM_DRAWS, num_kinds)`, infinite where never.

        A started run and its neighbors are drawn jointly: if it is late, so are they.
        """
        model, arrivals = self.samples, self.samples.arrivals
        started = [self.runs.get(kind) for kind in kinds]
        mean, covariance = model.log_samples(kinds, [run.index if run else None for run in started])
        draws = mean + _correlated(covariance, normals) + arrivals.common[:, None]
        if self.slopes is not None:
            draws[self.slopes.rows] = self.slopes.of(kinds)
        seeds = spread_normals(NUM_DRAWS, 1)[:, 0]
        uniforms = spread_uniforms(NUM_DRAWS, 3)
        is_unreachable = arrivals.unreachable_elsewhere
        edges = model.edge.draws(uniforms[:, 0])
        stale = staleness(kinds, model.devices_per_node)
        lower = model.edge.shift_draws(edges, spread_uniforms(NUM_DRAWS, 4)[:, 3])
        new = np.flatnonzero([run is None for run in started])
        # The same draws of the seed for all, each configuration beginning at another one.
        places = (np.arange(NUM_DRAWS)[:, None] - 7 * new) % NUM_DRAWS
        log_rates = np.log(
            [kind.learning_rate for kind, run in zip(kinds, started, strict=True) if run is None]
        )
        beyond = log_rates > edges[:, None] - stale[new] * lower[:, None]
        never = beyond | (uniforms[:, 1] < is_unreachable)[:, None]
        draws[:, new] = np.where(never, np.inf, draws[:, new] + SEED_SD * seeds[places])
        for column, run in enumerate(started):
            if run is None:
                continue
            if run.samples_to_target is not None:
                draws[:, column] = np.log(max(run.samples_to_target, 1.0))
            elif run.ended:
                draws[:, column] = np.inf
            else:
                # A run that has not arrived yet arrives later than now.
                seen = np.log(max(run.samples, 1)) + 0.01
                draws[:, column] = np.maximum(draws[:, column], seen)
                never = uniforms[:, 2] < arrivals.unreachable[run.index]
                draws[never, column] = np.inf
        return draws


@lru_cache(maxsize=8192)
def _timed_as(configuration: Configuration) -> Configuration:
    """The axes that seconds a sample depend on."""
    return configuration.without("learning_rate")


def _distinct(
    configurations: Sequence[Configuration],
) -> tuple[list[Configuration], npt.NDArray[np.intp]]:
    places: dict[Configuration, int] = {}
    owner = [places.setdefault(c, len(places)) for c in configurations]
    return list(places), np.array(owner, dtype=np.intp)


def _correlated(covariance: Array, normals: Array) -> Array:
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray(normals @ (vectors * np.sqrt(np.maximum(values, 0.0))).T, dtype=float)
