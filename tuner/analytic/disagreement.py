"""Laws (analytic models) of samples to target: how far replicas drift apart, and what that costs.

Disagreement is the variance of one rank's parameters around the part that all ranks have in common. Its unit
is v = lr^2 S / b, the variance that gradient noise adds in one step (lr: learning rate, S: numerator of the
noise scale, b: batch size of one rank). The formulas assume that gradients are pure noise, that ranks run in
lockstep, and that there is no momentum.

`tuner.analytic.strategy_laws` maps the names of these laws to their objects.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from tuner.analytic.regression import Parameter
from tuner.analytic.strategy_encoding import Setup


@dataclass(frozen=True, kw_only=True)
class SamplesLaw:
    """The factor on the number of samples to target, compared with all-reduce: (1 + disagreement)^cost.

    Args:
        cost: The exponent, a parameter with its prior. Laws with the same `cost` share its value, so runs of
            one strategy inform the others.
        disagreement: Function that returns the disagreement just before ranks exchange parameters, on at
            least two ranks. It grows with `Setup.num_ranks` and `Setup.tau`.
    """

    cost: Parameter
    disagreement: Callable[[Setup], float]


# With these priors, the logarithm of the samples to target relative to all-reduce has a standard deviation of
# about 0.4 on 8 ranks with the usual tau.

#: On 8, 32 and 128 ranks, gossip by pulling needed 1.7 to 1.8 times the samples at a constant learning rate.
GOSSIP = Parameter(name="log samples that disagreement costs gossip", mean=0.52, sd=0.40)
#: As few samples as all-reduce on few ranks, more on 128 ranks (Jin et al. 2016).
ELASTIC_AVERAGING = Parameter(
    name="log samples that disagreement costs elastic averaging", mean=0.20, sd=0.15
)
#: An update is stale by p - 1 updates of other ranks, which a smaller learning rate compensates.
PARAMETER_SERVER = Parameter(
    name="log samples that disagreement costs a parameter server", mean=0.45, sd=0.25
)
#: The cost is small for tau of 4 to 16 (Stich 2019; Lin et al. 2020).
AVERAGING = Parameter(name="log samples that disagreement costs averaging at intervals", mean=0.15, sd=0.25)


def pull_disagreement(setup: Setup) -> float:
    """Returns the disagreement of gossip by pulling, tau 4 (p - 1) / (2 p + 1)."""
    p = setup.num_ranks
    return setup.tau * (4.0 * (p - 1) / (2.0 * p + 1.0))


def push_disagreement(setup: Setup) -> float:
    """Returns the disagreement of gossip by pushing, about tau e (1 - 1/p)^1.72.

    The exponent is a fit: the factor of tau tends to e for many ranks, and is 2.16 at p = 8.
    """
    return float(setup.tau * math.e * (1.0 - 1.0 / setup.num_ranks) ** 1.72)


def pairs_disagreement(setup: Setup) -> float:
    """Returns the disagreement of gossip in pairs, tau 2 (1 - 1/p)^2."""
    return setup.tau * (2.0 * (1.0 - 1.0 / setup.num_ranks) ** 2)


def elastic_disagreement(setup: Setup) -> float:
    """Returns the disagreement of elastic averaging, tau (1 - 1/p) / (2 a - a^2) with a = beta / p."""
    p = setup.num_ranks
    a = float(setup.configuration.get("beta", setup.traits.knobs["beta"].default)) / p
    return setup.tau * (1.0 - 1.0 / p) / (2.0 * a - a * a)


def server_disagreement(setup: Setup) -> float:
    """Returns the disagreement of a parameter server, tau (p - 1).

    This is the number of updates that a rank has not seen, in place of the variance.
    """
    return float(setup.tau * (setup.num_ranks - 1))


def averaging_disagreement(setup: Setup) -> float:
    """Returns the disagreement of averaging, (1 - 1/p) (tau - 1) / 2.

    This is its mean over the tau steps between two averages; just after an average of all ranks it is 0.
    """
    return (1.0 - 1.0 / setup.num_ranks) * (setup.tau - 1) / 2.0
