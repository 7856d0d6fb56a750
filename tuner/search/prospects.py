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
from tuner.analytic.slope_predictor import PARTS, RunStatus, SlopePredictor

Array = npt.NDArray[np.float64]

#: Logarithm of the seconds of what is never reached.
NEVER = 600.0
#: Fewer draws in which both reach the target say nothing.
_FEWEST_DRAWS = 8
#: Something always remains of a run, as share of the whole.
_MOST_DONE = 1.0 - 1e-6


@dataclass(frozen=True, kw_only=True)
class Prospects:
    """What is believed of every candidate's time to target, and how far its run is.

    Args:
        configurations: The candidates.
        log_seconds: Equally probable values of log seconds to target were it to arrive, `(num, num_parts)`.
        weights: Their probabilities: a run in progress has not arrived yet, `(num, num_parts)`.
        status: How far the candidates' runs are.
        seconds_per_sample: Median, `(num,)`.
        log_seconds_sd: Standard deviation of log seconds a sample, `(num,)`.
        reach: Chance that any candidate reaches the target.
        may_lead: Which candidates may be preferred to a run that arrived: of a job that trains those whose
            own run has left its start, `(num,)`.
        draws: Joint draws of log seconds to target, infinite where it is never reached,
            `(num_draws, num)`; None where candidates count as independent.
    """

    configurations: tuple[Configuration, ...]
    log_seconds: Array
    weights: Array
    status: RunStatus
    seconds_per_sample: Array
    log_seconds_sd: Array
    reach: float
    may_lead: npt.NDArray[np.bool_]
    draws: Array | None = None

    @cached_property
    def mean_log(self) -> Array:
        """Mean of log seconds to target, `(num,)`; infinite where a run ended without arriving."""
        mean = (self.weights * self.log_seconds).sum(axis=1)
        return np.where(self.status.ended, np.inf, mean)

    @cached_property
    def variance_log(self) -> Array:
        """Variance of log seconds to target, `(num,)`."""
        middle = (self.weights * self.log_seconds).sum(axis=1)
        return np.asarray((self.weights * (self.log_seconds - middle[:, None]) ** 2).sum(axis=1))

    def narrowed(self, factors: Array) -> Prospects:
        """The same with variances of log seconds multiplied by factors from 0 to 1, `(num,)`."""
        middle = (self.weights * self.log_seconds).sum(axis=1, keepdims=True)
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
        if self.draws is None:
            return np.zeros(len(self.configurations))
        used = np.isfinite(self.draws) & np.isfinite(self.draws[:, [index]])
        logs = np.where(used, self.draws, 0.0)
        shared = squared_correlation(logs, np.broadcast_to(logs[:, [index]], logs.shape), used)
        shared = np.where(used.sum(axis=0) >= _FEWEST_DRAWS, shared, 0.0)
        shared[index] = 0.0
        return shared


def prospects_of_slopes(predictor: SlopePredictor) -> Prospects:
    """Prospects by the slope models alone."""
    return Prospects(
        configurations=predictor.configurations,
        log_seconds=predictor.log_seconds,
        weights=predictor.weights,
        status=predictor.status,
        seconds_per_sample=np.exp(predictor.seconds.model.mean),
        log_seconds_sd=np.sqrt(predictor.seconds.model.variance),
        reach=_reach(predictor.status),
        may_lead=np.ones(len(predictor.configurations), dtype=bool),
    )


def _reach(status: RunStatus) -> float:
    """Chance that any candidate reaches the target, where those without a chance of their own are alike.

    The share of candidates that never arrive has Jeffreys' prior, Beta(1/2, 1/2). If n runs are known never
    to arrive, none of m other candidates arrives with probability B(n + m + 1/2, 1/2) / B(n + 1/2, 1/2).
    """
    alike = (status.never == status.never_of_others) & ~status.ended
    never = np.where(status.ended, 1.0, status.never)[~alike]
    num_never, num_alike = float(never.sum()), int(alike.sum())
    none_of_them = math.exp(betaln(num_never + num_alike + 0.5, 0.5) - betaln(num_never + 0.5, 0.5))
    return 1.0 - none_of_them * float(never.prod())


def prospects_of_draws(forecast: Forecast, status: RunStatus, may_lead: npt.NDArray[np.bool_]) -> Prospects:
    """Prospects by joint draws.

    Args:
        forecast: The draws.
        status: How far the candidates' runs are.
        may_lead: See `Prospects`.
    """
    with np.errstate(divide="ignore"):
        draws = np.log(forecast.total)
    ordered, count = np.sort(draws, axis=0), np.isfinite(draws).sum(axis=0)
    places = ((np.arange(len(PARTS)) + 0.5) / len(PARTS))[:, None] * count
    found = ordered[np.minimum(places.astype(int), len(draws) - 1), np.arange(draws.shape[1])]
    least = np.log(np.maximum(status.earliest, 1e-12))
    log_seconds = np.maximum(np.minimum(found, NEVER), least).T
    arrived = np.isfinite(status.arrived)
    log_seconds[arrived] = np.log(status.arrived[arrived])[:, None]
    return Prospects(
        configurations=forecast.configurations,
        log_seconds=log_seconds,
        weights=np.full(log_seconds.shape, 1.0 / len(PARTS)),
        status=status,
        seconds_per_sample=forecast.seconds_per_sample,
        log_seconds_sd=forecast.log_seconds_sd,
        reach=float(1.0 - status.never.min(initial=1.0)),
        may_lead=may_lead,
        draws=draws,
    )


def squared_correlation(left: Array, right: Array, used: npt.NDArray[np.bool_]) -> Array:
    """Of each pair of columns over the draws that are used, 0 where one does not vary, `(num,)`."""
    count = np.maximum(used.sum(axis=0), 1)
    left, right = np.where(used, left, 0.0), np.where(used, right, 0.0)
    left = np.where(used, left - left.sum(axis=0) / count, 0.0)
    right = np.where(used, right - right.sum(axis=0) / count, 0.0)
    across, own, other = ((a * b).sum(axis=0) for a, b in ((left, right), (left, left), (right, right)))
    product = own * other
    return np.asarray(np.divide(across**2, product, out=np.zeros_like(product), where=product > 1e-18))
