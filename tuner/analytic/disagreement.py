"""Formulas for how much the replicas of ranks differ, and how many more samples to target that costs.

Disagreement is the variance of one rank's parameters around the mean over all ranks. Its unit is v = lr^2 S /
b, the variance that gradient noise adds to the parameters of one rank in one step.

- lr: learning rate.
- S: total variance of the gradient of a single sample (the numerator of the gradient noise scale).
- b: batch size of one rank, samples.
- p: number of ranks.
- tau: steps between two exchanges of parameters.

The formulas assume that gradients are pure noise, that all ranks make their steps at the same times, and that
there is no momentum.

`tuner.analytic.strategy_laws` maps the name of each formula to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from tuner.analytic.regression import Parameter
from tuner.analytic.strategy_encoding import Setup


@dataclass(frozen=True, kw_only=True)
class SamplesLaw:
    """Factor by which a strategy needs more samples to the target than all-reduce: (1 + disagreement)^cost.

    Disagreement is the variance of one rank's parameters around the mean over all ranks.

    Args:
        cost: The exponent, a parameter that is fitted to measurements. Several strategies can name the same
            parameter; runs of one of them then improve the predictions for the others.
        disagreement: Function of a setup that returns the disagreement just before ranks exchange parameters.
            It is called only for setups with two ranks or more.
    """

    cost: Parameter
    disagreement: Callable[[Setup], float]


# With these priors, the logarithm of the samples to target relative to all-reduce has a standard deviation of
# about 0.4 on 8 ranks with the usual tau.

#: Measured on 8, 32 and 128 ranks: gossip by pulling needed 1.7 to 1.8 times as many samples as all-reduce at
#: a constant learning rate.
GOSSIP = Parameter(name="log sample cost (gossip)", mean=0.52, sd=0.40)
#: Elastic averaging needs as few samples as all-reduce on few ranks, and more on 128 ranks (Jin et al. 2016).
ELASTIC_AVERAGING = Parameter(name="log sample cost (elastic averaging)", mean=0.20, sd=0.15)
#: With a parameter server on p ranks, p - 1 updates of other ranks are applied between the computation of an
#: update and its use. A smaller learning rate compensates for this staleness.
PARAMETER_SERVER = Parameter(name="log sample cost (parameter server)", mean=0.45, sd=0.25)
#: Averaging every 4 to 16 steps needs few additional samples (Stich 2019; Lin et al. 2020).
AVERAGING = Parameter(name="log sample cost (averaging)", mean=0.15, sd=0.25)


def pull_disagreement(setup: Setup) -> float:
    """Returns how much ranks differ with gossip by pulling: tau 4 (p - 1) / (2 p + 1).

    tau is the number of steps between two exchanges, and p the number of ranks. The result is a variance in
    the unit that the module docstring defines.
    """
    p = setup.num_ranks
    return setup.tau * (4.0 * (p - 1) / (2.0 * p + 1.0))


def push_disagreement(setup: Setup) -> float:
    """Returns how much ranks differ with gossip by pushing: about tau e (1 - 1/p)^1.72.

    tau is the number of steps between two exchanges, and p the number of ranks. The result is a variance in
    the unit that the module docstring defines. The exponent 1.72 is fitted. The result divided by tau is 2.16
    at p = 8, and approaches e for many ranks.
    """
    return float(setup.tau * math.e * (1.0 - 1.0 / setup.num_ranks) ** 1.72)


def pairs_disagreement(setup: Setup) -> float:
    """Returns how much ranks differ with gossip in pairs: tau 2 (1 - 1/p)^2.

    tau is the number of steps between two exchanges, and p the number of ranks. The result is a variance in
    the unit that the module docstring defines.
    """
    return setup.tau * (2.0 * (1.0 - 1.0 / setup.num_ranks) ** 2)


def elastic_disagreement(setup: Setup) -> float:
    """Returns how much ranks differ with elastic averaging: tau (1 - 1/p) / (2 a - a^2).

    tau is the number of steps between two exchanges, and p the number of ranks. a = beta / p is the share of
    their difference by which a rank and the center move towards each other; beta is a parameter of the
    strategy. The result is a variance in the unit that the module docstring defines.
    """
    p = setup.num_ranks
    a = float(setup.configuration.get("beta", setup.traits.knobs["beta"].default)) / p
    return setup.tau * (1.0 - 1.0 / p) / (2.0 * a - a * a)


def server_disagreement(setup: Setup) -> float:
    """Returns how stale updates are with a parameter server: tau (p - 1).

    tau is the number of steps between two exchanges, and p the number of ranks. Unlike for the other
    strategies, this is not a variance. It is the number of updates of other ranks that a rank has not
    received when it sends its own.
    """
    return float(setup.tau * (setup.num_ranks - 1))


def averaging_disagreement(setup: Setup) -> float:
    """Returns how much ranks differ if they are averaged at intervals: (1 - 1/p) (tau - 1) / 2.

    tau is the number of steps between two averages, and p the number of ranks. The difference is 0 just after
    ranks average their parameters, and grows until the next average. The result is its mean over the tau
    steps in between, a variance in the unit that the module docstring defines.
    """
    return (1.0 - 1.0 / setup.num_ranks) * (setup.tau - 1) / 2.0
