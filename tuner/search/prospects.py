"""Forecasts of the time to target of every candidate configuration, in the form that search policies use."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from search_spaces import Configuration
from tuner.analytic.laws import Array
from tuner.analytic.predictor import Forecast

#: Logarithm of the seconds that represent "the target is never reached".
NEVER = 600.0
#: Number of quantiles that represent the posterior samples of a candidate's time to target.
_NUM_PARTS = 40
#: At most this share of a run's time to target counts as trained, so the remaining time is above 0.
_MOST_DONE = 1.0 - 1e-6


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """How far the training of every candidate configuration has come; `num` is the number of candidates.

    Args:
        seconds: Training seconds of each run so far; 0 if the run has not started, `(num,)`.
        arrived: Measured training seconds to target; infinite if the run has not reached the target,
            `(num,)`.
        ended: Whether the run ended before it reached the target, `(num,)`.
        never: Probability that a training of the candidate never reaches the target, however long it trains,
            `(num,)`.
        never_of_others: Value of `never` for a candidate whose run has no score, or has not started.
        earliest: Training seconds of each run at its next evaluation, `(num,)`. This is the earliest time at
            which an evaluation can show that the run has reached the target.
    """

    seconds: Array
    arrived: Array
    ended: npt.NDArray[np.bool_]
    never: Array
    never_of_others: float
    earliest: Array

    @property
    def next_score(self) -> Array:
        """Training seconds that each candidate still needs until its next evaluation, `(num,)`."""
        return np.asarray(self.earliest - self.seconds, dtype=float)

    @property
    def likely(self) -> Array:
        """Probability that each candidate reaches the target, without the risk common to all, `(num,)`."""
        return np.asarray(1.0 - np.maximum(self.never - self.never_of_others, 0.0), dtype=float)

    @property
    def started(self) -> npt.NDArray[np.bool_]:
        """Whether each candidate has been trained at all, `(num,)`."""
        return np.asarray(self.seconds > 0.0)


@dataclass(frozen=True, kw_only=True)
class Prospects:
    """Forecasts of the time to target of every candidate configuration, and the progress of its run.

    Args:
        configurations: The candidates, in the order of the entries of all arrays.
        log_seconds: Quantiles of the logarithm of seconds to target, given that the candidate reaches the
            target, `(num, num_parts)`.
        status: How far the training of each candidate has come.
        seconds_per_sample: Predicted median of the seconds per training sample, `(num,)`.
        log_seconds_sd: Standard deviation of the logarithm of seconds per training sample, `(num,)`.
        reach: Probability that at least one candidate reaches the target.
        may_lead: For each candidate, whether it may be recommended instead of a candidate whose run has
            reached the target. This is allowed if the run of the candidate has improved clearly since its
            first score, `(num,)`.
        draws: Posterior samples of the logarithm of seconds to target, drawn jointly for all candidates and
            on condition that they reach the target, `(num_draws, num)`.
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
        """Mean of log seconds to target of each candidate; infinite if its run ended before, `(num,)`."""
        return np.where(self.status.ended, np.inf, self.log_seconds.mean(axis=1))

    @cached_property
    def variance_log(self) -> Array:
        """Variance of the logarithm of seconds to target, `(num,)`."""
        return np.asarray(self.log_seconds.var(axis=1))

    def narrowed(self, factors: Array) -> Prospects:
        """Returns a copy in which the forecasts are less uncertain, with unchanged means.

        Args:
            factors: Factor from 0 to 1 by which the variance of each candidate's log seconds to target is
                multiplied, `(num,)`.
        """
        middle = self.log_seconds.mean(axis=1, keepdims=True)
        scaled = middle + np.sqrt(factors)[:, None] * (self.log_seconds - middle)
        return replace(self, log_seconds=scaled)

    def less(self, share: float) -> Prospects:
        """Returns a copy in which a share of the time already trained does not count to the time to target.

        Args:
            share: Share of each run's training seconds that is subtracted, from 0 to 1.
        """
        if share == 0.0:
            return self
        done = np.minimum(share * self.status.seconds[:, None] / np.exp(self.log_seconds), _MOST_DONE)
        return replace(self, log_seconds=self.log_seconds + np.log1p(-done))

    def shared_with(self, index: int) -> Array:
        """Computes how much of each candidate's uncertainty one other candidate has in common, `(num,)`.

        It is the squared correlation of their log seconds to target. Uncertainty that two candidates have in
        common does not change which of them is better.

        Args:
            index: Index of the candidate with which all others are compared; its own share is set to 0.
        """
        shared = squared_correlation(self.draws, self.draws[:, [index]])
        shared[index] = 0.0
        return shared


def reach_of_list(status: RunStatus) -> float:
    """Computes the probability that any recorded configuration reaches the target.

    Let n be the expected number of runs with scores that never reach the target, and m the number of
    candidates without scores. The latter count as exchangeable: each of them never reaches the target with
    the same unknown probability, whose prior is Beta(1/2, 1/2) (Jeffreys' prior). Then the probability that
    none of the m candidates reaches the target is B(n + m + 1/2, 1/2) / B(n + 1/2, 1/2), with the beta
    function B.

    Args:
        status: How far the training of each candidate has come.
    """
    from scipy.special import betaln

    alike = (status.never == status.never_of_others) & ~status.ended
    never = np.where(status.ended, 1.0, status.never)[~alike]
    num_never, num_alike = float(never.sum()), int(alike.sum())
    none_of_them = math.exp(betaln(num_never + num_alike + 0.5, 0.5) - betaln(num_never + 0.5, 0.5))
    return 1.0 - none_of_them * float(never.prod())


def prospects_of(
    forecast: Forecast, status: RunStatus, may_lead: npt.NDArray[np.bool_], reach: float
) -> Prospects:
    """Summarizes posterior samples of the time to target by quantiles, one set for every candidate.

    If a candidate's run has reached the target, its time to target is the measured time. Otherwise, it is not
    earlier than the next evaluation of the run.

    Args:
        forecast: Posterior samples of the time to target of all candidates.
        status: How far the training of each candidate has come.
        may_lead: Whether each candidate may be recommended instead of one whose run has reached the target,
            `(num,)`.
        reach: Probability that at least one candidate reaches the target.
    """
    draws = np.minimum(forecast.log_seconds, NEVER)
    middles = (np.arange(_NUM_PARTS) + 0.5) / _NUM_PARTS
    # A run is seen to reach the target at its next score at the earliest.
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
    """Computes the squared correlation of each column of one array with the same column of another array.

    Args:
        left: The first array, `(num_draws, num)`.
        right: The second array, `(num_draws, num)` or `(num_draws, 1)`.

    Returns:
        The squared correlations; 0 if a column is constant, `(num,)`.
    """
    left, right = left - left.mean(axis=0), right - right.mean(axis=0)
    product = (left**2).sum(axis=0) * (right**2).sum(axis=0)
    across = (left * right).sum(axis=0) ** 2
    found = np.divide(across, product, out=np.zeros_like(product), where=product > 1e-18)
    return np.asarray(np.minimum(found, 1.0))  # rounding may exceed 1


def regret_bound(forecast: Forecast, price: Array, choice: int, level: float = 0.9) -> float:
    """Computes how much more a chosen candidate may cost than the cheapest one, as an upper bound.

    It is the ratio of the two costs. Given the fitted models, the costs of two candidates are treated as
    independent, which makes the bound larger than necessary.

    Args:
        forecast: Posterior samples of the time to target of all candidates.
        price: Cost of one second of each candidate in the goal's unit, `(num,)`.
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
