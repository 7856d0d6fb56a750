"""Acquisition of a listed search: expected improvement over the incumbent, per cost.

By whole runs, for one that has trained e seconds, with T its time to target and I the incumbent's (DESIGN
section 5):

    E[(log I - log T)+ | T > e]  over  E[min(T, I) - e | T > e] x price + start-up

the same span above and below the line, so that resuming a run and starting a new one compete directly.

By slices, with m the mean of log cost once the next slice is known, which resolves a part of what is unknown
(`curve_template.variance_after`; knowledge gradient, Frazier et al. 2008):

    E[(log I - m)+]  over  slice x price + start-up

and for the incumbent, J being the runner-up's mean log cost, E[(m - J)+]: its slice gains where it shows that
the runner-up is to be preferred. Where dollars count, a slice may cost a hundred times another, and slices
are evaluated; where seconds count, whole runs. `benchmarks/results/README.md` says what either rule did.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from tuner.analytic.curve_template import variance_after
from tuner.analytic.slope_predictor import SlopePredictor

Array = npt.NDArray[np.float64]

#: What is recommended is the smallest mean of log cost plus half of its variance: that of the mean cost,
#: were it lognormal; of two alike the better known. Variances count up to this.
_MOST_VARIANCE = 4.0
#: A configuration keeps the deadline if it does so with this probability.
_KEEPS_DEADLINE = 0.5
_FAR_BEYOND = 10.0
#: A run that arrived is left for a candidate that is cheaper with a probability of 90%: standard deviations.
_SURELY_CHEAPER = 1.28
#: A slice leaves part of a run that has not reached the target.
_LARGEST_SHARE = 0.98
#: Log cost of an incumbent that is known never to reach the target.
_NEVER = 600.0
_NORMAL = NormalDist()


@dataclass(frozen=True, kw_only=True)
class Weights:
    """The acquisition of every candidate.

    Args:
        incumbent: The candidate that is recommended now.
        log_incumbent: Logarithm of what it is expected to cost, were it trained from the start.
        gain: Expected improvement of log cost, by the whole run or by the next slice, `(num,)`.
        saving: Expected saving in the goal's unit once the better of the two is known, `(num,)`.
        cost: Expected cost of finding out, in the goal's unit, `(num,)`.
        score: Gain over what it costs; -1 where nothing more can be learnt, `(num,)`.
        slice_seconds: Training seconds of the next slice, `(num,)`.
    """

    incumbent: int
    log_incumbent: float
    gain: Array
    saving: Array
    cost: Array
    score: Array
    slice_seconds: Array


def recommended(predictor: SlopePredictor, price: Array, log_longest: Array) -> tuple[int, float]:
    """The candidate to recommend and the mean of its log cost.

    Args:
        predictor: What is believed.
        price: Cost of a second of each candidate, `(num,)`.
        log_longest: Logarithm of the longest training of each that is allowed, seconds, `(num,)`.
    """
    allowed, risk, keeps = _risks(predictor, price, log_longest)
    if not np.isfinite(allowed).any():
        allowed = risk + _FAR_BEYOND * (1.0 - keeps)
    best = int(np.argmin(allowed))
    return best, float(predictor.mean_log[best] + np.log(price[best]))


def proven(predictor: SlopePredictor, price: Array, log_longest: Array, choice: int) -> int:
    """The cheapest run that arrived, unless the choice is very probably cheaper.

    Args:
        predictor: What is believed.
        price: Cost of a second of each candidate, `(num,)`.
        log_longest: Logarithm of the longest training of each that is allowed, seconds, `(num,)`.
        choice: The candidate that is expected to cost least.
    """
    log_arrived = np.log(predictor.status.arrived)
    log_cost = np.where(log_arrived <= log_longest, log_arrived, np.inf) + np.log(price)
    best = int(np.argmin(log_cost))
    if not np.isfinite(log_cost[best]):
        return choice
    upper = predictor.mean_log[choice] + np.log(price[choice])
    upper += _SURELY_CHEAPER * math.sqrt(float(predictor.variance_log[choice]))
    return choice if upper < log_cost[best] else best


def _risks(predictor: SlopePredictor, price: Array, log_longest: Array) -> tuple[Array, Array, Array]:
    """What candidates are recommended by, `(num,)` each.

    Risk, infinite where a candidate is unlikely to keep within the limits; risk; probability to keep within.
    """
    risk = predictor.mean_log + np.log(price) + 0.5 * np.minimum(predictor.variance_log, _MOST_VARIANCE)
    keeps = (predictor.weights * (predictor.log_seconds <= log_longest[:, None])).sum(axis=1)
    keeps = keeps * predictor.status.likely
    return np.where(keeps > _KEEPS_DEADLINE, risk, np.inf), risk, keeps


def weigh(
    predictor: SlopePredictor,
    price: Array,
    startup: Array,
    slice_seconds: Callable[[float], Array],
    *,
    log_longest: Array | None = None,
    by_slice: bool = False,
) -> Weights:
    """Evaluates the acquisition of every candidate against the incumbent.

    Args:
        predictor: What is believed.
        price: Cost of a second of each candidate, `(num,)`.
        startup: Seconds that a new probe is charged before it trains, 0 where one was started, `(num,)`.
        slice_seconds: Training seconds of each candidate's next slice, `(num,)`, given the logarithm of what
            the incumbent is expected to cost.
        log_longest: Logarithm of the longest training of each that is allowed, seconds, `(num,)`; any if
            absent.
        by_slice: Whether slices are evaluated, not whole runs.
    """
    if log_longest is None:
        log_longest = np.full(len(price), np.inf)
    incumbent, log_best = recommended(predictor, price, log_longest)
    log_best = min(log_best, _NEVER)
    slices = slice_seconds(log_best)
    log_price = np.log(price)[:, None]
    log_seconds = predictor.log_seconds
    weights = predictor.weights * predictor.status.likely[:, None]
    log_cost = log_seconds + log_price
    better = np.maximum(log_best - log_cost, 0.0)
    allowed = log_seconds <= log_longest[:, None]
    known = np.isfinite(predictor.status.arrived) | predictor.status.ended
    gain = (weights * np.where(allowed, better, 0.0)).sum(axis=1)
    if not np.any(gain[~known] > 0):
        # Nothing is likely to keep within the limits: what is nearest to them is to be found all the same.
        allowed = np.ones_like(allowed)
        gain = (weights * better).sum(axis=1)
    best = math.exp(log_best)
    costs = np.exp(np.minimum(log_cost, 600.0))
    saving = (weights * np.where(allowed, np.maximum(best - costs, 0.0), 0.0)).sum(axis=1)
    elapsed = predictor.status.seconds * price
    remaining = (predictor.weights * np.maximum(np.minimum(costs, best) - elapsed[:, None], 0.0)).sum(axis=1)
    cost = np.maximum(remaining + startup * price, 1e-12)
    gain, paid = np.where(known, 0.0, gain), cost
    if by_slice:
        ahead = np.where(gain > 0, log_best - predictor.mean_log - np.log(price), 0.0)
        ahead[incumbent] = -_behind(predictor, price, log_longest, incumbent)
        by_slices = predictor.status.likely * _gain_of_slice(predictor, slices, ahead)
        gain = np.where(gain > 0, by_slices, 0.0)
        paid = np.maximum((slices + startup) * price, 1e-12)
    return Weights(
        incumbent=incumbent,
        log_incumbent=log_best,
        gain=gain,
        saving=np.where(known, 0.0, saving),
        cost=cost,
        score=np.where(known, -1.0, gain / paid),
        slice_seconds=slices,
    )


def _behind(predictor: SlopePredictor, price: Array, log_longest: Array, incumbent: int) -> float:
    """How much more the runner-up is expected to cost than the incumbent, e-folds.

    0 where nothing else is likely to keep within the limits: the incumbent is compared with itself.
    """
    allowed, _, _ = _risks(predictor, price, log_longest)
    allowed[incumbent] = np.inf
    second = int(np.argmin(allowed))
    if not math.isfinite(allowed[second]):
        return 0.0
    log_cost = predictor.mean_log + np.log(price)
    return float(log_cost[second] - log_cost[incumbent])


def _gain_of_slice(predictor: SlopePredictor, slice_seconds: Array, ahead: Array) -> Array:
    """E[(ahead + s Z)+] with s^2 what the next slice resolves of each candidate's log cost, `(num,)`.

    Args:
        predictor: What is believed.
        slice_seconds: Of the next slice, `(num,)`.
        ahead: By how much each candidate is expected to be better, e-folds, `(num,)`.
    """
    length = np.exp(np.minimum(predictor.mean_log, _NEVER))
    share = np.minimum((predictor.status.seconds + slice_seconds) / length, _LARGEST_SHARE)
    variance = predictor.variance_log
    resolved = np.sqrt(np.maximum(variance**2 / (variance + variance_after(share)), 1e-12))
    z = ahead / resolved
    below = np.array([_NORMAL.cdf(value) for value in z])
    density = np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    return np.asarray(np.maximum(ahead * below + resolved * density, 0.0))


def tail_savings(predictor: SlopePredictor, price: Array, log_incumbent: float, log_longest: Array) -> Array:
    """Expected savings by all of each candidate's distribution, `(num,)`; 0 where nothing more can be learnt.

    E[(I - X)+ 1(T <= L)] with log X = log T + log price normal. `Weights.saving` sums equally probable parts,
    the outermost of which lie 2.2 standard deviations out: what is less likely than that to be better counts
    as no better there, however many trainings it would serve.

    Args:
        predictor: What is believed.
        price: Cost of a second of each candidate, `(num,)`.
        log_incumbent: log I, what the incumbent is expected to cost.
        log_longest: log L, the longest training of each that is allowed, seconds, `(num,)`.
    """
    known = np.isfinite(predictor.status.arrived) | predictor.status.ended
    log_cost = np.where(known, 0.0, predictor.mean_log) + np.log(price)
    variance = np.maximum(predictor.variance_log, 1e-12)
    sd = np.sqrt(variance)
    below = (np.minimum(log_incumbent, log_longest + np.log(price)) - log_cost) / sd
    cheap, mean_of_cheap = (np.array([_NORMAL.cdf(z) for z in shifted]) for shifted in (below, below - sd))
    cost = np.exp(np.minimum(log_cost + 0.5 * variance, _NEVER))
    saving = math.exp(min(log_incumbent, _NEVER)) * cheap - cost * mean_of_cheap
    return np.where(known, 0.0, np.maximum(saving, 0.0))
