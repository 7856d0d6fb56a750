"""Residual of the step-time law: nonlinear compute, scatter of links, drift beyond the timed nodes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tuner.analytic.laws import Array
from tuner.analytic.regression import Residual
from tuner.analytic.step_law import StepLaw
from tuner.analytic.step_rows import LOG_BATCH, LOG_RANKS, MOST_ON_A_NODE, NODES, NUM_COLUMNS
from tuner.analytic.strategy_encoding import NUM_STRATEGIES, STRATEGY_LENGTH

#: Length scales over log tau, strategies and where steps were made, and over the other columns.
_EXCHANGE, _OTHERS = (1.0, *[STRATEGY_LENGTH] * NUM_STRATEGIES, 1e6), [math.inf] * 3
#: Residual if all ranks are on one host, or all are emulated.
SMOOTH = Residual(sd=0.10, length_scales=(0.7, 1.0, *_EXCHANGE, *_OTHERS))
#: Correlation between two ways to exchange, and between two batches.
_BY_EXCHANGE = Residual(sd=1.0, length_scales=(math.inf, math.inf, *_EXCHANGE, *_OTHERS))
_BY_BATCH = Residual(sd=1.0, length_scales=(math.inf, 0.7, *[math.inf] * (NUM_COLUMNS - 2)))
#: On separate machines. Linear compute is off by up to a quarter at single batch sizes (caches, kernels,
#: padded sequences), typically 8%. Compute scatters by 3% and exchanges by 12%, until timings show by how
#: much. Per e-fold of nodes an exchange drifts by 4% from the law (other jobs, shared switches, rare
#: stragglers).
_BEND_SD, _COMPUTE_SD, _LINKS_SD, _DRIFT_SD = 0.08, 0.03, 0.12, 0.04


@dataclass(frozen=True, kw_only=True)
class StepResidual:
    """Covariance of log seconds around the law, on separate machines.

    Log seconds of a step change with log seconds of its exchange by the share s of the exchange, and with
    those of its compute by 1 - s. Between two steps the covariance is

        (1 - s)(1 - s') (bend^2 K(b, b') + own^2 [same])           compute
        + s s' (links^2 [same placement] + drift^2 min(u, u'))     exchange, u = log nodes

    times the correlation of the ways to exchange. The drift is a random walk in log nodes (a Wiener
    process): beyond the largest timed nodes N its variance grows with log(n / N).

    Args:
        law: The law, for s.
        theta: Values of the unknowns, for s, `(num_parameters,)`.
        compute_scale: Scatter of compute, relative to what is assumed.
        exchange_scale: Scatter and drift of the exchange, relative to what is assumed.
    """

    law: StepLaw
    theta: Array
    compute_scale: float = 1.0
    exchange_scale: float = 1.0

    def covariance(self, left: Array, right: Array) -> Array:
        """Covariances `(num_left, num_right)` between inputs."""
        compute, exchange = self.parts(left, right)
        return compute + exchange

    def parts(self, left: Array, right: Array) -> tuple[Array, Array]:
        """The covariances from compute and from the exchange, each `(num_left, num_right)`."""
        own = self.law.exchange_share(self.theta, left)
        other = own if right is left else self.law.exchange_share(self.theta, right)
        place = [LOG_RANKS, NODES, MOST_ON_A_NODE]
        same_place = np.all(left[:, None, place] == right[:, place], axis=2)
        same = same_place & (left[:, None, LOG_BATCH] == right[:, LOG_BATCH])
        walk = np.minimum.outer(np.log(left[:, NODES]), np.log(right[:, NODES]))
        alike = _BY_EXCHANGE.covariance(left, right)
        compute = (
            _BEND_SD**2 * _BY_BATCH.covariance(left, right) + (_COMPUTE_SD * self.compute_scale) ** 2 * same
        )
        exchange = self.exchange_scale**2 * (_LINKS_SD**2 * same_place + _DRIFT_SD**2 * walk)
        return np.outer(1 - own, 1 - other) * compute * alike, np.outer(own, other) * exchange * alike
