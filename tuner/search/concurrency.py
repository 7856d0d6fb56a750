"""Choose what to start concurrently: the leader's training, a probe of a challenger, or nothing yet."""

from __future__ import annotations

from collections.abc import Callable

from search_spaces import Configuration
from tuner.domain.measurement import Purpose
from tuner.search.acquisition import Acquisition, Option
from tuner.search.beliefs import Beliefs
from tuner.search.opportunity_cost import OpportunityCost
from tuner.search.policy import Action, Stop, StopKind, Wait
from tuner.search.state import SearchState
from tuner.search.timings import timing_key

NO_GAIN = "no further probe is expected to pay back its cost"


def choose_concurrent(
    state: SearchState, beliefs: Beliefs, acquisition: Acquisition, incumbent: int
) -> Action:
    """Decides where several slices may be in flight.

    When the goal is time, the leader trains as soon as there are nodes for it, and the remaining nodes probe
    other configurations. Such a probe costs no time (`OpportunityCost`), so any visible gain is worth it; the
    largest gain comes first. A probe that would keep the leader from its nodes has to pay for that time. When
    the goal is dollars, every probe has to pay its own price, and the leader trains once no probe does. What
    is in flight is not proposed again, nor what it will resolve (`left_to_resolve`).

    Args:
        state: What is known, and the slices in flight.
        beliefs: What is believed of the candidates.
        acquisition: Their acquisition.
        incumbent: The candidate that is expected to cost least.
    """
    leader: Configuration | None = None
    if state.further_trainings == 0 or acquisition.can_be_settled(incumbent):
        leader = beliefs.configurations[incumbent]
    opportunity = OpportunityCost(state=state, leader=leader)

    def allows(option: Option) -> bool:
        configuration = beliefs.configurations[option.index]
        if option.purpose is not Purpose.TIMING:
            return opportunity.allows(configuration)
        key = timing_key(configuration, state.cluster)
        return state.fits(configuration) and key not in state.timings_under_way

    if state.cluster.virtual is not None:
        return _choose_emulated(
            acquisition, incumbent, opportunity, acquisition.best_option(incumbent, allows)
        )
    best, cost = _best(beliefs, acquisition, incumbent, opportunity, allows)
    if opportunity.leader_fits and opportunity.counts_seconds and (best is None or cost == 0.0):
        return acquisition.go_on(incumbent)
    if best is not None:
        return acquisition.execute(best, incumbent)
    if leader is None:
        return Stop(kind=StopKind.NO_GAIN, reason=NO_GAIN)
    if state.capacity.under_way:
        return Wait(reason="the slices in flight may change which configuration is best")
    return acquisition.go_on(incumbent)


def _best(
    beliefs: Beliefs,
    acquisition: Acquisition,
    incumbent: int,
    opportunity: OpportunityCost,
    allows: Callable[[Option], bool],
) -> tuple[Option | None, float]:
    """The short probe that is expected to save most beyond its cost, if one does, and its cost."""
    found: Option | None = None
    most, paid = 0.0, 0.0
    least = acquisition.least_gain(incumbent)
    for option in acquisition.options(incumbent):
        if not allows(option) or option.gain <= least:
            continue
        price = float(beliefs.price[option.index])
        cost = opportunity.cost(beliefs.configurations[option.index], option.cost / price, price)
        if option.gain - cost > most:
            found, most, paid = option, option.gain - cost, cost
    return found, paid


def _choose_emulated(
    acquisition: Acquisition, incumbent: int, opportunity: OpportunityCost, option: Option | None
) -> Action:
    """Emulation pays with this machine's time, whether its slices run concurrently or one by one."""
    if opportunity.leader_fits and acquisition.leader_is_due(incumbent):
        return acquisition.go_on(incumbent)
    if option is not None:
        return acquisition.execute(option, incumbent)
    if opportunity.leader_fits:
        return acquisition.go_on(incumbent)
    if opportunity.leader is not None and opportunity.state.capacity.under_way:
        return Wait(reason="the slices in flight may change which configuration is best")
    return Stop(kind=StopKind.NO_GAIN, reason=NO_GAIN)
