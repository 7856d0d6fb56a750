"""The model-based search policy: it chooses what to train next by predicted times to target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from search_spaces import Configuration, traits_of
from tuner.analytic.features import Features
from tuner.analytic.laws import Array
from tuner.domain.format import format_seconds
from tuner.domain.measurement import Outcome, Purpose
from tuner.probes import Until
from tuner.search.acquisition import Acquisition
from tuner.search.beliefs import Beliefs, candidates, prices
from tuner.search.believer import Believer
from tuner.search.opportunity_cost import OpportunityCost
from tuner.search.policy import Action, Continue, Decision, Start, Stop, StopKind, Wait
from tuner.search.recheck import recheck
from tuner.search.runs import Run
from tuner.search.state import SearchState, run_of
from tuner.search.stopping import arrival, ended_by_fault, limit_reached, may_start, seconds_left

#: Maximum length of a first short probe: a share of the time budget, or, without a time budget, this number
#: of training seconds.
_FIRST_SHARE, _FIRST_UNKNOWN = 0.1, 600.0
#: Numbers of first short probes: without and with cost models, which describe the effect of every axis, so
#: fewer probes are needed.
_FIRST_PROBES, _FIRST_WITH_LAWS = 3, 1
#: If the goal is to minimize dollars, the first probes are chosen from the cheapest candidates, which are
#: this share of all candidates.
_CHEAP_SHARE = 0.4
#: Distances between candidates are multiplied by random factors from this value to 1, so that searches with
#: different seeds choose different first probes.
_LEAST_FACTOR = 0.5
#: If the first run has its first score at 1000 samples and no run improves, a second run starts once the
#: first has processed `_FIRST_WAIT` times 1000 samples. For each further run, the factor is multiplied by
#: `_MORE_WAIT`.
_FIRST_WAIT, _MORE_WAIT = 8.0, 3.0
#: If imported runs improved only after more samples than that, the second run starts once the first has
#: processed `_RISE_FACTOR` times the number of samples at which imported runs improved. The factor
#: `_FIRST_WAIT` becomes at most `_MOST_WAIT` times as large.
_RISE_FACTOR, _MOST_WAIT = 1.5, 4.0
#: The search concludes that no configuration reaches the target only after this number of runs with a score.
_FEWEST_TRIED = 3


class ModelPolicy:
    """Chooses the slice with the largest expected improvement per cost (`Acquisition`).

    A slice is an uninterrupted part of a training. The incumbent is the candidate configuration with the
    smallest expected cost.

    - A slice runs if its expected saving, over all trainings that will use the recommendation, is larger than
      its cost.
    - If no slice saves more than it costs, the incumbent trains to the target, and the search ends.
    - With concurrent slices, a new slice is chosen as if the running slices had already shown their expected
      results.
    - If the goal is one training in the shortest time, the incumbent trains as soon as nodes are free. While
      it trains, slices on other nodes cost no additional time (`OpportunityCost`).

    Args:
        believer: Fits the models and makes the forecasts. Its seed also determines which configurations are
            trained first.
    """

    def __init__(self, believer: Believer | None = None) -> None:
        self._believer = believer or Believer()
        self._first_probes: list[Configuration] | None = None
        self._past_faults: frozenset[int] | None = None

    def decide(self, state: SearchState) -> Decision:
        """Returns the next action and the forecasts on which it is based; see `Policy`."""
        if self._past_faults is None:
            self._past_faults = ended_by_fault(state)
        state = replace(state, past_faults=self._past_faults)
        # Samples to target cannot be forecast before the scores of a run have improved.
        beliefs = self._believer.believe(state) if state.is_scored else None
        action = arrival(state) or limit_reached(state) or self._first(state)
        if action is None:
            action = self._unscored(state) if beliefs is None else self._best(state, beliefs)
        return Decision(action=action, beliefs=beliefs)

    def _first(self, state: SearchState) -> Action | None:
        """Returns the action that starts the next of the first short trainings.

        The first of them has the user's present settings.

        Returns:
            The action: to start a training, or to wait for free nodes or for the first results. None if all
            first trainings have been started.
        """
        under_way = state.capacity.probe_ids
        tried = {p.configuration for p in state.tried if p.probe_id not in state.past_faults}
        wanted, baseline = self._wanted(state), state.job.baseline_configuration()
        left = [c for c in wanted if c not in tried and state.space.is_runnable(c)]
        num_first = _FIRST_WITH_LAWS if self._believer.knows_laws(state) else _FIRST_PROBES
        is_due = bool(left) and (left[0] == baseline or len(tried) < num_first or not state.runs)
        if not is_due or not may_start(state):
            return (
                Wait(reason="the first training has no result yet") if under_way and not state.runs else None
            )
        chosen = next((configuration for configuration in left if state.fits(configuration)), None)
        if chosen is None:
            return Wait(reason="no nodes are free for a first short training yet")
        reason = (
            "a first short training, in the middle of the search space"
            if not tried
            else "a first short training"
        )
        return Start(
            configuration=chosen,
            purpose=Purpose.STATISTICS,
            until=self._first_until(state),
            reason="the user's present settings are tried first" if chosen == baseline else reason,
        )

    def _wanted(self, state: SearchState) -> list[Configuration]:
        """Returns the configurations to train first, which are chosen once per search."""
        if self._first_probes is None:
            if self._believer.knows_laws(state):
                found = _from_the_middle(state.space.candidates())
            else:
                listed = candidates(state, np.random.default_rng(self._believer.seed))
                by_price = state.job.goal.minimize == "dollars"
                found = first_probes(
                    listed,
                    self._believer.slopes(state, listed).features,
                    prices(state, listed) if by_price else None,
                    np.random.default_rng(self._believer.seed),
                )
            baseline = state.job.baseline_configuration()
            if baseline is not None and state.space.is_runnable(baseline):
                others = found if self._believer.knows_laws(state) else found[1:]
                found = [baseline, *(c for c in others if c != baseline)]
            self._first_probes = found
        return self._first_probes

    def _first_until(self, state: SearchState) -> Until:
        """Returns the limits of a first short training: its second score, and a share of the time budget.

        If it is not known when the script evaluates the model, the training lasts as long as a start-up.
        """
        stated, terms = state.job.probe.slice_seconds, state.terms
        if stated is not None:
            return Until(training_seconds=stated)
        first = terms.next_score_samples(0)
        if first is None:
            return Until(training_seconds=max(state.startup_seconds, 1e-3))
        samples = terms.next_score_samples(first)
        if not terms.is_training:  # the cost of emulation depends on samples, not on training seconds
            return Until(samples=samples)
        time = state.job.budget.time
        limit = _FIRST_UNKNOWN if time is None else _FIRST_SHARE * time
        return Until(training_seconds=limit, samples=samples)

    def _unscored(self, state: SearchState) -> Action:
        """Chooses the next action while no run has improved since its first score, so no model can be fitted.

        - Runs without a score train to their first score. The run with the smallest cost per sample goes
          first.
        - Then the run continues whose number of samples, divided by the number at its first score, is
          smallest.
        - Another run starts once this ratio has reached a limit for every run. The limit grows with the
          number of runs (`_FIRST_WAIT`, `_MORE_WAIT`).
        """
        reason = "no score is better than the first one yet, so runs continue until one is"
        under_way = state.capacity.probe_ids
        runs = [run for run in state.runs.values() if run.is_open and state.fits(run.configuration)]
        price = prices(state, [run.configuration for run in runs])
        ranked = sorted(
            (_times_first_score(run), cost * run.measurement.training_seconds / max(run.seen_samples, 1), i)
            for i, (run, cost) in enumerate(zip(runs, price, strict=True))
            if run.probe.probe_id not in under_way
        )
        untried = self._untried(state) if may_start(state) else []
        longest = self._first_wait(runs) * _MORE_WAIT ** (len(runs) - 1)
        if ranked and (ranked[0][0] < longest or not untried):
            run = runs[ranked[0][2]]
            probe_id, until = run.probe.probe_id, _unrisen_until(state, run.configuration, run)
            return Continue(probe_id=probe_id, purpose=Purpose.STATISTICS, until=until, reason=reason)
        if state.capacity.under_way:
            return Wait(reason="no run has a score yet")
        if not untried:
            return _nothing_left(state)
        until = _unrisen_until(state, untried[0], None)
        return Start(configuration=untried[0], purpose=Purpose.STATISTICS, until=until, reason=reason)

    def _first_wait(self, runs: Sequence[Run]) -> float:
        """Returns for how long the first run trains before a second run starts.

        The unit is the number of samples at the first score.
        """
        firsts = [run.measurement.trained_curve[0].samples for run in runs if run.measurement.trained_curve]
        if not firsts:
            return _FIRST_WAIT
        late = _RISE_FACTOR * self._believer.rise_samples / min(firsts)
        return _FIRST_WAIT * min(max(late / _FIRST_WAIT, 1.0), _MOST_WAIT)

    def _untried(self, state: SearchState) -> list[Configuration]:
        """Lists the configurations that may be started while no run has improved, in order of preference."""
        tried = state.given_up | {probe.configuration for probe in state.tried}
        # If a run diverged, runs with larger learning rates are expected to diverge too.
        broken = [r.configuration for r in state.runs.values() if r.probe.outcome is Outcome.DIVERGED]
        largest = min((c.learning_rate for c in broken if "learning_rate" in c), default=math.inf)
        return [
            c
            for c in dict.fromkeys([*self._wanted(state), *state.space.candidates()])
            if c not in tried
            and state.space.is_runnable(c)
            and run_of(state, c) is None
            and ("learning_rate" not in c or c.learning_rate < largest)
        ]

    def _best(self, state: SearchState, beliefs: Beliefs) -> Action:
        """Chooses the next action from the forecasts.

        The result is the best slice that is expected to save more than it costs. If there is none, it is the
        next slice of the incumbent (the best candidate so far), or the end of the search if the incumbent has
        reached the target.
        """
        acquisition = Acquisition(state, beliefs, beliefs.prospects)
        num_scored = sum(bool(run.measurement.trained_curve) for run in state.runs.values())
        is_known = num_scored >= _FEWEST_TRIED and not state.capacity.under_way
        if is_known and not acquisition.is_reachable:
            return self._unreachable(state, beliefs)
        wants_leader = acquisition.can_go_on and not acquisition.has_arrived
        is_first = state.further_trainings == 0 or not state.terms.is_training
        leader = beliefs.configurations[acquisition.incumbent] if wants_leader and is_first else None
        opportunity = OpportunityCost(state=state, leader=leader)
        if opportunity.leader_fits and _leader_is_due(state):
            return acquisition.go_on()
        challenger = acquisition
        if state.capacity.under_way:
            incumbent = beliefs.configurations[acquisition.incumbent]
            challenger = Acquisition(state, beliefs, self._believer.prospects(state, beliefs, incumbent))
        option = challenger.best_option(opportunity)
        concurrently = state.capacity.is_shared and opportunity.leader_fits and opportunity.counts_seconds
        if concurrently and (option is None or option.share_of_cost == 0.0):
            return acquisition.go_on()
        if option is not None:
            return challenger.before_the_budget_ends(option) or challenger.execute(option)
        if state.capacity.under_way:
            return Wait(reason="the running slices may change which configuration is best")
        if not acquisition.has_arrived:
            goes_on = wants_leader and acquisition.keeps_limits
            return acquisition.go_on() if goes_on else self._unreachable(state, beliefs)
        return recheck(state, beliefs.configurations[acquisition.incumbent]) or _no_gain(state, beliefs)

    def _unreachable(self, state: SearchState, beliefs: Beliefs) -> Action:
        """Ends the search because no candidate configuration is expected to reach the target.

        If fewer than `_FEWEST_TRIED` runs have a score, it starts a run of a very different configuration
        instead.
        """
        laws = self._believer.knows_laws(state)
        scored = [run.configuration for run in state.runs.values() if run.measurement.trained_curve]
        tried = {probe.configuration for probe in state.tried}
        untried = [c for c in beliefs.configurations if c not in tried and state.space.is_runnable(c)]
        if laws and len(scored) < _FEWEST_TRIED and untried and may_start(state):
            seen = np.log([[c.batch_size, c.learning_rate] for c in scored])
            rows = np.log([[c.batch_size, c.learning_rate] for c in untried])
            nearest = np.abs(rows[:, None, :] - seen[None, :, :]).sum(axis=2).min(axis=1)
            # Choose a candidate halfway to the farthest one, because few configurations at the limits of the
            # space train well.
            return Start(
                configuration=untried[int(np.argmin(np.abs(nearest - 0.5 * nearest.max())))],
                purpose=Purpose.STATISTICS,
                until=self._first_until(state),
                reason=f"the target seems out of reach, but only {len(scored)} runs have a score",
            )
        return Stop(
            kind=StopKind.UNREACHABLE,
            reason="no configuration is expected to reach the target within the limits",
        )


def _times_first_score(run: Run) -> float:
    """Returns the samples that a run has processed, divided by those at its first score (0 without one)."""
    curve = run.measurement.trained_curve
    return run.measurement.samples / curve[0].samples if curve else 0.0


def _unrisen_until(state: SearchState, configuration: Configuration, run: Run | None) -> Until:
    """Returns the limits of the next slice of a run, while no run has improved since its first score.

    - A run without a score trains until its first score.
    - A run with a score doubles the number of samples that it has processed.
    - If start-up is charged for every slice, the slice trains at least as long as a start-up takes, so
      start-up is at most half of its cost.
    - The slice ends at the latest when the budget ends.

    Args:
        state: State of the search.
        configuration: The configuration to run.
        run: The started run of this configuration; None if the run has not started.
    """
    seen, done = (run.seen_samples, run.measurement.training_seconds) if run else (0, 0.0)
    end, stated = done + max(seconds_left(state, configuration), 1e-3), state.job.probe.slice_seconds
    if stated is not None:
        return Until(training_seconds=min(done + stated, end))
    until = Until(training_seconds=end if math.isfinite(end) else None, scores=1)
    startup = state.slice_seconds if state.terms.pays_to_resume and state.terms.is_training else 0.0
    runs = [run] if run else list(state.runs.values())
    seconds = sum(one.measurement.training_seconds for one in runs)
    more = math.ceil(startup * sum(one.seen_samples for one in runs) / seconds) if seconds > 0.0 else 0
    if run is None:
        more = state.next_score_samples(configuration, more) or 0
    elif run.measurement.trained_curve:
        more = max(more, seen)
    elif done >= startup:
        more = 0
    return replace(until, scores=None, samples=seen + more) if more else until


def _leader_is_due(state: SearchState) -> bool:
    """Whether the best candidate so far trains next, before other candidates (only for emulated ranks).

    Half of the charged time goes to training the best candidate to the target, and half to the other
    candidates (top-two sampling; Russo 2016). So the recommended configuration has always been trained.
    """
    if state.terms.is_training:
        return False
    leading = sum(m.charged_seconds for m in state.slices if m.purpose is Purpose.TRAINING)
    return leading < state.spent.seconds - leading


def _no_gain(state: SearchState, beliefs: Beliefs) -> Stop:
    words = "fast" if state.job.goal.minimize == "seconds" else "cheap"
    reason, bound = "no further probe is expected to pay back its cost", beliefs.regret_bound
    run = run_of(state, beliefs.recommended) if beliefs.recommended else None
    starts = len(state.startups) if state.terms.pays_to_resume else 0
    is_measured = starts > (1 if state.terms.reuses_ranks else 0)
    if run and run.seconds_to_target and is_measured and state.terms.is_training:
        startup, left = state.startup_seconds, state.further_trainings * run.seconds_to_target
        reason += f": starting a probe takes {format_seconds(startup)}, "
        reason += f"all further trainings {format_seconds(left)}"
    if math.isfinite(bound):
        reason += f"; with 90% probability nothing in this space is more than {bound:.2g} times as {words}"
    return Stop(kind=StopKind.NO_GAIN, reason=reason)


def _nothing_left(state: SearchState) -> Stop:
    """Returns the end of a search in which no run has improved although every configuration was tried."""
    num_failed = len(state.given_up)
    if num_failed:
        tried = f"{num_failed} configuration{'s' if num_failed > 1 else ''} failed"
        return Stop(kind=StopKind.FAULTS, reason=f"{tried}, and no other configuration is left to try")
    reason = (
        "all runs ended before their first score"
        if state.runs
        else "no feasible configuration is left to try"
    )
    return Stop(kind=StopKind.UNREACHABLE, reason=reason)


def _from_the_middle(configurations: list[Configuration]) -> list[Configuration]:
    """Sorts configurations by number of nodes, then by distance from the middle of the search space.

    The distance is measured in the logarithms of batch size and learning rate. At the same distance,
    strategies whose learning curve does not depend on the number of nodes come first.
    """
    rows = np.log([[c.batch_size, c.learning_rate] for c in configurations])
    distance = np.abs(rows - np.median(rows, axis=0)).sum(axis=1)
    nodes = np.array([c.nodes for c in configurations])
    narrow = np.array([traits_of(c.strategy).statistics_depend_on_nodes for c in configurations])
    return [configurations[i] for i in np.lexsort((narrow, distance, nodes))]


def first_probes(
    configurations: Sequence[Configuration],
    features: Features,
    price: Array | None,
    rng: np.random.Generator,
) -> list[Configuration]:
    """Chooses the configurations that a search trains first, each for a short time.

    The first one is near the middle of the search space. Each further one is far from those already chosen.

    Args:
        configurations: The configurations to choose from.
        features: Numbers computed from each configuration, by which distances between configurations are
            measured.
        price: Cost of one second with each configuration, `(num,)`, to choose only from the cheapest
            configurations; None to choose from all.
        rng: Random generator. It multiplies each distance by a random factor.
    """
    num = len(configurations)
    allowed = rng.permutation(num)
    if price is not None:
        rank = np.argsort(np.argsort(price[allowed], kind="stable"), kind="stable")
        allowed = allowed[rank < max(_CHEAP_SHARE * num, min(_FIRST_PROBES, num))]
    positions = features.positions
    spans = np.maximum(np.ptp(positions, axis=0), 1e-9) if positions.size else np.ones(0)
    scaled = 2.0 * positions / spans
    middle = 0.5 * (scaled[allowed].min(axis=0) + scaled[allowed].max(axis=0))
    from_middle = ((scaled[allowed] - middle) ** 2).sum(axis=1) * rng.uniform(
        _LEAST_FACTOR, 1.0, len(allowed)
    )
    picked = [int(allowed[int(np.argmin(from_middle))])]
    while len(picked) < min(_FIRST_PROBES, len(allowed)):
        squared = [((scaled[allowed] - scaled[p]) ** 2).sum(axis=1) for p in picked]
        nearest = np.min(squared, axis=0) * rng.uniform(_LEAST_FACTOR, 1.0, len(allowed))
        nearest[np.isin(allowed, picked)] = -1.0
        picked.append(int(allowed[int(np.argmax(nearest))]))
    return [configurations[i] for i in picked]
