"""Step-time model: predicts seconds per sample for any number of nodes, batch size and strategy.

Its parameters are fitted to step times that were measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from search_spaces import Configuration, traits_of
from tuner.analytic.laws import Array
from tuner.analytic.mixed_posterior import MixedPosterior, PastLaw
from tuner.analytic.quasi_random import NUM_DRAWS, correlated, shuffled_normals, spread_normals
from tuner.analytic.speeds import Speeds
from tuner.analytic.step_fit import TimedSteps, fit_steps
from tuner.analytic.step_rows import AT_HAND, EMULATED, steps_of
from tuner.domain.cluster import Cluster
from tuner.domain.measurement import Measurement


@dataclass(frozen=True, kw_only=True)
class SecondsModel:
    """The fitted step-time model, which predicts seconds per sample.

    Args:
        cluster: The cluster that the job trains on.
        posterior: The posterior of the parameters. It predicts the logarithm of the seconds in which all
            ranks together process one global batch; its inputs are rows of `Steps.inputs`.
        between_moments_sd: Standard deviation, over repeated timings of the same steps, of the logarithm of
            the measured seconds.
        num_observations: Number of slices (uninterrupted parts of a training) whose steps were timed.
    """

    cluster: Cluster
    posterior: MixedPosterior
    between_moments_sd: float
    num_observations: int

    def log_seconds_per_sample(self, configurations: Sequence[Configuration]) -> tuple[Array, Array]:
        """Predicts the logarithm of seconds per sample; returns mean `(num,)` and covariance `(num, num)`.

        Seconds per sample are the seconds in which all ranks together process one global batch, divided by
        its size.

        Args:
            configurations: The configurations to predict, `(num,)`.
        """
        mean, covariance = self.posterior.predict(steps_of(configurations, self.cluster).inputs())
        batches = np.array([c.batch_size for c in configurations], dtype=float)
        return mean - np.log(batches), covariance

    def speeds(self, configurations: Sequence[Configuration], rng: np.random.Generator) -> Speeds:
        """Predicts the logarithm of the seconds per sample of configurations.

        Args:
            configurations: The configurations to predict.
            rng: Random generator that draws the posterior samples.

        Returns:
            For each configuration the mean, the standard deviation and `NUM_DRAWS` posterior samples.
        """
        places: dict[Configuration, int] = {}
        timed_as = [places.setdefault(c.without("learning_rate"), len(places)) for c in configurations]
        mean, covariance = self.log_seconds_per_sample(list(places))
        draws = mean + correlated(covariance, shuffled_normals(rng, len(places)))
        # All configurations have the same deviation between repeated timings, since all would run at the same
        # time.
        draws = draws + spread_normals(NUM_DRAWS, 1) * self.between_moments_sd
        sd = np.sqrt(np.maximum(np.diag(covariance), 0.0))
        return Speeds(mean=mean[timed_as], sd=sd[timed_as], draws=draws[:, timed_as])

    def shifted(self, unknowns: Sequence[str], change: float) -> SecondsModel:
        """Returns a copy of the model in which a constant is added to some parameters.

        The fitted residual (the smooth deviation from the formula) stays the same.

        Args:
            unknowns: Names of the parameters to which the constant is added.
            change: The constant, on the scale on which the formula uses the parameters (often a logarithm).
        """
        return replace(self, posterior=self.posterior.moved(unknowns, change))

    def parameters(self) -> dict[str, tuple[float, float]]:
        """Returns the posterior mean and standard deviation of each parameter; the keys are the names."""
        return self.posterior.parameter_values()

    def findings(self) -> dict[str, object]:
        """Returns facts about the fit that are stored with a study, such as the weights of the priors."""
        return {**self.posterior.findings(), "sentences": self.summary()}

    def summary(self) -> list[str]:
        """Returns sentences for the user on the measured and predicted step times."""
        if self.num_observations == 0:
            return ["No step was timed yet, so predicted seconds are guesses from the priors."]
        theta = {name: value for name, (value, _) in self.parameters().items()}
        lines = [
            f"A step takes {1000 * math.exp(theta['log fixed compute seconds']):.2g} ms plus "
            f"{1e6 * math.exp(theta['log compute (seconds per sample)']):.3g} µs per sample of a rank. "
            f"The steps of {self.num_observations} slices were timed; predictions of them have a typical "
            f"error of {100 * self.posterior.rms:.0f}%.",
            f"Repeated timings of the same steps differ by {100 * self.between_moments_sd:.0f}%.",
        ]
        return lines + self.posterior.sentences()


def fit_seconds(
    measurements: Sequence[Measurement],
    cluster: Cluster,
    parameter_bytes: int,
    *,
    strategies: Sequence[str] = (),
    past: PastLaw | None = None,
) -> SecondsModel:
    """Fits the step-time model to all measurements in which steps were timed.

    Args:
        measurements: Measurements of slices (uninterrupted parts of a training); those without step times are
            skipped.
        cluster: The cluster that the slices ran on.
        parameter_bytes: Bytes of the model's parameters; 0 if unknown, see `fit_steps`.
        strategies: Names of the strategies to predict, in addition to those that were timed.
        past: Values of the parameters in past studies; ignored for a cluster that is emulated (ranks are
            trained on this host under a virtual clock).
    """
    timed = [m for m in measurements if m.step_seconds is not None and m.step_seconds.median > 0]
    posterior, between = fit_steps(
        _timed_steps(timed, cluster), cluster, parameter_bytes, strategies=strategies, past=past
    )
    return SecondsModel(
        cluster=cluster,
        posterior=posterior,
        between_moments_sd=between,
        num_observations=len(timed),
    )


def _timed_steps(measurements: Sequence[Measurement], cluster: Cluster) -> TimedSteps:
    """Returns the measured step times, one entry per measurement."""
    where = None
    if cluster.at_hand is not None:
        where = np.array([EMULATED if m.emulated else AT_HAND for m in measurements])
    spreads = [m.step_seconds for m in measurements if m.step_seconds is not None]
    return TimedSteps(
        steps=steps_of([m.configuration for m in measurements], cluster, where),
        seconds=np.array([m.batch_seconds for m in measurements], dtype=float),
        own_sd=np.array([s.std / s.mean / math.sqrt(s.count) for s in spreads], dtype=float),
        wait_seconds=np.array([_wait_seconds(m) for m in measurements], dtype=float),
    )


def _wait_seconds(measurement: Measurement) -> float:
    """Returns the mean seconds per step in which a rank waits for an all-reduce; NaN if unknown.

    It is the seconds of a step minus a rank's compute. A slice of a user's script has no measured waits.
    """
    traits = traits_of(measurement.configuration.strategy)
    ranks, seconds = measurement.ranks, measurement.batch_seconds
    if traits.exchanged != "gradients" or not traits.barrier or seconds is None:
        return math.nan
    if not any(rank.sync.mean > 0 for rank in ranks):
        return math.nan
    busy = sum(rank.count * (rank.step.mean - rank.sync.mean) for rank in ranks)
    return seconds - busy / sum(rank.count for rank in ranks)
