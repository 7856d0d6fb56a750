"""Time to target of every candidate, as the policy weighs it."""

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

#: Logarithm of the seconds of what is never reached.
NEVER = 600.0
#: Equally probable parts of a candidate's draws.
_NUM_PARTS = 40
#: Something always remains of a run, as share of the whole.
_MOST_DONE = 1.0 - 1e-6


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
class Prospects:
    """What is believed of every candidate's time to target, and how far its run is.

    Args:
        configurations: The candidates.
        log_seconds: Equally probable values of log seconds to target were it to arrive, `(num, num_parts)`.
        status: How far the candidates' runs are.
        seconds_per_sample: Median, `(num,)`.
        log_seconds_sd: Standard deviation of log seconds a sample, `(num,)`.
        reach: Chance that any candidate reaches the target.
        may_lead: Which candidates may be preferred to a run that arrived: those whose own run has left its
            start, `(num,)`.
        draws: Joint draws of log seconds to target were it to arrive, `(num_draws, num)`.
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
        """Mean of log seconds to target, `(num,)`; infinite where a run ended without arriving."""
        return np.where(self.status.ended, np.inf, self.log_seconds.mean(axis=1))

    @cached_property
    def variance_log(self) -> Array:
        """Variance of log seconds to target, `(num,)`."""
        return np.asarray(self.log_seconds.var(axis=1))

    def narrowed(self, factors: Array) -> Prospects:
        """The same with variances of log seconds multiplied by factors from 0 to 1, `(num,)`."""
        middle = self.log_seconds.mean(axis=1, keepdims=True)
        scaled = middle + np.sqrt(factors)[:, None] * (self.log_seconds - middle)
        return replace(self, log_seconds=scaled)

    def less(self, share: float) -> Prospects:
        """The same less a share of what each run has trained already."""
        if share == 0.0:
            return self
        done = np.minimum(share * self.status.seconds[:, None] / np.exp(self.log_seconds), _MOST_DONE)
        return replace(self, log_seconds=self.log_seconds + np.log1p(-done))

    def shared_with(self, index: int) -> Array:
        """Share of each candidate's variance of log seconds that it has in common with one, `(num,)`.

        What makes both late is no reason to prefer either of them.
        """
        shared = squared_correlation(self.draws, self.draws[:, [index]])
        shared[index] = 0.0
        return shared


def reach_of_list(status: RunStatus) -> float:
    """Chance that any candidate reaches the target, where those without a chance of their own are alike.

    The share of candidates that never arrive has Jeffreys' prior, Beta(1/2, 1/2). If n runs are known never
    to arrive, none of m other candidates arrives with probability B(n + m + 1/2, 1/2) / B(n + 1/2, 1/2).
    """
    alike = (status.never == status.never_of_others) & ~status.ended
    never = np.where(status.ended, 1.0, status.never)[~alike]
    num_never, num_alike = float(never.sum()), int(alike.sum())
    none_of_them = math.exp(betaln(num_never + num_alike + 0.5, 0.5) - betaln(num_never + 0.5, 0.5))
    return 1.0 - none_of_them * float(never.prod())


def prospects_of(
    forecast: Forecast, status: RunStatus, may_lead: npt.NDArray[np.bool_], reach: float
) -> Prospects:
    """Prospects by joint draws.

    Args:
        forecast: The draws.
        status: How far the candidates' runs are.
        may_lead: See `Prospects`.
        reach: See `Prospects`.
    """
    draws = np.minimum(forecast.log_seconds, NEVER)
    middles = (np.arange(_NUM_PARTS) + 0.5) / _NUM_PARTS
    # No run is seen to arrive before its next score.
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
    """Of each pair of columns, 0 where one does not vary, `(num,)`."""
    left, right = left - left.mean(axis=0), right - right.mean(axis=0)
    product = (left**2).sum(axis=0) * (right**2).sum(axis=0)
    across = (left * right).sum(axis=0) ** 2
    found = np.divide(across, product, out=np.zeros_like(product), where=product > 1e-18)
    return np.asarray(np.minimum(found, 1.0))  # rounding may exceed 1


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
