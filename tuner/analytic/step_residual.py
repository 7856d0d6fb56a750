"""Covariances between the deviations of step times from the formula that predicts them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tuner.analytic.laws import Array
from tuner.analytic.regression import Residual
from tuner.analytic.step_law import StepLaw
from tuner.analytic.step_rows import LOG_BATCH, LOG_RANKS, MOST_ON_A_NODE, NODES, NUM_COLUMNS
from tuner.analytic.strategy_encoding import NUM_STRATEGIES, STRATEGY_LENGTH

#: Length scales of the residual over columns of `Steps.inputs`: `_EXCHANGE` for log tau, the strategies and
#: where the steps ran; `_OTHERS` for the columns after these.
_EXCHANGE, _OTHERS = (1.0, *[STRATEGY_LENGTH] * NUM_STRATEGIES, 1e6), [math.inf] * 3
#: Covariance function of the residual if all ranks are on one host, or if all are emulated (trained on this
#: host under a virtual clock).
SMOOTH = Residual(sd=0.10, length_scales=(0.7, 1.0, *_EXCHANGE, *_OTHERS))
#: `_BY_EXCHANGE` is the correlation between the residuals of steps that differ in strategy and tau.
#: `_BY_BATCH` is that between steps that differ in batch size.
_BY_EXCHANGE = Residual(sd=1.0, length_scales=(math.inf, math.inf, *_EXCHANGE, *_OTHERS))
_BY_BATCH = Residual(sd=1.0, length_scales=(math.inf, 0.7, *[math.inf] * (NUM_COLUMNS - 2)))
#: Standard deviations of the logarithm of seconds on separate machines:
#: - nonlinear compute: up to a quarter at single batch sizes (caches, kernels, padded sequences), typically
#:   8%;
#: - scatter of compute between steps: 3%, until timings show how much it is;
#: - scatter of exchanges between different placements of the ranks on nodes: 12%, until timings show how much
#:   it is;
#: - drift of exchanges from the law as the number of nodes grows: 4% per e-fold (factor of e) of nodes (other
#:   jobs, shared switches, rare slow ranks).
_BEND_SD, _COMPUTE_SD, _LINKS_SD, _DRIFT_SD = 0.08, 0.03, 0.12, 0.04


@dataclass(frozen=True, kw_only=True)
class StepResidual:
    """Covariances between the deviations of step times from their formula, on separate machines.

    An exchange is the communication of gradients or parameters between ranks. Let s be the share of the
    exchange in a step. If the exchange takes 1% longer, the step takes s% longer; if compute takes 1% longer,
    the step takes (1 - s)% longer. The covariance between the logarithms of the seconds of two steps is

        (1 - s)(1 - s') (bend^2 K(b, b') + own^2 [same])           compute
        + s s' (links^2 [same placement] + drift^2 min(u, u'))     exchange, u = log nodes

    times the correlation for the difference in strategy and tau (`_BY_EXCHANGE`). Quantities with ' belong to
    the second step.

    - K(b, b'): correlation for the batch sizes per rank b and b' (`_BY_BATCH`).
    - bend, own, links and drift: the standard deviations of nonlinear compute, of the scatter of compute, of
      the scatter of exchanges, and of the drift of exchanges with the number of nodes.
    - [same]: 1 if both steps have the same batch size and placement, else 0.
    - [same placement]: 1 if both steps have the same number of nodes, ranks, and ranks per node, else 0.

    The drift is a random walk in the logarithm of the number of nodes (a Wiener process): beyond the largest
    timed number of nodes N, the variance for n nodes grows with log(n / N).

    Args:
        law: The formula of step time, from which s is computed.
        theta: Values of the formula's parameters at which s is computed, `(num_parameters,)`.
        compute_scale: Scatter of compute, as a multiple of the assumed scatter.
        exchange_scale: Scatter and drift of the exchange, as a multiple of the assumed values.
    """

    law: StepLaw
    theta: Array
    compute_scale: float = 1.0
    exchange_scale: float = 1.0

    def covariance(self, left: Array, right: Array) -> Array:
        """Returns the covariances between the deviations of all pairs of steps, `(num_left, num_right)`.

        Args:
            left: Inputs of the steps in the rows of the result, `(num_left, NUM_COLUMNS)`.
            right: Inputs of the steps in the columns of the result, `(num_right, NUM_COLUMNS)`.
        """
        compute, exchange = self.parts(left, right)
        return compute + exchange

    def parts(self, left: Array, right: Array) -> tuple[Array, Array]:
        """Returns two covariances between steps: due to compute, and due to communication.

        Each has the shape `(num_left, num_right)`.

        Args:
            left: Inputs of the steps in the rows of the results, `(num_left, NUM_COLUMNS)`.
            right: Inputs of the steps in the columns of the results, `(num_right, NUM_COLUMNS)`.
        """
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
