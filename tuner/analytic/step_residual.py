"""What the law of steps leaves out: bends of compute, scatter of links, and drift beyond the timed nodes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tuner.analytic.regression import Residual
from tuner.analytic.step_law import StepLaw
from tuner.analytic.step_rows import exchange_columns, log_batch_column, placement_columns, smooth_columns
from tuner.analytic.strategy_encoding import NUM_STRATEGIES, STRATEGY_LENGTH

Array = npt.NDArray[np.float64]

_ANYWHERE = 1e6
#: Correlation of the smooth residual over log ranks, log batch a rank, log tau, strategy, and where; of two
#: ways to exchange; and of two batches.
_SMOOTH = Residual(sd=1.0, length_scales=(0.7, 1.0, 1.0, *[STRATEGY_LENGTH] * NUM_STRATEGIES, _ANYWHERE))
_BY_EXCHANGE = Residual(sd=1.0, length_scales=(1.0, *[STRATEGY_LENGTH] * NUM_STRATEGIES, _ANYWHERE))
_BY_BATCH = Residual(sd=1.0, length_scales=(0.7,))


@dataclass(frozen=True, kw_only=True)
class SmoothResidual:
    """The covariance of log seconds around the law where one host carries all ranks, or all are emulated.

    Args:
        sd: Its standard deviation; it is smooth over log ranks, log batch a rank, log tau and strategy.
    """

    sd: float

    def covariance(self, left: Array, right: Array) -> Array:
        """Covariances `(num_left, num_right)` between inputs."""
        kernel = replace(_SMOOTH, sd=self.sd)
        return kernel.covariance(smooth_columns(left), smooth_columns(right))


@dataclass(frozen=True, kw_only=True)
class StepResidual:
    """The covariance of log seconds around the law, on nodes that are machines of their own.

    A step's logarithm moves with that of its exchange by the share s of the exchange, and with that of its
    compute by 1 - s. With x the step and x' another,

        (1 - s)(1 - s') (bend^2 K(b, b') + own^2 [same])           compute
        + s s' (links^2 [same placement] + drift^2 min(u, u'))     exchange, u = log nodes

    times the correlation of the ways to exchange. The drift is a random walk in log nodes (a Wiener
    process): beyond the largest timed nodes N its variance grows with log(n / N).

    Args:
        law: The law; it gives s.
        theta: The unknowns at which s is taken, `(num_parameters,)`.
        bend_sd: How compute departs from a straight line in the batch.
        compute_sd: Each configuration's own part of compute.
        links_sd: Each placement's own part of its exchange.
        drift_sd: Standard deviation of the exchange's drift for each e-fold of nodes.
    """

    law: StepLaw
    theta: Array
    bend_sd: float
    compute_sd: float
    links_sd: float
    drift_sd: float

    def scaled(self, compute: float, exchange: float) -> StepResidual:
        """With other sizes: of each configuration's part of compute, and of both parts of the exchange."""
        return replace(
            self,
            compute_sd=self.compute_sd * compute,
            links_sd=self.links_sd * exchange,
            drift_sd=self.drift_sd * exchange,
        )

    def covariance(self, left: Array, right: Array) -> Array:
        """Covariances `(num_left, num_right)` between inputs."""
        compute, exchange = self.parts(left, right)
        return compute + exchange

    def parts(self, left: Array, right: Array) -> tuple[Array, Array]:
        """The covariances by compute and by the exchange."""
        own = self.law.exchange_share(self.theta, left)
        other = own if right is left else self.law.exchange_share(self.theta, right)
        batches = log_batch_column(left), log_batch_column(right)
        places = placement_columns(left), placement_columns(right)
        same_place = _are_equal(*places)
        same = same_place & _are_equal(*batches)
        walk = np.minimum(places[0][:, :1], places[1][:, 0])
        alike = _BY_EXCHANGE.covariance(exchange_columns(left), exchange_columns(right))
        compute = self.bend_sd**2 * _BY_BATCH.covariance(*batches) + self.compute_sd**2 * same
        exchange = self.links_sd**2 * same_place + self.drift_sd**2 * walk
        return np.outer(1 - own, 1 - other) * compute * alike, np.outer(own, other) * exchange * alike


def _are_equal(left: Array, right: Array) -> npt.NDArray[np.bool_]:
    """Whether rows are equal, `(num_left, num_right)`."""
    found = np.ones((len(left), len(right)), dtype=bool)
    for own, other in zip(left.T, right.T, strict=True):
        found &= own[:, None] == other
    return found
