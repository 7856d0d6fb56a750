"""Laws of samples: how far ranks drift apart under a strategy, and what it costs in samples to target.

Disagreement is the variance of one rank's parameters around what all ranks have in common, in units of
v = lr^2 S / b, the variance that gradient noise adds in one step (lr: learning rate, S: numerator of the
noise scale, b: samples of a rank). The formulas assume pure noise, ranks in lockstep and no momentum.

`tuner.analytic.strategy_laws` lists the laws by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from tuner.analytic.regression import Parameter
from tuner.analytic.strategy_encoding import Setup


@dataclass(frozen=True, kw_only=True)
class SamplesLaw:
    """How many more samples a strategy needs than all-reduce: the factor (1 + disagreement)^cost.

    Args:
        cost: The unknown exponent with its prior. Laws with the same `cost` learn it from each other's runs.
        disagreement: Returns the disagreement just before an exchange, on at least two ranks. It grows
            with `Setup.num_ranks` and `Setup.tau`.
    """

    cost: Parameter
    disagreement: Callable[[Setup], float]


# The priors make log samples over all-reduce's uncertain by about 0.4 on 8 ranks at the usual tau.
#: On 8, 32 and 128 ranks, pulling needed 1.7 to 1.8 times the samples at a constant rate.
GOSSIP = Parameter(name="log samples that disagreement costs gossip", mean=0.52, sd=0.40)
#: Like all-reduce on few ranks, worse on 128 (Jin et al. 2016).
ELASTIC_AVERAGING = Parameter(
    name="log samples that disagreement costs elastic averaging", mean=0.20, sd=0.15
)
#: Stale by p - 1 pushes, which a smaller learning rate compensates.
PARAMETER_SERVER = Parameter(
    name="log samples that disagreement costs a parameter server", mean=0.45, sd=0.25
)
#: Little at tau of 4 to 16 (Stich 2019; Lin et al. 2020).
AVERAGING = Parameter(name="log samples that disagreement costs averaging at intervals", mean=0.15, sd=0.25)


def pull_disagreement(setup: Setup) -> float:
    """tau 4 (p - 1) / (2 p + 1)."""
    p = setup.num_ranks
    return setup.tau * (4.0 * (p - 1) / (2.0 * p + 1.0))


def push_disagreement(setup: Setup) -> float:
    """About tau e (1 - 1/p)^1.72: a fit to its limit e, and to 2.16 at p = 8."""
    return float(setup.tau * math.e * (1.0 - 1.0 / setup.num_ranks) ** 1.72)


def pairs_disagreement(setup: Setup) -> float:
    """tau 2 (1 - 1/p)^2."""
    return setup.tau * (2.0 * (1.0 - 1.0 / setup.num_ranks) ** 2)


def elastic_disagreement(setup: Setup) -> float:
    """tau (1 - 1/p) / (2 a - a^2), with a = beta / p."""
    p = setup.num_ranks
    a = float(setup.configuration.get("beta", setup.traits.knobs["beta"].default)) / p
    return setup.tau * (1.0 - 1.0 / p) / (2.0 * a - a * a)


def server_disagreement(setup: Setup) -> float:
    """tau (p - 1): the updates that a rank misses stand in for the variance."""
    return float(setup.tau * (setup.num_ranks - 1))


def averaging_disagreement(setup: Setup) -> float:
    """(1 - 1/p) (tau - 1) / 2: the mean over a period, since averaging all ranks leaves none."""
    return (1.0 - 1.0 / setup.num_ranks) * (setup.tau - 1) / 2.0
