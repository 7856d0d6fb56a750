"""Acquisition function: expected improvement over the incumbent, divided by the expected cost to get it.

The incumbent is the candidate with the smallest expected cost. A slice is a part of a candidate's training
that runs without interruption.

Let T be a candidate's time to target, I the incumbent's time to target, and e the time that the candidate's
run has trained so far, all in seconds. Let `price` be the cost of one second and `start-up` the cost of a
start-up, E[x | c] the mean of x under condition c, and x+ the larger of x and 0. The score of the candidate
is

    E[(log I - log T)+ | T > e]  /  (E[min(T, I) - e | T > e] x price + start-up)

Numerator and denominator are for the whole remaining training. So the scores of started runs and of new runs
can be compared. The incumbent has a score too: log I is then the mean of its log T, so its score grows with
the uncertainty of its time to target.

A slice pays for itself if

    n E[(I - m)+]  >  cost of the slice

where n is the number of trainings that will use the recommendation, I is the expected cost of a training with
the incumbent, and m is the cost of a training with the candidate that will be predicted after the slice
(knowledge gradient; Frazier et al. 2008). A single slice may reduce the uncertainty too little, although
several slices would pay for themselves. So the saving is divided by the cost for several numbers of slices,
and the largest ratio is used.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tuner.analytic.curve_template import variance_after
from tuner.analytic.laws import Array
from tuner.search.prospects import NEVER, Prospects

#: Larger variances of the logarithm of the cost are replaced by this value. The recommended candidate
#: minimizes the mean of the logarithm plus half of its variance, which is the logarithm of the mean of a
#: lognormal cost.
_MOST_VARIANCE = 4.0
#: A configuration counts as keeping the goal's deadline and dollars if it does so with more than this
#: probability.
_KEEPS_DEADLINE = 0.5
#: If no candidate keeps the goal's limits, this penalty is added to the logarithm of the cost of a candidate
#: that certainly exceeds the limits.
_FAR_BEYOND = 10.0
#: A candidate is preferred to a run that reached the target only if it is cheaper with 90% probability: the
#: logarithm of its predicted cost, plus this number of standard deviations, is below the logarithm of the
#: cost of the run.
_SURELY_CHEAPER = 1.28
#: Numbers of slices for which the ratio of saving to cost is computed; the largest ratio is used.
_AHEAD = (1.0, 4.0, 16.0, 64.0, 256.0)
#: Smaller decreases of the logarithm of the cost are rounding errors.
_ROUNDING = 1e-9
#: A run that has not reached the target counts as trained for at most this share of its predicted length.
_LARGEST_SHARE = 0.98


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Costs of the next slice of each candidate configuration, in the goal's unit (seconds or dollars).

    A slice is an uninterrupted part of a training; `num` is the number of candidates.

    Args:
        price: Cost of one second of training, `(num,)`.
        probing: Cost of one training second in a slice, including evaluation and checkpoints, `(num,)`.
        fixed: Cost of the next slice that does not depend on its length, for start-up and repeated training,
            `(num,)`.
        credit: Share of the time that a started run has trained, which each later training with its
            configuration saves on average, because the run can continue to the target.
        log_longest: Logarithm of the longest allowed training in seconds, `(num,)`.
    """

    price: Array
    probing: Array
    fixed: Array
    credit: float
    log_longest: Array


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Expected saving and cost of the next slices of every candidate configuration.

    The incumbent is the candidate with the smallest expected cost. The saving of a candidate is that of one
    training with the recommended configuration. It is computed for several numbers of further slices
    (`_AHEAD`), and the largest value is used.

    Args:
        incumbent: Index of the candidate with the smallest expected cost.
        log_incumbent: Logarithm of the expected cost of one training with the incumbent, in the goal's unit.
        score: Expected improvement divided by cost; 0 if the candidate cannot become better than the
            incumbent, `(num,)`.
        saving: Largest expected saving, in the goal's unit, `(num,)`.
        return_rate: Largest ratio of the expected saving to the cost of the slices, `(num,)`.
        slice_seconds: Training seconds of the next slice, `(num,)`.
    """

    incumbent: int
    log_incumbent: float
    score: Array
    saving: Array
    return_rate: Array
    slice_seconds: Array


def recommended(prospects: Prospects, price: Array, log_longest: Array) -> int:
    """Returns the index of the candidate with the smallest expected cost within the limits of the goal.

    Args:
        prospects: Forecasts of the time to target of every candidate configuration.
        price: Cost of one second of each candidate in the goal's unit, `(num,)`.
        log_longest: Logarithm of each candidate's longest allowed training in seconds, `(num,)`.
    """
    return int(np.argmin(risks_within(prospects, price, keeps_within(prospects, log_longest))))


def proven(prospects: Prospects, price: Array, log_longest: Array, choice: int) -> int:
    """Returns the cheapest candidate whose training reached the target, unless `choice` is surely cheaper.

    Args:
        prospects: Forecasts of the time to target of every candidate configuration.
        price: Cost of one second of each candidate in the goal's unit, `(num,)`.
        log_longest: Logarithm of each candidate's longest allowed training in seconds, `(num,)`.
        choice: Index of the candidate with the smallest expected cost.

    Returns:
        Index of a candidate. It is `choice` if no run reached the target within the limits, or if `choice` is
        cheaper than all of these runs with 90% probability and may be preferred to them
        (`Prospects.may_lead`).
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
    """Computes the probability that each candidate reaches the target before its longest allowed time.

    The result, `(num,)`, does not contain the risk that no candidate ever reaches the target, because this
    risk is the same for all (`RunStatus.likely`).

    Args:
        prospects: Forecasts of the time to target of every candidate configuration.
        log_longest: Logarithm of each candidate's longest allowed training in seconds, `(num,)`.
    """
    keeps = (prospects.log_seconds <= log_longest[:, None]).mean(axis=1)
    return np.asarray(keeps * prospects.status.likely)


def risks(prospects: Prospects, price: Array) -> Array:
    """Computes the logarithm of the expected cost to reach the target with each candidate, `(num,)`.

    The cost is assumed to have a lognormal distribution, and its variance is limited. If a candidate reaches
    the target with probability p, the expected cost is multiplied by 1 / p, as if trainings were repeated
    until one reaches the target.

    Args:
        prospects: Forecasts of the time to target of every candidate configuration.
        price: Cost of one second of each candidate in the goal's unit, `(num,)`.
    """
    spread = 0.5 * np.minimum(prospects.variance_log, _MOST_VARIANCE)
    with np.errstate(divide="ignore"):
        return np.asarray(prospects.mean_log + np.log(price) + spread - np.log(prospects.status.likely))


def weigh(prospects: Prospects, costs: Costs, slice_seconds: Callable[[float], Array]) -> Weights:
    """Computes the expected saving and cost of the next slices of every candidate configuration.

    Args:
        prospects: Forecasts of the time to target of every candidate.
        costs: Costs of the candidates.
        slice_seconds: Function that returns the training seconds of each candidate's next slice, `(num,)`.
            Its argument is the logarithm of the expected cost of the best candidate so far.
    """
    log_price = np.log(costs.price)
    keeps = keeps_within(prospects, costs.log_longest)
    to_go = prospects.less(costs.credit)
    risk = risks_within(to_go, costs.price, keeps)
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
    # Compare the times from the start to the target, not the remaining times of started runs.
    log_cost = prospects.log_seconds + log_price[:, None]
    log_whole = min(float(prospects.mean_log[incumbent]), NEVER) + log_price[incumbent]
    better = status.likely[:, None] * np.maximum(log_whole - log_cost - _ROUNDING, 0.0)
    allowed = prospects.log_seconds <= costs.log_longest[:, None]
    gain = np.where(known, 0.0, (better * allowed).mean(axis=1))
    if not gain.any():
        # No candidate improves on the incumbent within the goal's limits, so ignore the limits.
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


def risks_within(prospects: Prospects, price: Array, keeps: Array) -> Array:
    """Computes the logarithm of the expected cost of each candidate; infinite beyond the goal's limits.

    Args:
        prospects: Forecasts of the time to target of every candidate configuration.
        price: Cost of one second of each candidate in the goal's unit, `(num,)`.
        keeps: Probability that each candidate keeps the limits of the goal, from `keeps_within`, `(num,)`.
    """
    risk = risks(prospects, price)
    allowed = np.where(keeps > _KEEPS_DEADLINE, risk, np.inf)
    return allowed if np.isfinite(allowed).any() else risk + _FAR_BEYOND * (1.0 - keeps)


def _resolved_sd(prospects: Prospects, seconds: Array) -> Array:
    """Computes how much a slice will probably change the predicted time to target of its candidate.

    If a run has trained for the share s of its time to target, the logarithm of its time to target is known
    with variance r(s) (`curve_template.variance_after`). A slice that extends the share to s' increases the
    precision, the reciprocal of the variance, by 1 / r(s') - 1 / r(s).

    Args:
        prospects: Forecasts of the time to target of every candidate configuration.
        seconds: Training seconds of each candidate's slice, `(num,)`.

    Returns:
        Standard deviation of the change of the predicted mean of log seconds to target, `(num,)`.
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
    """Computes E[(I - X)+], the expected saving with each candidate instead of the best one so far, `(num,)`.

    I is the expected cost of the best candidate so far, X is the cost of another candidate, and (I - X)+ is I
    - X if positive, else 0. X has a lognormal distribution, so the formula is that of a put option (Black and
    Scholes 1973).

    Args:
        log_best: log I.
        mean_log: Mean of log X, `(num,)`.
        sd: Standard deviation of log X, above 0, `(num,)`.
    """
    from scipy.special import ndtr  # takes a second to import, which commands that only read need not wait

    mean_log = np.minimum(mean_log, NEVER)
    z = (log_best - mean_log) / sd
    mean = np.exp(np.minimum(mean_log + 0.5 * sd**2, NEVER))
    return np.asarray(np.maximum(math.exp(log_best) * ndtr(z) - mean * ndtr(z - sd), 0.0))
