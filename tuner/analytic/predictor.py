"""Predicts time to target: joint draws of seconds per sample times samples to target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from search_spaces import Configuration
from tuner.analytic.laws import Array
from tuner.analytic.quasi_random import NUM_DRAWS, spread_uniforms
from tuner.analytic.rate_edge import RateEdge
from tuner.analytic.samples_model import SamplesModel, staleness
from tuner.analytic.slope_fit import SlopeFit
from tuner.analytic.step_time_model import SecondsModel

#: Coprime to the number of draws.
_COPRIME, _OTHER_COPRIME = 61, 97


@dataclass(frozen=True, kw_only=True)
class RunState:
    """A started run, which resuming would continue.

    Args:
        configuration: The configuration of the run.
        index: Index among the runs that the samples model was fitted to.
        samples: Samples seen.
        training_seconds: Seconds on the training clock.
        samples_to_target: Samples at which it reached the target; None if it has not.
        seconds_to_target: Training seconds at which it reached the target; None if it has not.
        ended: Whether it failed and cannot resume.
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
    """Draws of time and samples to target, `(NUM_DRAWS, num_configurations)` each.

    Args:
        configurations: The configurations, in order.
        log_seconds: Logarithm of training seconds from the start to the target, if it is reached.
        log_samples: Logarithm of samples from the start to the target, if it is reached.
        never: Whether the target is never reached.
        seconds_per_sample: Median seconds per sample, `(num_configurations,)`.
        log_seconds_sd: Standard deviation of log seconds per sample, `(num_configurations,)`.
    """

    configurations: tuple[Configuration, ...]
    log_seconds: Array
    log_samples: Array
    never: npt.NDArray[np.bool_]
    seconds_per_sample: Array
    log_seconds_sd: Array

    @cached_property
    def total(self) -> Array:
        """Training seconds from the start to the target; infinite if it is never reached."""
        return np.where(self.never, np.inf, np.exp(np.minimum(self.log_seconds, 600.0)))

    @cached_property
    def samples(self) -> Array:
        """Samples to the target; infinite if it is never reached."""
        return np.where(self.never, np.inf, np.exp(np.minimum(self.log_samples, 600.0)))

    def quantile(self, level: float) -> Array:
        """Quantile of `total` over draws that reach the target, `(num_configurations,)`; infinite if none."""
        ordered = np.sort(self.total, axis=0)
        position = (level * np.isfinite(ordered).sum(axis=0)).astype(int)
        return np.asarray(ordered[position, np.arange(ordered.shape[1])], dtype=float)

    def probability_of_reaching(self) -> Array:
        """Share of draws that reach the target, `(num_configurations,)`."""
        return np.asarray(1.0 - self.never.mean(axis=0), dtype=float)


@dataclass(frozen=True, kw_only=True)
class Chances:
    """Probabilities of never reaching the target.

    Args:
        of_runs: For started runs, by `run_key`.
        of_others: For every other candidate.
        edge: The learning rates at which other candidates break down; None if unknown.
    """

    of_runs: Mapping[Configuration, float]
    of_others: float
    edge: RateEdge | None = None


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """Predicts training seconds to target.

    Args:
        seconds: The model of seconds per sample.
        samples: The model of samples to target that is reported and stored.
        chances: Probabilities of never reaching the target.
        runs: Started runs, by `run_key`.
        other: A second model of samples to target, mixed with `samples`; None for none.
        weight_of_other: Probability of `other`.
        devices_per_node: Ranks on one node.
    """

    seconds: SecondsModel | SlopeFit
    samples: SamplesModel | SlopeFit
    chances: Chances
    runs: Mapping[Configuration, RunState] = field(default_factory=dict)
    other: SamplesModel | SlopeFit | None = None
    weight_of_other: float = 0.0
    devices_per_node: int = 1

    def forecast(
        self,
        configurations: Sequence[Configuration],
        statistics: Sequence[Configuration],
        rng: np.random.Generator,
    ) -> Forecast:
        """Joint draws of time and samples to target of some configurations.

        Args:
            configurations: What to predict.
            statistics: The `run_key` of each configuration, `(num_configurations,)`.
            rng: Generator of the draws.
        """
        kinds = list(dict.fromkeys(statistics))
        places = {kind: place for place, kind in enumerate(kinds)}
        kind_of = np.array([places[kind] for kind in statistics], dtype=np.intp)
        # Separate generators, so that every decision has the same draws of each quantity.
        of_samples, of_seconds = rng.spawn(2)
        log_samples = self._log_samples(kinds, of_samples)[:, kind_of]
        never = self._never(kinds)[:, kind_of]
        speeds = self.seconds.speeds(configurations, of_seconds)
        log_seconds = log_samples + speeds.draws
        for column, (configuration, kind) in enumerate(zip(configurations, statistics, strict=True)):
            run = self.runs.get(kind)
            if run is None or run.configuration != configuration or not run.is_timed:
                continue
            if run.seconds_to_target is not None:
                log_seconds[:, column] = np.log(run.seconds_to_target)
            else:
                left = np.exp(log_samples[:, column]) - run.samples
                seconds = run.training_seconds + left * np.exp(speeds.draws[:, column])
                log_seconds[:, column] = np.log(seconds)
        return Forecast(
            configurations=tuple(configurations),
            log_seconds=log_seconds,
            log_samples=log_samples,
            never=never,
            seconds_per_sample=np.exp(speeds.mean),
            log_seconds_sd=speeds.sd,
        )

    def _log_samples(self, kinds: Sequence[Configuration], rng: np.random.Generator) -> Array:
        """Joint draws of log samples to target, if it is reached, `(NUM_DRAWS, num_kinds)`."""
        started = [self.runs.get(kind) for kind in kinds]
        indexes = [run.index if run else None for run in started]
        own, others = rng.spawn(2)
        rows = np.sort(rng.permutation(NUM_DRAWS)[: round(self.weight_of_other * NUM_DRAWS)])
        draws = self.samples.log_samples_draws(kinds, indexes, own)
        if self.other is not None and len(rows):
            draws[rows] = self.other.log_samples_draws(kinds, indexes, others)[rows]
        for column, run in enumerate(started):
            if run is not None and run.samples_to_target is not None:
                draws[:, column] = np.log(max(run.samples_to_target, 1.0))
            elif run is not None:
                draws[:, column] = _later(draws[:, column], float(np.log(max(run.samples, 1))))
        return draws

    def _never(self, kinds: Sequence[Configuration]) -> npt.NDArray[np.bool_]:
        """In which draws each never reaches the target, independently, `(NUM_DRAWS, num_kinds)`."""
        chances = self.chances_of(kinds)
        # Shuffled, so that never reaching the target is independent of the draws of samples.
        starts = np.arange(len(kinds)) * _OTHER_COPRIME * 31
        order = (np.arange(NUM_DRAWS)[:, None] * _COPRIME + starts[None, :]) % NUM_DRAWS
        never = (order + 0.5) / NUM_DRAWS < chances
        edge, new = self.chances.edge, np.array([kind not in self.runs for kind in kinds])
        if edge is not None and new.any():
            edges = edge.draws(spread_uniforms(NUM_DRAWS, 3)[:, 0])
            lower = edge.shift_draws(edges, spread_uniforms(NUM_DRAWS, 4)[:, 3])
            log_rates = np.log([kind.learning_rate for kind in kinds])
            stale = staleness(kinds, self.devices_per_node)
            never |= new & (log_rates > edges[:, None] - stale * lower[:, None])
        return never

    def chances_of(self, kinds: Sequence[Configuration]) -> Array:
        """Probability of never reaching the target, without break-downs (`Chances.edge`), `(num_kinds,)`."""
        return np.array([self._chance(kind) for kind in kinds], dtype=float)

    def _chance(self, kind: Configuration) -> float:
        run = self.runs.get(kind)
        if run is not None and (run.ended or run.samples_to_target is not None):
            return float(run.samples_to_target is None)
        return self.chances.of_runs.get(kind, self.chances.of_others)


def _later(draws: Array, least: float) -> Array:
    """Draws of a run that has not reached the target yet: it needs more samples than it has seen."""
    return np.maximum(draws, least + 0.01)
