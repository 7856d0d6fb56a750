"""Distribution of every candidate's time to target, as search policies use it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.special import betaln

from search_spaces import Configuration
from tuner.analytic.predictor import Forecast

Array = npt.NDArray[np.float64]

#: Log seconds that stand for never.
NEVER = 600.0
#: Number of quantiles that represent a candidate's draws.
_NUM_PARTS = 40
#: Maximum share of a run that counts as done, so that its remaining time is above 0.
_MOST_DONE = 1.0 - 1e-6


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """Progress of the candidates' runs.

    Args:
        seconds: Training seconds of each run; 0 if it has not started, `(num,)`.
        arrived: Training seconds to target; infinite if the run has not reached the target, `(num,)`.
        ended: Whether the run ended before it reached the target, `(num,)`.
        never: Probability that a candidate never reaches the target, however long it trains, `(num,)`.
        never_of_others: The same probability for a candidate without a score.
        earliest: Training seconds at the next score, the earliest time to see the target reached, `(num,)`.
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
        """Probability that each candidate reaches the target, relative to one without a score, `(num,)`.

        It is at most 1. The probability of never reaching the target that all candidates have in common is
        left out, because it is no reason to prefer one of them.
        """
        return np.asarray(1.0 - np.maximum(self.never - self.never_of_others, 0.0), dtype=float)

    @property
    def started(self) -> npt.NDArray[np.bool_]:
        """Whether a run was started, `(num,)`."""
        return np.asarray(self.seconds > 0.0)


@dataclass(frozen=True, kw_only=True)
class Prospects:
    """Distribution of every candidate's time to target, and the progress of its run.

    Args:
        configurations: The candidates.
        log_seconds: Quantiles of log seconds to target, given that the candidate reaches it,
            `(num, num_parts)`.
        status: Progress of the candidates' runs.
        seconds_per_sample: Median seconds per sample, `(num,)`.
        log_seconds_sd: Standard deviation of log seconds per sample, `(num,)`.
        reach: Probability that any candidate reaches the target.
        may_lead: Whether a candidate may be preferred to a run that reached the target: its own run must have
            improved clearly, `(num,)`.
        draws: Joint draws of log seconds to target, given that candidates reach it, `(num_draws, num)`.
    """

    configurations: tuple[Configuration, ...]
    log_seconds: Array
    status: RunStatus
    seconds_per_sample: Array
    log_seconds_sd: Array
    reach: float
    may_lead: npt.NDArray[np.bool_]
    draws: Array

    @cached_property
    def mean_log(self) -> Array:
        """Mean of log seconds to target; infinite if the run ended before the target, `(num,)`."""
        return np.where(self.status.ended, np.inf, self.log_seconds.mean(axis=1))

    @cached_property
    def variance_log(self) -> Array:
        """Variance of log seconds to target, `(num,)`."""
        return np.asarray(self.log_seconds.var(axis=1))

    def narrowed(self, factors: Array) -> Prospects:
        """Copy with the variances of log seconds multiplied by factors from 0 to 1, `(num,)`."""
        middle = self.log_seconds.mean(axis=1, keepdims=True)
        scaled = middle + np.sqrt(factors)[:, None] * (self.log_seconds - middle)
        return replace(self, log_seconds=scaled)

    def less(self, share: float) -> Prospects:
        """Copy without a share of the time that each run has already trained."""
        if share == 0.0:
            return self
        done = np.minimum(share * self.status.seconds[:, None] / np.exp(self.log_seconds), _MOST_DONE)
        return replace(self, log_seconds=self.log_seconds + np.log1p(-done))

    def shared_with(self, index: int) -> Array:
        """Share of each candidate's variance of log seconds in common with one candidate, `(num,)`.

        Common uncertainty is no reason to prefer one of the two.
        """
        shared = squared_correlation(self.draws, self.draws[:, [index]])
        shared[index] = 0.0
        return shared


def reach_of_list(status: RunStatus) -> float:
    """Probability that any candidate of a recorded list reaches the target.

    Candidates without a probability of their own count as exchangeable. The share of candidates that never
    reach the target has Jeffreys' prior, Beta(1/2, 1/2). If n runs never reach it, then the probability that
    none of m other candidates reaches it is B(n + m + 1/2, 1/2) / B(n + 1/2, 1/2).
    """
    alike = (status.never == status.never_of_others) & ~status.ended
    never = np.where(status.ended, 1.0, status.never)[~alike]
    num_never, num_alike = float(never.sum()), int(alike.sum())
    none_of_them = math.exp(betaln(num_never + num_alike + 0.5, 0.5) - betaln(num_never + 0.5, 0.5))
    return 1.0 - none_of_them * float(never.prod())


def prospects_of(
    forecast: Forecast, status: RunStatus, may_lead: npt.NDArray[np.bool_], reach: float
) -> Prospects:
    """Computes prospects from the joint draws of a forecast.

    Args:
        forecast: The forecast.
        status: Progress of the candidates' runs.
        may_lead: See `Prospects`.
        reach: See `Prospects`.
    """
    draws = np.minimum(forecast.log_seconds, NEVER)
    middles = (np.arange(_NUM_PARTS) + 0.5) / _NUM_PARTS
    # The target cannot be seen to be reached before the next score.
    least = np.log(np.maximum(status.earliest, 1e-12))
    log_seconds = np.maximum(np.quantile(draws, middles, axis=0, method="hazen"), least).T
    arrived = np.isfinite(status.arrived)
    log_seconds[arrived] = np.log(status.arrived[arrived])[:, None]
    return Prospects(
        configurations=forecast.configurations,
        log_seconds=log_seconds,
        status=status,
        seconds_per_sample=forecast.seconds_per_sample,
        log_seconds_sd=forecast.log_seconds_sd,
        reach=reach,
        may_lead=may_lead,
        draws=draws,
    )


def squared_correlation(left: Array, right: Array) -> Array:
    """Squared correlation of each pair of columns; 0 if a column is constant, `(num,)`."""
    left, right = left - left.mean(axis=0), right - right.mean(axis=0)
    product = (left**2).sum(axis=0) * (right**2).sum(axis=0)
    across = (left * right).sum(axis=0) ** 2
    found = np.divide(across, product, out=np.zeros_like(product), where=product > 1e-18)
    return np.asarray(np.minimum(found, 1.0))  # rounding may exceed 1


def regret_bound(forecast: Forecast, price: Array, choice: int, level: float = 0.9) -> float:
    """Upper bound on the ratio of the choice's cost to the smallest cost of all candidates.

    Candidates count as independent given the fits, which makes the bound conservative.

    Args:
        forecast: The forecast.
        price: Cost of a second of each candidate, `(num,)`.
        choice: Index of the chosen candidate.
        level: Probability with which the bound holds, in (0, 1).

    Returns:
        The bound, at least 1.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        cost = forecast.total * price
        ratio = cost[:, choice] / cost.min(axis=1)
    ordered = np.sort(np.where(np.isnan(ratio), np.inf, ratio))
    return max(1.0, float(ordered[min(int(level * len(ordered)), len(ordered) - 1)]))
