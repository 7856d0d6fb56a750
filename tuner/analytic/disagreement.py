"""How far ranks drift apart under a strategy, and how many more samples that is expected to need.

Disagreement is the variance of one rank's parameters around what all have in common, in units of
v = lr^2 S / b, what one step's gradient noise adds (lr: learning rate, S: numerator of the noise scale, b:
samples of a rank); pure noise, lockstep, no momentum. It is 0 for one rank, and grows with ranks and tau.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from search_spaces import Configuration, StrategyTraits, traits_of
from tuner.analytic.regression import Parameter
from tuner.analytic.strategy_encoding import Setup

#: Families of strategies whose disagreement is expected to cost alike: log samples over all-reduce's for each
#: e-fold of 1 + disagreement. Means and spreads are set so that log samples over all-reduce's are unsure by
#: about 0.4 on 8 ranks at the usual tau. Gossip: on 8, 32 and 128 ranks pulling needed 1.7 to 1.8 times the
#: samples at a constant rate. Elastic averaging: level with all-reduce on few ranks, behind on 128 (Jin et
#: al. 2016). Downpour: stale by p - 1 pushes, which a smaller rate makes up for. Averaging all ranks: little
#: at tau of 4 to 16 (Stich 2019; Lin et al. 2020).
FAMILIES = (
    Parameter(name="log samples that disagreement costs gossip", mean=0.52, sd=0.40),
    Parameter(name="log samples that disagreement costs elastic averaging", mean=0.20, sd=0.15),
    Parameter(name="log samples that disagreement costs a parameter server", mean=0.45, sd=0.25),
    Parameter(name="log samples that disagreement costs averaging at intervals", mean=0.15, sd=0.25),
)
#: Log samples that an outer step adds or saves, on any number of ranks.
OUTER_STEP = Parameter(name="log samples of an outer step", mean=0.0, sd=0.4)
_GOSSIP, _ELASTIC, _SERVER, _AVERAGING = range(len(FAMILIES))


def family_of(traits: StrategyTraits) -> int | None:
    """The place of a strategy's family in `FAMILIES`; None for all-reduce, whose ranks never disagree."""
    if traits.exchanged == "gradients":
        return None
    if traits.partners == "peer":
        return _GOSSIP
    if traits.partners == "all":
        return _AVERAGING
    return _SERVER if traits.counted_batch == "rank" else _ELASTIC


def disagreement(setup: Setup, configuration: Configuration) -> float:
    """Disagreement just before an exchange, in units of v; 0 for one rank and for all-reduce.

    Pull 4 (p - 1) / (2 p + 1), pairs 2 (1 - 1/p)^2, push about e (1 - 1/p)^1.72 (a fit to its limit e and
    to 2.16 at p = 8), elastic averaging (1 - 1/p) / (2 a - a^2) with a = beta / p, each times tau. Averaging
    all ranks leaves none, so that its mean over a period counts: (1 - 1/p) (tau - 1) / 2. For a
    parameter server the updates a rank misses stand in: tau (p - 1).
    """
    p, traits = setup.num_ranks, setup.traits
    family = family_of(traits)
    if family is None or p == 1:
        return 0.0
    others = 1.0 - 1.0 / p
    if family == _AVERAGING:
        return others * (setup.tau - 1) / 2.0
    if family == _SERVER:
        return float(setup.tau * (p - 1))
    if family == _ELASTIC:
        a = float(configuration.get("beta", traits.knobs["beta"].default)) / p
        return setup.tau * others / (2.0 * a - a * a)
    if traits.name == "gossip_push":
        return float(setup.tau * math.e * others**1.72)
    return setup.tau * (4.0 * (p - 1) / (2.0 * p + 1.0) if traits.draws_itself else 2.0 * others**2)


def disagreement_columns(setup: Setup, configuration: Configuration) -> list[float]:
    """e-folds of 1 + disagreement in the family's own column, then 1 where an outer step is taken."""
    own, cost = family_of(setup.traits), math.log1p(disagreement(setup, configuration))
    columns = [cost if family == own else 0.0 for family in range(len(FAMILIES))]
    return [*columns, float(setup.traits.has_outer_step)]


def disagreement_parameters(strategies: Sequence[str]) -> dict[int, Parameter]:
    """The unknowns of the families that some strategies belong to, by the column they multiply."""
    known = [traits_of(name) for name in strategies]
    families = {family_of(traits) for traits in known}
    found = {column: family for column, family in enumerate(FAMILIES) if column in families}
    if any(traits.has_outer_step for traits in known):
        found[len(FAMILIES)] = OUTER_STEP
    return found
