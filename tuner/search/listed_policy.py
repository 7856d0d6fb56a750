"""Search policy for a list of recorded configurations: expected improvement per cost.

The constants of slices and first short probes were chosen on recordings of two small networks
(`benchmarks.small_recordings`) with the public TrimTuner networks in view, among two or three values each;
within that the cost of a search changed by no more than its spread over seeds.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt

from search_spaces import Configuration
from tuner.analytic.slope_predictor import SlopePredictor
from tuner.domain.measurement import Purpose
from tuner.probes import Until
from tuner.search.beliefs import Beliefs, prices
from tuner.search.believer import Believer, log_longest
from tuner.search.expected_gain import LEAST_GAIN
from tuner.search.first_probes import first_probes
from tuner.search.improvement import Weights, tail_savings, weigh
from tuner.search.limits import ended_by_fault, limit_reached, may_start, seconds_left
from tuner.search.opportunity_cost import OpportunityCost
from tuner.search.policy import Action, Continue, Decision, Start, Stop, StopKind, Wait
from tuner.search.state import SearchState, run_of

Array = npt.NDArray[np.float64]

#: A new probe covers this share of its predicted length; a started one resumes for this share of what it has
#: done.
_NEW_SHARE, _MORE_SHARE = 0.04, 0.3
#: Predicted lengths are capped at so many times the incumbent's: longer training is never chosen.
_LENGTHS = 2.0
#: No slice costs more than this share of all that was spent: what is learnt first decides on expensive ones.
_SHARE_OF_SPENT = 0.15
#: A slice is worth its start-up: at least this share of it, and so many steps.
_STARTUP_SHARE, _FEWEST_STEPS = 0.5, 4
#: A slice lasts at least this many steps, whatever it may cost.
_WHOLE_STEP = 1.1
#: A first short probe of an unknown run lasts no longer than this before its step time is known, seconds.
_UNKNOWN_STARTUP_SECONDS = 1.0


class ListedPolicy:
    """Runs one slice of the most promising candidate, refits, decides again.

    Where several slices may be in flight, those that are count as if they had shown what is expected of them
    (`SlopeModels.predict`), and none of them is proposed again. If one training in the shortest time is
    requested, the leader trains as soon as nodes are free, and candidates that run concurrently on other
    nodes cost no time (`OpportunityCost`). Else candidates go first, as they do one at a time.

    Args:
        believer: Fits the models; its seed is that of the first short probes, too.
    """

    def __init__(self, believer: Believer | None = None) -> None:
        self._believer = believer or Believer()
        self._first_probes: list[Configuration] | None = None
        self._past_faults: frozenset[int] | None = None

    def decide(self, state: SearchState) -> Decision:
        """See `Policy`."""
        if self._past_faults is None:
            self._past_faults = ended_by_fault(state)
        state = replace(state, past_faults=self._past_faults)
        beliefs = self._believer.of_list(state)
        predictor = beliefs.predictor
        assert isinstance(predictor, SlopePredictor)
        arrived = [run for run in state.runs.values() if run.arrived]
        if arrived and state.job.goal.trainings == 1:
            stop = Stop(kind=StopKind.ARRIVED, reason=f"a run reached the target: {arrived[0].configuration}")
            return Decision(action=stop, beliefs=beliefs)
        ended = limit_reached(state)
        if ended is not None:
            return Decision(action=ended, beliefs=beliefs if state.has_scores else None)
        # Before the first score nothing is known of the samples to the target, and nothing is forecast.
        is_scored = any(run.measurement.trained_curve for run in state.runs.values())
        first = self._first(state)
        if first is not None:
            return Decision(action=first, beliefs=beliefs if is_scored else None)
        if not is_scored:
            return Decision(action=self._unscored(state, beliefs, predictor))
        choose = self._concurrent if state.capacity.is_shared else self._next
        return Decision(action=choose(state, beliefs, predictor), beliefs=beliefs)

    def _first(self, state: SearchState) -> Action | None:
        """The user's present settings, then a few diverse probes; the cheaper half where dollars count."""
        first_candidates = self._probes(state)
        under_way = state.capacity.probe_ids
        tried = {p.configuration for p in state.probes if p.slices or p.probe_id in under_way}
        if under_way and not state.runs and (len(tried) >= len(first_candidates) or not may_start(state)):
            return Wait(reason="nothing is known yet")
        if len(tried) >= len(first_candidates) or not may_start(state):
            return None
        left = [candidate for candidate in first_candidates if candidate not in tried]
        if not left:
            return None
        chosen = next((candidate for candidate in left if state.fits(candidate)), None)
        if chosen is None:
            return Wait(reason="no nodes are free for a first short probe yet")
        is_baseline = chosen == state.job.baseline_configuration()
        return Start(
            configuration=chosen,
            purpose=Purpose.STATISTICS,
            until=Until(training_seconds=max(_startup(state), 1e-3)),
            reason="the present settings come first"
            if is_baseline
            else "a first short probe, unlike the others",
        )

    def _unscored(self, state: SearchState, beliefs: Beliefs, predictor: SlopePredictor) -> Action:
        """While no run has a score: the run that is cheapest per sample continues until it has one."""
        reason = "no run has a score yet: the cheapest for each sample continues to its first one"
        cost = np.exp(predictor.seconds.model.mean) * beliefs.price
        under_way = state.capacity.probe_ids
        for index in np.argsort(cost, kind="stable"):
            configuration = predictor.configurations[index]
            run = run_of(state, configuration)
            if run is None or run.probe.probe_id in under_way or not state.fits(configuration):
                continue
            if run.is_open:
                done = run.measurement.training_seconds
                until = _until(state, configuration, done, scores=1)
                return Continue(
                    probe_id=run.probe.probe_id, purpose=Purpose.STATISTICS, until=until, reason=reason
                )
        if state.capacity.under_way:
            return Wait(reason="no run has a score yet")
        for configuration in predictor.configurations:
            if run_of(state, configuration) is None and may_start(state):
                until = _until(state, configuration, 0.0, scores=1)
                return Start(
                    configuration=configuration, purpose=Purpose.STATISTICS, until=until, reason=reason
                )
        return Stop(kind=StopKind.UNREACHABLE, reason="no run was scored before it ended")

    def _probes(self, state: SearchState) -> list[Configuration]:
        """The first short probes, which are the same for all states of a search."""
        if self._first_probes is None:
            models = self._believer.models(state)
            configurations = models.configurations
            first_candidates = first_probes(
                configurations,
                models.features,
                prices(state, configurations) if state.job.goal.minimize == "dollars" else None,
                np.random.default_rng(self._believer.seed),
            )
            baseline = state.job.baseline_configuration()
            if baseline is not None and state.space.is_feasible(baseline):
                first_candidates = [baseline, *first_candidates[1:]]
            self._first_probes = first_candidates
        return self._first_probes

    def _next(self, state: SearchState, beliefs: Beliefs, predictor: SlopePredictor) -> Action:
        """The best option that pays back; else resume the incumbent, or stop."""
        startup = np.where(predictor.status.started, 0.0, _startup(state))
        weights = self._weights(state, beliefs, predictor)
        order = np.argsort(-weights.score, kind="stable")
        trainings = state.job.goal.trainings
        for index in order:
            if weights.score[index] <= 0:
                break
            if not predictor.status.started[index] and not may_start(state):
                continue
            seconds = weights.slice_seconds[index] + startup[index]
            pays = self._gain(predictor, weights, beliefs.price, int(index), trainings)
            if pays > seconds * beliefs.price[index]:
                return self._advance(state, predictor, weights, beliefs.price, int(index))
        incumbent = weights.incumbent
        run = run_of(state, predictor.configurations[incumbent])
        if run is None or not run.arrived:
            if (run is None and may_start(state)) or (run is not None and run.is_open):
                return self._advance(state, predictor, weights, beliefs.price, incumbent)
            return Stop(kind=StopKind.UNREACHABLE, reason="no configuration is expected to reach the target")
        unlikely = self._last_chance(state, beliefs, predictor, weights)
        if unlikely is not None:
            return self._advance(state, predictor, weights, beliefs.price, unlikely)
        return self._no_gain(state, beliefs)

    def _concurrent(self, state: SearchState, beliefs: Beliefs, predictor: SlopePredictor) -> Action:
        """The same where several slices may be in flight: what to start concurrently, or nothing yet."""
        weights = self._weights(state, beliefs, predictor)
        leader = weights.incumbent
        configurations = predictor.configurations
        run = run_of(state, configurations[leader])
        may_train = (run is None and may_start(state)) or (run is not None and run.is_open)
        wants_first = may_train and state.job.goal.trainings == 1
        opportunity = OpportunityCost(state=state, leader=configurations[leader] if wants_first else None)
        best = self._best_concurrent(state, beliefs, predictor, opportunity)
        if opportunity.leader_fits and opportunity.counts_seconds and (best is None or best[2] == 0.0):
            return self._advance(state, predictor, weights, beliefs.price, leader)
        if best is not None:
            believer, index, _ = best
            return self._advance(state, *believer, beliefs.price, index)
        if state.capacity.under_way:
            return Wait(reason="the slices in flight may change which configuration is best")
        if may_train:
            return self._advance(state, predictor, weights, beliefs.price, leader)
        if run is None or not run.arrived:
            return Stop(kind=StopKind.UNREACHABLE, reason="no configuration is expected to reach the target")
        unlikely = self._last_chance(state, beliefs, predictor, weights)
        if unlikely is not None:
            return self._advance(state, predictor, weights, beliefs.price, unlikely)
        return self._no_gain(state, beliefs)

    def _best_concurrent(
        self, state: SearchState, beliefs: Beliefs, predictor: SlopePredictor, opportunity: OpportunityCost
    ) -> tuple[tuple[SlopePredictor, Weights], int, float] | None:
        """The most promising candidate that fits and pays back, its acquisition, and its cost."""
        if state.capacity.under_way:
            under_way = {active.configuration for active in state.capacity.under_way}
            predictor = self._believer.slopes(state, under_way)
        weights = self._weights(state, beliefs, predictor)
        least = LEAST_GAIN * math.exp(min(weights.log_incumbent, 600.0))
        for index in np.argsort(-weights.score, kind="stable"):
            if weights.score[index] <= 0:
                break
            configuration, is_started = predictor.configurations[index], predictor.status.started[index]
            if not opportunity.allows(configuration) or (
                opportunity.counts_seconds and configuration == opportunity.leader
            ):
                continue
            if not is_started and not may_start(state):
                continue
            seconds = float(weights.slice_seconds[index]) + (0.0 if is_started else _startup(state))
            cost = opportunity.cost(configuration, seconds, float(beliefs.price[index]))
            pays = self._gain(predictor, weights, beliefs.price, int(index), state.job.goal.trainings)
            if pays > max(cost, least):
                return (predictor, weights), int(index), cost
        return None

    def _weights(self, state: SearchState, beliefs: Beliefs, predictor: SlopePredictor) -> Weights:
        return weigh(
            predictor,
            beliefs.price,
            np.where(predictor.status.started, 0.0, _startup(state)),
            partial(self._slice_seconds, state, predictor, beliefs.price),
            log_longest=log_longest(state, predictor),
            by_slice=state.job.goal.minimize == "dollars" and state.job.goal.trainings > 1,
        )

    def _last_chance(
        self, state: SearchState, beliefs: Beliefs, predictor: SlopePredictor, weights: Weights
    ) -> int | None:
        """The candidate that pays back by the whole tail of what is believed; None where none does."""
        longest = log_longest(state, predictor)
        savings = tail_savings(predictor, beliefs.price, weights.log_incumbent, longest)
        startup = np.where(predictor.status.started, 0.0, _startup(state))
        further = state.job.goal.trainings - 1
        return self._unlikely(state, predictor, weights, beliefs.price, savings * further, startup)

    @staticmethod
    def _no_gain(state: SearchState, beliefs: Beliefs) -> Stop:
        bound = beliefs.regret_bound or 1.0
        words = "faster" if state.job.goal.minimize == "seconds" else "cheaper"
        reason = (
            "no further probe is expected to pay back its cost; with 90% probability nothing in this space "
            f"is more than {100 * (bound - 1):.0f}% {words}"
        )
        return Stop(kind=StopKind.NO_GAIN, reason=reason)

    def _unlikely(
        self,
        state: SearchState,
        predictor: SlopePredictor,
        weights: Weights,
        price: Array,
        savings: Array,
        startup: Array,
    ) -> int | None:
        """Where nothing likely pays back: the candidate whose savings over all trainings do, for their cost.

        That it is better may be as unlikely as one in a thousand, if the answer serves so many trainings.
        """
        for index in np.argsort(-savings / weights.cost, kind="stable"):
            if not predictor.status.started[index] and not may_start(state):
                continue
            if savings[index] > (weights.slice_seconds[index] + startup[index]) * price[index]:
                return int(index)
        return None

    def _gain(
        self, predictor: SlopePredictor, weights: Weights, price: Array, index: int, trainings: int
    ) -> float:
        """What knowing a candidate is expected to save over all trainings that the answer serves."""
        status = predictor.status
        whole = float(weights.saving[index])
        incumbent = weights.incumbent
        if math.isfinite(status.arrived[incumbent]):
            return whole * max(trainings - 1, 0)
        # The first of the trainings is the one already started: what it has done need not be done again.
        best = math.exp(min(weights.log_incumbent, 600.0))
        left = max(best - float(status.seconds[incumbent] * price[incumbent]), 0.0)
        log_cost = predictor.log_seconds[index] + math.log(price[index])
        own = np.maximum(np.exp(np.minimum(log_cost, 600.0)) - status.seconds[index] * price[index], 0.0)
        first = float(status.likely[index] * (predictor.weights[index] @ np.maximum(left - own, 0.0)))
        return first + whole * (trainings - 1)

    @staticmethod
    def _slice_seconds(
        state: SearchState, predictor: SlopePredictor, price: Array, log_incumbent: float
    ) -> Array:
        """Training seconds of each candidate's next slice, `(num,)`."""
        started, elapsed, startup = predictor.status.started, predictor.status.seconds, _startup(state)
        batches = np.array([configuration.batch_size for configuration in predictor.configurations])
        step = np.exp(predictor.seconds.model.mean) * batches
        best = math.exp(min(log_incumbent, 600.0)) / price
        length = np.minimum(np.exp(np.minimum(predictor.mean_log, 600.0)), _LENGTHS * best)
        spent = state.spent.dollars if state.job.goal.minimize == "dollars" else state.spent.seconds
        most = _SHARE_OF_SPENT * spent / price - np.where(started, 0.0, startup)
        least_new = np.maximum(_STARTUP_SHARE * startup, _FEWEST_STEPS * step)
        least = np.where(started, np.maximum(0.25 * startup, 2 * step), least_new)
        share = np.where(started, np.maximum(_MORE_SHARE * elapsed, 0.03 * length), _NEW_SHARE * length)
        # A slice of less than a step would show nothing.
        most = np.maximum(most, np.maximum(_STARTUP_SHARE * startup, _WHOLE_STEP * step))
        found = np.minimum(np.maximum(share, least), most)
        to_next = _ends_at_score(state, predictor)
        return np.asarray(np.maximum(np.where(to_next, predictor.status.next_score, found), 1e-6))

    def _advance(
        self, state: SearchState, predictor: SlopePredictor, weights: Weights, price: Array, index: int
    ) -> Start | Continue:
        configuration = predictor.configurations[index]
        run = run_of(state, configuration)
        done = run.measurement.training_seconds if run is not None else 0.0
        if _ends_at_score(state, predictor)[index]:
            until = _until(state, configuration, done, scores=1)
        else:
            until = _until(state, configuration, done, seconds=float(weights.slice_seconds[index]))
        reason = self._reason(predictor, weights, price, index)
        if run is not None and run.is_open:
            return Continue(probe_id=run.probe.probe_id, purpose=Purpose.TRAINING, until=until, reason=reason)
        return Start(configuration=configuration, purpose=Purpose.STATISTICS, until=until, reason=reason)

    def _reason(self, predictor: SlopePredictor, weights: Weights, price: Array, index: int) -> str:
        if index == weights.incumbent:
            return "the best known, to confirm it"
        middle = float(predictor.mean_log[index]) + math.log(price[index]) - weights.log_incumbent
        spread = 1.645 * math.sqrt(float(predictor.variance_log[index]))
        low, high = math.exp(min(middle - spread, 50.0)), math.exp(min(middle + spread, 50.0))
        return f"may take {low:.2g} to {high:.2g} times the best known"


def _ends_at_score(state: SearchState, predictor: SlopePredictor) -> npt.NDArray[np.bool_]:
    """Which candidates' next slice ends at their next score, `(num,)`.

    A run without a score shows nothing before it has one. A new run does too where dollars count, since there
    probes of one length may differ in cost a hundredfold. Where seconds count, it shows its step time first.
    """
    runs = [run_of(state, configuration) for configuration in predictor.configurations]
    is_new = state.job.goal.minimize == "dollars"
    return np.array(
        [is_new if run is None else not run.measurement.trained_curve for run in runs], dtype=bool
    )


def _until(
    state: SearchState,
    configuration: Configuration,
    done: float,
    *,
    seconds: float = math.inf,
    scores: int | None = None,
) -> Until:
    """The end of a slice, which the budget may bring about earlier.

    Args:
        state: What is spent.
        configuration: What runs.
        done: Training seconds of its run so far.
        seconds: How much longer it trains at most.
        scores: New scores that end it.
    """
    left = min(seconds, max(seconds_left(state, configuration), 1e-3))
    return Until(training_seconds=done + left if math.isfinite(left) else None, scores=scores)


def _startup(state: SearchState) -> float:
    """Seconds a new probe is charged before it trains: what was seen, else what is stated."""
    seen = [m.startup_seconds for m in state.slices if m.startup_seconds > 0]
    if seen:
        return float(np.median(seen))
    recording = state.job.recording()
    return recording.startup_seconds if recording is not None else _UNKNOWN_STARTUP_SECONDS
