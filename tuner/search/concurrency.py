"""What to start beside what is under way: the leader's training, a look at a challenger, or nothing yet."""

from __future__ import annotations

from collections.abc import Callable

from search_spaces import Configuration
from tuner.domain.measurement import Purpose
from tuner.search.acquisition import Option, Weighing
from tuner.search.beliefs import Beliefs
from tuner.search.opportunity_cost import Beside
from tuner.search.policy import Action, Stop, StopKind, Wait
from tuner.search.state import SearchState
from tuner.search.timings import timing_key

NO_GAIN = "no further probe is expected to pay back its cost"


def choose_together(state: SearchState, beliefs: Beliefs, weighing: Weighing, incumbent: int) -> Action:
    """Decides where several slices may be under way.

    Where seconds are made small the leader trains as soon as there is room, and whatever has nodes left
    beside it looks elsewhere: that costs no time (`Beside`), so that any gain that shows is worth it, the
    largest first. A look that would keep the leader from its nodes has to pay for the time it takes them, as
    it has where slices are carried out one at a time. Where dollars are made small every look has to pay its
    own price, and the leader trains once none does. What is under way is not proposed again, nor is what its
    looks are going to resolve (`left_to_resolve`).

    Args:
        state: What is known, and what is under way.
        beliefs: What is believed of the candidates.
        weighing: The same, weighed.
        incumbent: The candidate that is expected to cost least.
    """
    leader: Configuration | None = None
    if state.further_trainings == 0 or weighing.can_be_settled(incumbent):
        leader = beliefs.configurations[incumbent]
    beside = Beside(state=state, leader=leader)

    def allows(option: Option) -> bool:
        configuration = beliefs.configurations[option.index]
        if option.purpose is not Purpose.TIMING:
            return beside.allows(configuration)
        key = timing_key(configuration, state.cluster)
        return state.fits(configuration) and key not in state.timings_under_way

    if state.cluster.virtual is not None:
        return _choose_emulated(weighing, incumbent, beside, weighing.best_option(incumbent, allows))
    best, cost = _best(beliefs, weighing, incumbent, beside, allows)
    if beside.leader_fits and beside.counts_seconds and (best is None or cost == 0.0):
        return weighing.go_on(incumbent)
    if best is not None:
        return weighing.carry_out(best, incumbent)
    if leader is None:
        return Stop(kind=StopKind.NO_GAIN, reason=NO_GAIN)
    if state.room.under_way:
        return Wait(reason="what is under way may change what is best")
    return weighing.go_on(incumbent)


def _best(
    beliefs: Beliefs,
    weighing: Weighing,
    incumbent: int,
    beside: Beside,
    allows: Callable[[Option], bool],
) -> tuple[Option | None, float]:
    """The look that is expected to save most beyond what it costs, if one does, and its cost."""
    found: Option | None = None
    most, paid = 0.0, 0.0
    least = weighing.least_gain(incumbent)
    for option in weighing.options(incumbent):
        if not allows(option) or option.gain <= least:
            continue
        price = float(beliefs.price[option.index])
        cost = beside.cost(beliefs.configurations[option.index], option.cost / price, price)
        if option.gain - cost > most:
            found, most, paid = option, option.gain - cost, cost
    return found, paid


def _choose_emulated(weighing: Weighing, incumbent: int, beside: Beside, option: Option | None) -> Action:
    """Emulation pays with this machine's time, be its slices beside each other or one after the other."""
    if beside.leader_fits and weighing.leader_is_due(incumbent):
        return weighing.go_on(incumbent)
    if option is not None:
        return weighing.carry_out(option, incumbent)
    if beside.leader_fits:
        return weighing.go_on(incumbent)
    if beside.leader is not None and beside.state.room.under_way:
        return Wait(reason="what is under way may change what is best")
    return Stop(kind=StopKind.NO_GAIN, reason=NO_GAIN)
