"""Acquisition function: expected improvement over the incumbent per cost, of slices that pay back.

A candidate's score, for a run that has trained e seconds, with T its time to target and I the incumbent's
(DESIGN section 5), is

    E[(log I - log T)+ | T > e]  over  E[min(T, I) - e | T > e] x price + start-up

the same span above and below the line, so that resuming a run and starting a new one compete directly. The
incumbent competes likewise: with log I the mean of log T, it scores by what is unknown of it.

A slice pays back if, with n trainings that the answer serves and X what each would cost with the candidate,

    n E[(I - m)+]  >  its cost

where m is the mean of log X once the slice is known (knowledge gradient; Frazier et al. 2008). One slice may
show too little where more of them would pay, so that the best rate over several slices counts.
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

#: What is recommended is the smallest mean of log cost plus half of its variance: that of the mean cost,
#: were it lognormal; of two alike the better known. Variances count up to this.
_MOST_VARIANCE = 4.0
#: A configuration keeps the deadline if it does so with this probability.
_KEEPS_DEADLINE = 0.5
_FAR_BEYOND = 10.0
#: A run that arrived is left for a candidate that is cheaper with a probability of 90%: standard deviations.
_SURELY_CHEAPER = 1.28
#: So many of the next slices are looked ahead.
_AHEAD = (1.0, 4.0, 16.0, 64.0, 256.0)
#: A gain of less, in log cost, is one of rounding.
_ROUNDING = 1e-9
#: A slice leaves part of a run that has not reached the target.
_LARGEST_SHARE = 0.98


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What candidates cost, in the goal's unit, `(num,)` each.

    Args:
        price: Of a second of training.
        probing: Of probing for a training second.
        fixed: Of the next slice besides what it trains: its start-up, and what it trains again.
        credit: Share of what a run has trained that each training of the answer is spared.
        log_longest: Logarithm of the longest training that is allowed, seconds.
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
        incumbent: The candidate that is expected to cost least.
        log_incumbent: Logarithm of what each training of the answer would cost with it.
        score: Expected improvement over cost; 0 where nothing can be gained or learnt, `(num,)`.
        saving: What the next slices are expected to save for each training of the answer at most, in the
            goal's unit, `(num,)`.
        return_rate: What the best number of next slices is expected to save for each training of the answer,
            over what they cost, `(num,)`.
        slice_seconds: Training seconds of the next slice, `(num,)`.
    """

    incumbent: int
    log_incumbent: float
    score: Array
    saving: Array
    return_rate: Array
    slice_seconds: Array


def recommended(prospects: Prospects, price: Array, log_longest: Array) -> int:
    """The candidate to recommend.

    Args:
        prospects: What is believed.
        price: Cost of a second of each candidate, `(num,)`.
        log_longest: Logarithm of the longest training of each that is allowed, seconds, `(num,)`.
    """
    return int(np.argmin(_risks_within(prospects, price, keeps_within(prospects, log_longest))))


def proven(prospects: Prospects, price: Array, log_longest: Array, choice: int) -> int:
    """The cheapest run that arrived, unless the choice is very probably cheaper.

    Args:
        prospects: What is believed.
        price: Cost of a second of each candidate, `(num,)`.
        log_longest: Logarithm of the longest training of each that is allowed, seconds, `(num,)`.
        choice: The candidate that is expected to cost least.
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
    """Chance of each candidate to arrive within its longest training, `(num,)`.

    Without the chance never to arrive that all candidates have in common.
    """
    keeps = (prospects.log_seconds <= log_longest[:, None]).mean(axis=1)
    return np.asarray(keeps * prospects.status.likely)


def risks(prospects: Prospects, price: Array) -> Array:
    """Logarithm of the expected cost of each candidate, `(num,)`; that of a lognormal, variances capped.

    A candidate that arrives with chance p is tried 1 / p times.
    """
    spread = 0.5 * np.minimum(prospects.variance_log, _MOST_VARIANCE)
    with np.errstate(divide="ignore"):
        return np.asarray(prospects.mean_log + np.log(price) + spread - np.log(prospects.status.likely))


def weigh(prospects: Prospects, costs: Costs, slice_seconds: Callable[[float], Array]) -> Weights:
    """Evaluates the acquisition of every candidate.

    Args:
        prospects: What is believed.
        costs: What the candidates cost.
        slice_seconds: Training seconds of each candidate's next slice, `(num,)`, given the logarithm of what
            the incumbent is expected to cost.
    """
    log_price = np.log(costs.price)
    keeps = keeps_within(prospects, costs.log_longest)
    to_go = prospects.less(costs.credit)
    risk = _risks_within(to_go, costs.price, keeps)
    incumbent = proven(to_go, costs.price, costs.log_longest, int(np.argmin(risk)))
    log_best = min(float(to_go.mean_log[incumbent] + log_price[incumbent]), NEVER)
    # What makes two late is no reason to prefer either.
    shared = prospects.shared_with(incumbent)
    risk[incumbent] = np.inf
    shared[incumbent] = shared[int(np.argmin(risk))]
    prospects, to_go = prospects.narrowed(1.0 - shared), to_go.narrowed(1.0 - shared)
    slices = slice_seconds(log_best)
    status = prospects.status
    known = np.isfinite(status.arrived) | status.ended
    # Of whole trainings: what is to go of a started run says little of how good its configuration is.
    log_cost = prospects.log_seconds + log_price[:, None]
    log_whole = min(float(prospects.mean_log[incumbent]), NEVER) + log_price[incumbent]
    better = status.likely[:, None] * np.maximum(log_whole - log_cost - _ROUNDING, 0.0)
    allowed = prospects.log_seconds <= costs.log_longest[:, None]
    gain = np.where(known, 0.0, (better * allowed).mean(axis=1))
    if not gain.any():
        # Nothing is likely to keep within the limits: what is nearest to them is to be found all the same.
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
        # A slice ends where its run arrives.
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
    """Risks of those likely to keep within the limits, infinite for others; of all if none is, `(num,)`."""
    risk = risks(prospects, price)
    allowed = np.where(keeps > _KEEPS_DEADLINE, risk, np.inf)
    return allowed if np.isfinite(allowed).any() else risk + _FAR_BEYOND * (1.0 - keeps)


def _resolved_sd(prospects: Prospects, seconds: Array) -> Array:
    """By how much slices are expected to move the means of log seconds: standard deviations, `(num,)`.

    A run that is known up to a share s of its length shows its length with variance r(s)
    (`curve_template.variance_after`). One that goes on to s' adds 1 / r(s') - 1 / r(s) to what is known.

    Args:
        prospects: What is believed.
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
