"""Predicts the training time to the target, as posterior samples.

The time is the seconds per sample times the number of samples to target. The posterior samples (draws) are
joint: row i of all configurations belongs to the same values of the models' parameters. Errors that two
configurations have in common therefore cancel when the two are compared.
"""

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

#: Strides of permutations of the posterior samples; coprime to `NUM_DRAWS`.
_COPRIME, _OTHER_COPRIME = 61, 97


@dataclass(frozen=True, kw_only=True)
class RunState:
    """How far a started run has come, for predictions of its remaining time.

    Args:
        configuration: The configuration of the run.
        index: Index of the run in the list that the samples model was fitted to.
        samples: Number of samples processed so far.
        training_seconds: Seconds of training so far, without pauses and evaluations.
        samples_to_target: Number of samples processed when the run reached the target; None if it has not.
        seconds_to_target: Training seconds when the run reached the target; None if it has not.
        ended: Whether the run failed and cannot be resumed.
        is_timed: Whether `training_seconds` were measured on the cluster whose times are predicted.
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
    """Predicted training time and number of samples to target of some configurations, as posterior samples.

    Args:
        configurations: The configurations, in the order of the columns.
        log_seconds: Logarithm of the training seconds from start to target, if the target is reached.
        log_samples: Logarithm of the number of training samples from start to target, if the target is
            reached.
        never: Whether the target is never reached.
        log_speed: Logarithm of the seconds per sample, also for runs whose time to target is known.
        seconds_per_sample: Median seconds per sample, `(num_configurations,)`.
        log_seconds_sd: Standard deviation of the logarithm of seconds per sample (not of `log_seconds`),
            `(num_configurations,)`.
    """

    configurations: tuple[Configuration, ...]
    log_seconds: Array
    log_samples: Array
    never: npt.NDArray[np.bool_]
    log_speed: Array
    seconds_per_sample: Array
    log_seconds_sd: Array

    @cached_property
    def total(self) -> Array:
        """Training seconds to target, infinite if never reached, `(NUM_DRAWS, num_configurations)`."""
        return np.where(self.never, np.inf, np.exp(np.minimum(self.log_seconds, 600.0)))

    @cached_property
    def samples(self) -> Array:
        """Number of training samples to target, infinite if never, `(NUM_DRAWS, num_configurations)`."""
        return np.where(self.never, np.inf, np.exp(np.minimum(self.log_samples, 600.0)))

    def quantile(self, level: float) -> Array:
        """Returns a quantile of the training seconds from start to target, `(num_configurations,)`.

        Posterior samples in which the target is never reached are left out. The quantile is infinite for a
        configuration that reaches the target in no posterior sample.

        Args:
            level: Level of the quantile, in [0, 1).
        """
        ordered = np.sort(self.total, axis=0)
        position = (level * np.isfinite(ordered).sum(axis=0)).astype(int)
        return np.asarray(ordered[position, np.arange(ordered.shape[1])], dtype=float)

    def probability_of_reaching(self) -> Array:
        """Returns the share of posterior samples in which the target is reached, `(num_configurations,)`."""
        return np.asarray(1.0 - self.never.mean(axis=0), dtype=float)


@dataclass(frozen=True, kw_only=True)
class Chances:
    """Probabilities that runs never reach the target.

    Args:
        of_runs: Maps the key (`run_key`) of each started run to its probability of never reaching the target.
            The key is the part of the configuration that affects the number of samples to target.
        of_others: This probability for every configuration that was not started.
        edge: How likely training breaks down at each learning rate. It applies to configurations that were
            not started; None if unknown.
    """

    of_runs: Mapping[Configuration, float]
    of_others: float
    edge: RateEdge | None = None


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """Predicts training seconds to target, from a model of speed and a model of samples to target.

    Args:
        seconds: The model of seconds per sample.
        samples: The main model of samples to target; reports and studies use this one.
        chances: Probabilities of never reaching the target.
        runs: Maps the key (`run_key`) of each started run (see `Chances`) to how far the run has come.
        other: A second model of samples to target; None to use `samples` only.
        weight_of_other: Share of the posterior samples that are taken from `other` instead of `samples`, in
            [0, 1].
        devices_per_node: Ranks on one node; it converts nodes to ranks.
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
        """Predicts time and number of samples to target of some configurations, as joint posterior samples.

        For a started run, the seconds that it has already trained are known; only the remaining samples are
        predicted.

        Args:
            configurations: The configurations to predict, `(num_configurations,)`.
            statistics: The key (`run_key`) of each configuration: configurations with the same key train
                alike and differ only in speed, `(num_configurations,)`.
            rng: Random generator of the posterior samples.
        """
        kinds = list(dict.fromkeys(statistics))
        places = {kind: place for place, kind in enumerate(kinds)}
        kind_of = np.array([places[kind] for kind in statistics], dtype=np.intp)
        # With separate generators, each quantity has the same posterior samples at every decision of a
        # search.
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
            log_speed=speeds.draws,
            seconds_per_sample=np.exp(speeds.mean),
            log_seconds_sd=speeds.sd,
        )

    def _log_samples(self, kinds: Sequence[Configuration], rng: np.random.Generator) -> Array:
        """Predicts the logarithm of samples to target, as joint posterior samples, `(NUM_DRAWS, num_kinds)`.

        The prediction is made under the condition that the target is reached.
        """
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
        """Decides for each posterior sample whether a run never reaches the target, `(NUM_DRAWS, num_kinds)`.

        Whether one run reaches the target is independent of whether another run does, with one exception: the
        learning rate above which training breaks down (`Chances.edge`) is the same for all runs.
        """
        chances = self.chances_of(kinds)
        # Each column is permuted, so whether a run never reaches the target is independent of its samples.
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
        """Returns the probability that each run never reaches the target, `(num_kinds,)`.

        The result does not include that training breaks down at large learning rates (`Chances.edge`).

        Args:
            kinds: The key (`run_key`) of each run to predict, `(num_kinds,)`.
        """
        return np.array([self._chance(kind) for kind in kinds], dtype=float)

    def _chance(self, kind: Configuration) -> float:
        run = self.runs.get(kind)
        if run is not None and (run.ended or run.samples_to_target is not None):
            return float(run.samples_to_target is None)
        return self.chances.of_runs.get(kind, self.chances.of_others)


def _later(draws: Array, least: float) -> Array:
    """Raises predictions of the samples to target to at least the number that the run has processed.

    The run has not reached its target yet, so it needs more samples than it has processed.

    Args:
        draws: Posterior samples of the logarithm of samples to target, `(NUM_DRAWS,)`.
        least: Logarithm of the number of samples that the run has processed.
    """
    return np.maximum(draws, least + 0.01)
