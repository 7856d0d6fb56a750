"""Maps each communication strategy to two formulas: its step time, and its number of samples to target.

The traits of a strategy contain the names of its formulas (`StrategyTraits.step_time_law` and `samples_law`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from search_spaces import StrategyTraits, traits_of
from tuner.analytic import disagreement as samples
from tuner.analytic import step_time_laws as seconds
from tuner.analytic.disagreement import SamplesLaw
from tuner.analytic.laws import Array
from tuner.analytic.regression import Parameter
from tuner.analytic.step_time_laws import Network, RankSteps, StepTimeLaw
from tuner.analytic.strategy_encoding import Setup

STEP_TIME_LAWS: dict[str, StepTimeLaw] = {
    "all_reduce": seconds.all_reduce_seconds,
    "averaging": seconds.averaging_seconds,
    "peer": seconds.peer_seconds,
    "server": seconds.server_seconds,
    # New laws of step time go here.
}

SAMPLES_LAWS: dict[str, SamplesLaw] = {
    "gossip_pull": SamplesLaw(cost=samples.GOSSIP, disagreement=samples.pull_disagreement),
    "gossip_push": SamplesLaw(cost=samples.GOSSIP, disagreement=samples.push_disagreement),
    "gossip_pairs": SamplesLaw(cost=samples.GOSSIP, disagreement=samples.pairs_disagreement),
    "elastic_averaging": SamplesLaw(
        cost=samples.ELASTIC_AVERAGING, disagreement=samples.elastic_disagreement
    ),
    "parameter_server": SamplesLaw(cost=samples.PARAMETER_SERVER, disagreement=samples.server_disagreement),
    "averaging": SamplesLaw(cost=samples.AVERAGING, disagreement=samples.averaging_disagreement),
    # New laws of samples go here.
}

#: Parameter: change of the logarithm of samples to target by an outer step, on any number of ranks.
_OUTER_STEP = Parameter(name="log sample cost (outer step)", mean=0.0, sd=0.4)
#: The parameters that multiply the columns of `disagreement_columns`, one for each column.
COST_PARAMETERS = (*dict.fromkeys(law.cost for law in SAMPLES_LAWS.values()), _OUTER_STEP)


def batch_seconds(
    traits: StrategyTraits, compute: Array, num_ranks: Array, tau: Array, network: Network
) -> Array:
    """Returns the seconds in which all ranks together process one global batch, `(num,)`.

    Args:
        traits: The properties of the strategy, which specify its formula of step time.
        compute: Seconds of compute in a step of one rank, including the effect of shared cores, `(num,)`.
        num_ranks: Number of ranks of each step, whole numbers, `(num,)`.
        tau: Steps between two exchanges of gradients or parameters, `(num,)`.
        network: The costs of communication, and the jitter and delays of the ranks.
    """
    steps = RankSteps(traits=traits, compute=compute, num_ranks=num_ranks, tau=tau, network=network)
    return STEP_TIME_LAWS[traits.step_time_law](steps)


def disagreement(setup: Setup) -> float:
    """Returns how much the parameters of ranks differ just before ranks exchange them.

    It is a variance, and 0 for one rank and for all-reduce; see `tuner.analytic.disagreement` for the unit.

    Args:
        setup: The number of ranks, the strategy and the values of its parameters.
    """
    law = setup.traits.samples_law
    if law is None or setup.num_ranks == 1:
        return 0.0
    return SAMPLES_LAWS[law].disagreement(setup)


def disagreement_columns(setup: Setup) -> list[float]:
    """Returns the factors of `COST_PARAMETERS` in the formula of samples to target, one for each parameter.

    The factor of the strategy's own cost parameter is log(1 + disagreement). The last factor is 1 if the
    strategy has an outer optimizer step. All others are 0.
    """
    law = setup.traits.samples_law
    own = None if law is None else SAMPLES_LAWS[law].cost
    cost = math.log1p(disagreement(setup))
    columns = [cost if parameter is own else 0.0 for parameter in COST_PARAMETERS[:-1]]
    return [*columns, float(setup.traits.has_outer_step)]


def disagreement_parameters(strategies: Sequence[str]) -> dict[int, Parameter]:
    """Returns the parameters for additional samples to target that the given strategies need.

    Returns:
        Maps a column of `disagreement_columns` to the parameter that multiplies it.
    """
    known = [traits_of(name) for name in strategies]
    found = {SAMPLES_LAWS[traits.samples_law].cost for traits in known if traits.samples_law is not None}
    if any(traits.has_outer_step for traits in known):
        found.add(_OUTER_STEP)
    return {column: parameter for column, parameter in enumerate(COST_PARAMETERS) if parameter in found}
