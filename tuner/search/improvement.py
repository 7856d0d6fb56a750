"""Expected improvement over the incumbent against the expected cost of finding it, for every candidate.

For a run that has lived e, with T its time to target and I the incumbent's (DESIGN section 5):

    E[(log I - log T)+ | T > e]  over  E[min(T, I) - e | T > e] x price + start-up

the same span above and below the line; going on with a run and starting a new one compete by themselves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from tuner.analytic.slope_predictor import SlopePredictor

Array = npt.NDArray[np.float64]

#: What is recommended is the smallest mean of log cost plus half of its variance: that of the mean cost,
#: were it lognormal; of two alike the better known. Variances count up to this.
_MOST_VARIANCE = 4.0
#: A configuration keeps the deadline if it does so with this probability.
_KEEPS_DEADLINE = 0.5
_FAR_BEYOND = 10.0
#: Log cost of an incumbent that is known never to arrive.
_NEVER = 600.0
_NORMAL = NormalDist()


@dataclass(frozen=True, kw_only=True)
class Weights:
    """What every candidate is worth trying.

    Args:
        incumbent: The candidate that is recommended now.
        log_incumbent: Logarithm of what it is expected to cost, were it trained from the start.
        gain: Expected improvement of log cost, `(num,)`.
        saving: Expected saving in the goal's unit once the better of the two is known, `(num,)`.
        cost: Expected cost of finding out, in the goal's unit, `(num,)`.
        score: Gain over cost; -1 where nothing more can be learnt, `(num,)`.
    """

    incumbent: int
    log_incumbent: float
    gain: Array
    saving: Array
    cost: Array
    score: Array


def recommended(predictor: SlopePredictor, price: Array, log_longest: Array) -> tuple[int, float]:
    """The candidate to recommend and the mean of its log cost.

    Args:
        predictor: What is believed.
        price: Cost of a second of each candidate, `(num,)`.
        log_longest: Logarithm of the longest training of each that is allowed, seconds, `(num,)`.
    """
    cost = predictor.mean_log + np.log(price)
    risk = cost + 0.5 * np.minimum(predictor.variance_log, _MOST_VARIANCE)
    keeps = (predictor.weights * (predictor.log_seconds <= log_longest[:, None])).sum(axis=1)
    allowed = np.where(keeps > _KEEPS_DEADLINE, risk, np.inf)
    if not np.isfinite(allowed).any():
        allowed = risk + _FAR_BEYOND * (1.0 - keeps)
    best = int(np.argmin(allowed))
    return best, float(cost[best])


def weigh(
    predictor: SlopePredictor,
    price: Array,
    startup: Array,
    *,
    log_longest: Array | None = None,
    by_cost: bool = True,
) -> Weights:
    """Weighs every candidate against the incumbent.

    Args:
        predictor: What is believed.
        price: Cost of a second of each candidate, `(num,)`.
        startup: Seconds that a new probe is charged before it trains, 0 where one was begun, `(num,)`.
        log_longest: Logarithm of the longest training of each that is allowed, seconds, `(num,)`; any if
            absent.
        by_cost: Whether gains are divided by what they cost.
    """
    if log_longest is None:
        log_longest = np.full(len(price), np.inf)
    incumbent, log_best = recommended(predictor, price, log_longest)
    log_best = min(log_best, _NEVER)
    log_price = np.log(price)[:, None]
    log_seconds, weights = predictor.log_seconds, predictor.weights
    log_cost = log_seconds + log_price
    better = np.maximum(log_best - log_cost, 0.0)
    allowed = log_seconds <= log_longest[:, None]
    known = np.isfinite(predictor.standing.arrived) | predictor.standing.ended
    gain = (weights * np.where(allowed, better, 0.0)).sum(axis=1)
    if not np.any(gain[~known] > 0):
        # Nothing is likely to keep within the limits: what is nearest to them is to be found all the same.
        allowed = np.ones_like(allowed)
        gain = (weights * better).sum(axis=1)
    best = math.exp(log_best)
    costs = np.exp(np.minimum(log_cost, 600.0))
    saving = (weights * np.where(allowed, np.maximum(best - costs, 0.0), 0.0)).sum(axis=1)
    lived = predictor.standing.seconds * price
    remaining = (weights * np.maximum(np.minimum(costs, best) - lived[:, None], 0.0)).sum(axis=1)
    cost = np.maximum(remaining + startup * price, 1e-12)
    score = np.where(known, -1.0, gain / cost if by_cost else gain)
    return Weights(
        incumbent=incumbent,
        log_incumbent=log_best,
        gain=np.where(known, 0.0, gain),
        saving=np.where(known, 0.0, saving),
        cost=cost,
        score=score,
    )


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
    known = np.isfinite(predictor.standing.arrived) | predictor.standing.ended
    log_cost = np.where(known, 0.0, predictor.mean_log) + np.log(price)
    variance = np.maximum(predictor.variance_log, 1e-12)
    sd = np.sqrt(variance)
    below = (np.minimum(log_incumbent, log_longest + np.log(price)) - log_cost) / sd
    cheap, mean_of_cheap = (np.array([_NORMAL.cdf(z) for z in shifted]) for shifted in (below, below - sd))
    cost = np.exp(np.minimum(log_cost + 0.5 * variance, _NEVER))
    saving = math.exp(min(log_incumbent, _NEVER)) * cheap - cost * mean_of_cheap
    return np.where(known, 0.0, np.maximum(saving, 0.0))
