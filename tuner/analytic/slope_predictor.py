"""Predicts time to target over any axes: slopes of seconds and of samples, and all started runs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from search_spaces import Configuration
from tuner.analytic.laws import Array
from tuner.analytic.mixed_posterior import unknown_sentences, weights_sentence
from tuner.analytic.predictor import Forecast
from tuner.analytic.quasi_random import NUM_DRAWS, spread_uniforms
from tuner.analytic.slopes import SlopeModel

#: Middles of equally probable parts of a standard normal.
_NUM_PARTS = 40
PARTS = np.array([NormalDist().inv_cdf((k + 0.5) / _NUM_PARTS) for k in range(_NUM_PARTS)])
_UNBEGUN = -50.0
#: Spread of arrivals that are all expected at the next score.
_AT_ONCE_SD = 1e-4


@dataclass(frozen=True, kw_only=True)
class SlopeFit:
    """One quantity's slopes, for people and for the ledger.

    Args:
        quantity: `seconds a sample` or `samples to target`.
        names: Of the slopes, `intercept` first.
        model: The posterior.
    """

    quantity: str
    names: tuple[str, ...]
    model: SlopeModel

    @property
    def between_moments_sd(self) -> float:
        """What repeating the same thing differs by: standard deviation of the logarithm."""
        return self.model.own_sd

    def summary(self) -> list[str]:
        """What was learnt, in sentences."""
        pairs = zip(self.names[1:], self.model.slopes[1:], self.model.slopes_sd[1:], strict=True)
        found = [f"{name} {slope:+.2f} ({sd:.2f})" for name, slope, sd in pairs]
        lines = [weights_sentence(self.model.weights)]
        if found:
            lines.insert(
                0, f"Change of log {self.quantity} with each unit (standard deviation): {', '.join(found)}."
            )
        return lines + unknown_sentences(self.at_prior())

    def parameters(self) -> dict[str, tuple[float, float]]:
        """Slopes and their standard deviations, by name."""
        values = zip(self.names, self.model.slopes, self.model.slopes_sd, strict=True)
        return {name: (float(slope), float(sd)) for name, slope, sd in values}

    def findings(self) -> dict[str, object]:
        """What else is stored with the fit."""
        return {"at_prior": self.at_prior(), "sentences": self.summary()}

    def at_prior(self) -> list[str]:
        """Names of the slopes that the observations left where the priors had them."""
        widths = np.max([part.component.prior.sd for part in self.model.parts], axis=0)
        known = zip(self.names, self.model.slopes_sd, widths, strict=True)
        return [name for name, sd, width in known if sd > 0.9 * width]


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """How far the candidates' runs are.

    Args:
        seconds: Training seconds of each run, 0 if none was started, `(num,)`.
        arrived: Training seconds to target, infinite if none arrived, `(num,)`.
        ended: Whether a run ended without arriving, `(num,)`.
        never: Chance that a candidate never arrives, though it may be trained on, `(num,)`.
        never_of_others: The same of a candidate without a score.
        earliest: Training seconds before which no candidate can be seen to arrive: its next score, `(num,)`.
    """

    seconds: Array
    arrived: Array
    ended: npt.NDArray[np.bool_]
    never: Array
    never_of_others: float
    earliest: Array

    @property
    def next_score(self) -> Array:
        """Training seconds that each candidate still needs until its next score, `(num,)`."""
        return np.asarray(self.earliest - self.seconds, dtype=float)

    @property
    def likely(self) -> Array:
        """Factor of each candidate's gain: how much less likely than another one it is to arrive, `(num,)`.

        The chance that candidates have in common is no reason to prefer one of them.
        """
        return np.asarray(1.0 - np.maximum(self.never - self.never_of_others, 0.0), dtype=float)

    @property
    def started(self) -> npt.NDArray[np.bool_]:
        """Whether a run was started, `(num,)`."""
        return np.asarray(self.seconds > 0.0)


@dataclass(frozen=True, kw_only=True)
class LawOfSamples:
    """What the law of batch size and learning rate says of every candidate's log samples to target.

    Args:
        mean: `(num,)`.
        variance: `(num,)`.
        weight: Probability of the law beside the slopes.
    """

    mean: Array
    variance: Array
    weight: float


@dataclass(frozen=True, kw_only=True)
class SlopePredictor:
    """Log training seconds to target of every candidate: a normal, less the elapsed time.

    Args:
        configurations: The candidates.
        seconds: Log seconds a sample.
        samples: Log samples to target.
        status: How far their runs are.
        law: Mixed with the slopes of samples; None where it does not know all axes.
    """

    configurations: tuple[Configuration, ...]
    seconds: SlopeFit
    samples: SlopeFit
    status: RunStatus
    law: LawOfSamples | None = None

    @cached_property
    def log_seconds(self) -> Array:
        """Equally probable values of log seconds to target were it to arrive, `(num, num_parts)`."""
        samples, spread = self._log_samples()
        mean, variance = self.seconds.model.mean + samples, self.seconds.model.variance + spread
        arrived = np.isfinite(self.status.arrived)
        mean = np.where(arrived, np.log(np.where(arrived, self.status.arrived, 1.0)), mean)
        sd = np.where(arrived, 1e-4, np.sqrt(variance))
        # No run is seen to arrive before its next score.
        least = np.where(arrived, _UNBEGUN, np.log(np.maximum(self.status.earliest, 1e-12)))
        found = mean[:, None] + sd[:, None] * PARTS
        return np.asarray(np.maximum(found, least[:, None] + _AT_ONCE_SD * PARTS))

    def _log_samples(self) -> tuple[Array, Array]:
        """Mean and variance of log samples to target, `(num,)` each, by slopes and law."""
        mean, variance, law = self.samples.model.mean, self.samples.model.variance, self.law
        if law is None:
            return mean, variance
        mixed = (1 - law.weight) * mean + law.weight * law.mean
        by_slopes = variance + (mean - mixed) ** 2
        by_law = law.variance + (law.mean - mixed) ** 2
        return mixed, (1 - law.weight) * by_slopes + law.weight * by_law

    @cached_property
    def weights(self) -> Array:
        """Probabilities of `log_seconds`: a run in progress has not arrived yet, `(num, num_parts)`."""
        started, arrived = self.status.started, np.isfinite(self.status.arrived)
        elapsed = np.where(started, np.log(np.maximum(self.status.seconds, 1e-12)), _UNBEGUN)
        weights = ((self.log_seconds > elapsed[:, None]) | arrived[:, None]).astype(float)
        overdue = weights.sum(axis=1) == 0
        weights[overdue, -1] = 1.0
        self.log_seconds[overdue, -1] = elapsed[overdue] + 0.2
        return np.asarray(weights / weights.sum(axis=1, keepdims=True))

    def forecast(self) -> Forecast:
        """Draws of all candidates, each by itself."""
        num = len(self.configurations)
        weights = np.cumsum(self.weights, axis=1)
        # One of two dimensions: another set is as even, but would change every seeded bound and interval.
        uniforms = spread_uniforms(NUM_DRAWS, 2)[:, 0]
        # Own draws differ by a rotation of one even set.
        starts = (np.arange(num) * 97) % NUM_DRAWS
        places = (np.arange(NUM_DRAWS)[:, None] + starts[None, :]) % NUM_DRAWS
        total = np.empty((NUM_DRAWS, num))
        for i in range(num):
            part = np.minimum(np.searchsorted(weights[i], uniforms[places[:, i]]), len(PARTS) - 1)
            total[:, i] = self.log_seconds[i, part]
        # Which draws never arrive has nothing to do with when the others do.
        order = (np.arange(NUM_DRAWS)[:, None] * 61 + starts[None, :] * 31) % NUM_DRAWS
        never = (order + 0.5) / NUM_DRAWS < np.where(self.status.ended, 1.0, self.status.never)
        total = np.where(never, np.inf, np.exp(np.minimum(total, 600.0)))
        seconds = np.exp(self.seconds.model.mean)
        return Forecast(
            configurations=self.configurations,
            total=total,
            samples=total / seconds,
            seconds_per_sample=seconds,
            log_seconds_sd=np.sqrt(self.seconds.model.variance),
        )


def regret_bound(forecast: Forecast, price: Array, choice: int, level: float = 0.9) -> float:
    """With probability `level` nothing costs less than the choice over this factor, at least 1.

    Candidates count as independent given the fits, which makes the bound wider than it need be.

    Args:
        forecast: The predictions.
        price: Cost of a second of each candidate, `(num,)`.
        choice: The candidate that is compared with all.
        level: Probability, in (0, 1).
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        cost = forecast.total * price
        ratio = cost[:, choice] / cost.min(axis=1)
    ordered = np.sort(np.where(np.isnan(ratio), np.inf, ratio))
    return max(1.0, float(ordered[min(int(level * len(ordered)), len(ordered) - 1)]))
