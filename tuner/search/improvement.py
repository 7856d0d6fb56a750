"""Acquisition function: expected improvement over the incumbent per cost, for slices that pay for themselves.

Let T be a candidate's time to target, I the incumbent's, and e the seconds that the candidate's run has
trained. The candidate's score is

    E[(log I - log T)+ | T > e]  /  (E[min(T, I) - e | T > e] x price + start-up)

Numerator and denominator cover the same time span, so resuming a run competes directly with starting a new
one. The incumbent competes too: with log I the mean of log T, its score grows with its uncertainty.

A slice pays for itself if

    n E[(I - m)+]  >  cost of the slice

where n is the number of trainings that will use the answer, and m is the cost of a training with the
candidate as predicted after the slice (knowledge gradient; Frazier et al. 2008). A single slice may show too
little although several would pay for themselves, so the best rate over several slices counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from tuner.analytic.curve_template import variance_after
from tuner.search.prospects import NEVER, Prospects

Array = npt.NDArray[np.float64]

#: Cap on the variance of log cost. The recommended candidate minimizes the mean of log cost plus half of this
#: variance, which is the log of the mean of a lognormal cost.
_MOST_VARIANCE = 4.0
#: A configuration keeps the goal's limits if it does so with more than this probability.
_KEEPS_DEADLINE = 0.5
#: Penalty on the log cost of a candidate that surely exceeds the limits, if no candidate keeps them.
_FAR_BEYOND = 10.0
#: A candidate is preferred to a run that reached the target if it is cheaper by this number of standard
#: deviations (probability 90%).
_SURELY_CHEAPER = 1.28
#: Numbers of slices over which the best rate of return is searched.
_AHEAD = (1.0, 4.0, 16.0, 64.0, 256.0)
#: Smaller gains in log cost are rounding errors.
_ROUNDING = 1e-9
#: Maximum share of its predicted length that a run without the target counts as trained.
_LARGEST_SHARE = 0.98


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Costs of the candidates in the goal's unit, `(num,)` each.

    Args:
        price: Cost of a second of training.
        probing: Cost of a training second in a probe.
        fixed: Fixed cost of the next slice: start-up and repeated training.
        credit: Share of a run's training so far that each training of the answer does not have to repeat, a
            number.
        log_longest: Logarithm of the longest allowed training, in seconds.
    """

    price: Array
    probing: Array
    fixed: Array
    credit: float
    log_longest: Array


@dataclass(frozen=True, kw_only=True)
class Weights:
    """The acquisition of every candidate.

    Args:
        incumbent: Index of the candidate with the smallest expected cost.
        log_incumbent: Logarithm of the expected cost of one training with the incumbent.
        score: Expected improvement divided by cost; 0 if nothing can be gained, `(num,)`.
        saving: Largest expected saving per training of the answer over the tried numbers of slices, in the
            goal's unit, `(num,)`.
        return_rate: Largest expected saving per training of the answer, divided by the cost of the slices,
            over the tried numbers of slices, `(num,)`.
        slice_seconds: Training seconds of the next slice, `(num,)`.
    """

    incumbent: int
    log_incumbent: float
    score: Array
    saving: Array
    return_rate: Array
    slice_seconds: Array


def recommended(prospects: Prospects, price: Array, log_longest: Array) -> int:
    """Index of the candidate to recommend.

    Args:
        prospects: Time to target of every candidate.
        price: Cost of a second of each candidate, `(num,)`.
        log_longest: Logarithm of the longest training of each that is allowed, seconds, `(num,)`.
    """
    return int(np.argmin(_risks_within(prospects, price, keeps_within(prospects, log_longest))))


def proven(prospects: Prospects, price: Array, log_longest: Array, choice: int) -> int:
    """Index of the cheapest run that reached the target, unless the choice is very probably cheaper.

    Args:
        prospects: Time to target of every candidate.
        price: Cost of a second of each candidate, `(num,)`.
        log_longest: Logarithm of the longest training of each that is allowed, seconds, `(num,)`.
        choice: Index of the candidate with the smallest expected cost.
    """
    log_arrived = np.log(prospects.status.arrived)
    log_cost = np.where(log_arrived <= log_longest, log_arrived, np.inf) + np.log(price)
    best = int(np.argmin(log_cost))
    if not np.isfinite(log_cost[best]):
        return choice
    upper = prospects.mean_log[choice] + np.log(price[choice])
    upper += _SURELY_CHEAPER * math.sqrt(float(prospects.variance_log[choice]))
    return choice if upper < log_cost[best] and prospects.may_lead[choice] else best


def keeps_within(prospects: Prospects, log_longest: Array) -> Array:
    """Probability that each candidate reaches the target within its longest training, `(num,)`.

    It leaves out the probability, common to all candidates, of never reaching the target.
    """
    keeps = (prospects.log_seconds <= log_longest[:, None]).mean(axis=1)
    return np.asarray(keeps * prospects.status.likely)


def risks(prospects: Prospects, price: Array) -> Array:
    """Logarithm of the expected cost of each candidate, for a lognormal cost with capped variance, `(num,)`.

    A candidate that reaches the target with probability p counts as tried 1 / p times.
    """
    spread = 0.5 * np.minimum(prospects.variance_log, _MOST_VARIANCE)
    with np.errstate(divide="ignore"):
        return np.asarray(prospects.mean_log + np.log(price) + spread - np.log(prospects.status.likely))


def weigh(prospects: Prospects, costs: Costs, slice_seconds: Callable[[float], Array]) -> Weights:
    """Evaluates the acquisition of every candidate.

    Args:
        prospects: Time to target of every candidate.
        costs: Costs of the candidates.
        slice_seconds: Returns the training seconds of each candidate's next slice, `(num,)`, given the
            logarithm of the incumbent's expected cost.
    """
    log_price = np.log(costs.price)
    keeps = keeps_within(prospects, costs.log_longest)
    to_go = prospects.less(costs.credit)
    risk = _risks_within(to_go, costs.price, keeps)
    incumbent = proven(to_go, costs.price, costs.log_longest, int(np.argmin(risk)))
    log_best = min(float(to_go.mean_log[incumbent] + log_price[incumbent]), NEVER)
    # Uncertainty that a candidate shares with the incumbent cannot change which of them is better.
    shared = prospects.shared_with(incumbent)
    risk[incumbent] = np.inf
    shared[incumbent] = shared[int(np.argmin(risk))]
    prospects, to_go = prospects.narrowed(1.0 - shared), to_go.narrowed(1.0 - shared)
    slices = slice_seconds(log_best)
    status = prospects.status
    known = np.isfinite(status.arrived) | status.ended
    # Compare whole trainings: the remaining time of a started run says little about its configuration.
    log_cost = prospects.log_seconds + log_price[:, None]
    log_whole = min(float(prospects.mean_log[incumbent]), NEVER) + log_price[incumbent]
    better = status.likely[:, None] * np.maximum(log_whole - log_cost - _ROUNDING, 0.0)
    allowed = prospects.log_seconds <= costs.log_longest[:, None]
    gain = np.where(known, 0.0, (better * allowed).mean(axis=1))
    if not gain.any():
        # No draw improves on the incumbent within the limits, so compare without the limits.
        gain = np.where(known, 0.0, better.mean(axis=1))
    longest = np.exp(np.minimum(log_best - log_price, NEVER))[:, None]
    left = np.exp(np.minimum(prospects.log_seconds, NEVER)) - status.seconds[:, None]
    most = np.maximum(longest - status.seconds[:, None], 0.0)
    remaining = np.clip(left, 0.0, most).mean(axis=1)
    score = gain / np.maximum(remaining * costs.probing + costs.fixed, 1e-12)
    saving, rate = np.zeros(len(shared)), np.zeros(len(shared))
    for factor in _AHEAD:
        seconds = np.maximum(np.minimum(factor * slices, remaining), slices)
        sd = _resolved_sd(prospects, seconds)
        gained = _expected_saving(log_best, to_go.mean_log + log_price, sd)
        gained = np.where(gain > 0.0, status.likely * gained, 0.0)
        saving = np.maximum(saving, gained)
        # A slice ends when its run reaches the target.
        trained = np.clip(left, 0.0, seconds[:, None]).mean(axis=1)
        rate = np.maximum(rate, gained / np.maximum(trained * costs.probing + costs.fixed, 1e-12))
    return Weights(
        incumbent=incumbent,
        log_incumbent=log_best,
        score=score,
        saving=saving,
        return_rate=rate,
        slice_seconds=slices,
    )


def _risks_within(prospects: Prospects, price: Array, keeps: Array) -> Array:
    """Log expected costs, infinite for candidates that exceed the limits, `(num,)`.

    If no candidate keeps the limits, all have finite values with a penalty.
    """
    risk = risks(prospects, price)
    allowed = np.where(keeps > _KEEPS_DEADLINE, risk, np.inf)
    return allowed if np.isfinite(allowed).any() else risk + _FAR_BEYOND * (1.0 - keeps)


def _resolved_sd(prospects: Prospects, seconds: Array) -> Array:
    """Standard deviation of the change of mean log seconds that a slice is expected to cause, `(num,)`.

    A run that was trained for a share s of its length shows its log length with variance r(s)
    (`curve_template.variance_after`). Training on to the share s' adds 1 / r(s') - 1 / r(s) to the precision.

    Args:
        prospects: Time to target of every candidate.
        seconds: Training seconds of the slices, `(num,)`.
    """
    length = np.exp(np.minimum(prospects.mean_log, NEVER))
    done = prospects.status.seconds
    before = np.clip(done / length, 1e-9, _LARGEST_SHARE)
    after = np.clip((done + seconds) / length, 1e-9, _LARGEST_SHARE)
    known = np.where(prospects.status.started, 1.0 / variance_after(before), 0.0)
    variance = np.maximum(prospects.variance_log, 1e-12)
    left = 1.0 / (1.0 / variance + np.maximum(1.0 / variance_after(after) - known, 0.0))
    return np.asarray(np.sqrt(np.maximum(variance - left, 1e-12)))


def _expected_saving(log_best: float, mean_log: Array, sd: Array) -> Array:
    """E[(I - X)+] with log X normal, as the price of a put (Black and Scholes 1973), `(num,)`.

    Args:
        log_best: log I.
        mean_log: Mean of log X, `(num,)`.
        sd: Standard deviation of log X, above 0, `(num,)`.
    """
    mean_log = np.minimum(mean_log, NEVER)
    z = (log_best - mean_log) / sd
    mean = np.exp(np.minimum(mean_log + 0.5 * sd**2, NEVER))
    return np.asarray(np.maximum(math.exp(log_best) * ndtr(z) - mean * ndtr(z - sd), 0.0))
