"""Model-driven search policy: resume the best run unless a probe elsewhere is expected to pay back."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from search_spaces import Configuration, traits_of
from tuner.domain.measurement import Purpose
from tuner.probes import Until, first_evaluation
from tuner.search.acquisition import Acquisition
from tuner.search.beliefs import Beliefs
from tuner.search.believer import Believer, is_listed
from tuner.search.concurrency import NO_GAIN, choose_concurrent
from tuner.search.limits import arrival, ended_by_fault, limit_reached, may_start
from tuner.search.listed_policy import ListedPolicy
from tuner.search.policy import Action, Decision, Start, Stop, StopKind, Wait
from tuner.search.recheck import recheck
from tuner.search.state import SearchState

#: The first short probe takes at most this share of the time budget; so many seconds without a budget.
_FIRST_SHARE, _FIRST_UNKNOWN = 0.1, 600.0
#: So many runs of a script are needed to say that no configuration reaches the target.
_FEWEST_TRIED = 3


class ModelPolicy:
    """Chooses slices by expected gain over expected cost, both from the analytic model.

    The incumbent is the configuration with the smallest expected remaining cost. For every other
    one, the acquisition of a slice is evaluated: its price and start-up against the expected saving if it
    turns out better (one step of look-ahead; knowledge gradient, Frazier et al. 2008). Timing probes are
    evaluated alike. Where nothing gains more than it costs, the incumbent resumes (one training is
    requested) or the search ends (the answer serves more trainings). Where several slices may be in flight,
    `choose_concurrent` chooses what to start concurrently with them.

    Args:
        believer: Fits the models.
    """

    def __init__(self, believer: Believer | None = None) -> None:
        self._believer = believer or Believer()
        self._listed = ListedPolicy(self._believer)
        self._past_faults: frozenset[int] | None = None

    def decide(self, state: SearchState) -> Decision:
        """See `Policy`."""
        if is_listed(state):
            return self._listed.decide(state)
        if self._past_faults is None:
            self._past_faults = ended_by_fault(state)
        state = replace(state, past_faults=self._past_faults)
        stop = arrival(state) or limit_reached(state)
        if stop is None:
            first = self._first(state)
            if first is not None:
                return Decision(action=first)
        if not state.runs:
            if state.capacity.under_way and stop is None:
                return Decision(action=Wait(reason="nothing is known yet"))
            return Decision(action=stop or _nothing_left(state))
        beliefs = self._believer.believe(state)
        if beliefs is None:
            return Decision(action=stop or _nothing_left(state))
        action = stop or self._best(state, beliefs)
        if isinstance(action, Stop) and action.kind is StopKind.NO_GAIN:
            incumbent = Acquisition(state, beliefs).incumbent()
            again = None if incumbent is None else recheck(state, beliefs.configurations[incumbent])
            action = again or action
        return Decision(action=action, beliefs=beliefs)

    def _first(self, state: SearchState) -> Action | None:
        """The first short probe: the user's present settings, else the middle of the space."""
        under_way = state.capacity.probe_ids
        tried = {
            p.configuration
            for p in state.probes
            if (p.slices or not p.outcome.can_continue or p.probe_id in under_way)
            and p.probe_id not in state.past_faults
        }
        baseline = state.job.baseline_configuration()
        chosen: Configuration | None = None
        if baseline is not None and baseline not in tried and state.space.is_runnable(baseline):
            chosen, reason = baseline, "the present settings come first"
        elif not state.runs:
            untried = [c for c in state.space.candidates() if c not in tried]
            if untried:
                chosen, reason = _middle(untried), "a first short probe, in the middle of the space"
        if chosen is None or not may_start(state):
            return None
        if not state.fits(chosen):
            return Wait(reason="no nodes are free for a first short probe yet")
        return Start(
            configuration=chosen,
            purpose=Purpose.STATISTICS,
            until=_first_probe(state),
            reason=reason,
        )

    def _another(self, state: SearchState, beliefs: Beliefs) -> Start | None:
        """A first short probe elsewhere, where too few runs say that nothing reaches the target."""
        scored = [run.configuration for run in state.runs.values() if run.measurement.trained_curve]
        if not state.job.runs_command or len(scored) >= _FEWEST_TRIED or not may_start(state):
            return None
        tried = {probe.configuration for probe in state.probes}
        untried = [c for c in beliefs.configurations if c not in tried and state.space.is_runnable(c)]
        if not untried:
            return None
        seen = np.log([[c.batch_size, c.learning_rate] for c in scored])
        rows = np.log([[c.batch_size, c.learning_rate] for c in untried])
        nearest = np.abs(rows[:, None, :] - seen[None, :, :]).sum(axis=2).min(axis=1)
        # Halfway to the farthest: at the edges of a space little trains.
        return Start(
            configuration=untried[int(np.argmin(np.abs(nearest - 0.5 * nearest.max())))],
            purpose=Purpose.STATISTICS,
            until=_first_probe(state),
            reason=f"only {len(scored)} of {_FEWEST_TRIED} runs say that nothing reaches the target",
        )

    def _best(self, state: SearchState, beliefs: Beliefs) -> Action:
        acquisition = Acquisition(state, beliefs)
        incumbent = acquisition.incumbent()
        if incumbent is None:
            other = self._another(state, beliefs)
            if other is not None:
                return other
            return Stop(
                kind=StopKind.UNREACHABLE,
                reason="no configuration is expected to reach the target within the limits",
            )
        if state.capacity.is_shared:
            return choose_concurrent(state, beliefs, acquisition, incumbent)
        if acquisition.leader_is_due(incumbent):
            return acquisition.go_on(incumbent)
        option = acquisition.best_option(incumbent)
        if option is not None:
            return acquisition.execute(option, incumbent)
        if acquisition.can_be_settled(incumbent):
            return acquisition.go_on(incumbent)
        if state.further_trainings > 0:
            return Stop(kind=StopKind.NO_GAIN, reason=NO_GAIN)
        return acquisition.go_on(incumbent)


def _nothing_left(state: SearchState) -> Stop:
    """The end of a search that has nothing left to try."""
    num_failed = len(state.given_up)
    if num_failed:
        tried = f"{num_failed} configuration{'s' if num_failed > 1 else ''} failed"
        return Stop(kind=StopKind.FAULTS, reason=f"{tried}, and no other is left to try")
    return Stop(kind=StopKind.UNREACHABLE, reason="no feasible configuration is left to try")


def _first_probe(state: SearchState) -> Until:
    """As far as the second scoring; for long trainings a share of the budget ends it before."""
    probe = state.job.probe
    if probe.slice_seconds is not None:
        return Until(training_seconds=probe.slice_seconds)
    first = first_evaluation(state.epoch_samples, probe.first_score_samples)
    samples = math.ceil(first * probe.score_growth)
    if state.cluster.virtual is not None:
        return Until(samples=samples)  # what it costs here goes by samples, whatever the virtual clock says
    time = state.job.budget.time
    limit = _FIRST_UNKNOWN if time is None else _FIRST_SHARE * time
    return Until(training_seconds=limit, samples=samples)


def _middle(configurations: list[Configuration]) -> Configuration:
    """The configuration nearest to the middle, on logarithmic axes, with the fewest nodes.

    Among strategies, one whose curve holds for any number of nodes comes first.
    """
    rows = np.log([[c.batch_size, c.learning_rate] for c in configurations])
    distance = np.abs(rows - np.median(rows, axis=0)).sum(axis=1)
    nodes = np.array([c.nodes for c in configurations])
    narrow = np.array([traits_of(c.strategy).statistics_depend_on_nodes for c in configurations])
    return configurations[int(np.lexsort((narrow, distance, nodes))[0])]
