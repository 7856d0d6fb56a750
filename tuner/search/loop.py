"""The search loop: it starts the slices that the policy chooses, and stores their measurements.

A slice is an uninterrupted part of a training. The loop repeats these steps: read the state from the
database, let the policy decide, start slices, wait until a slice ends, and store its measurement.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path

from threadpoolctl import threadpool_limits

from search_spaces import Configuration
from tuner.domain.errors import LeaseLostError, StorageError, TunerError
from tuner.domain.ledger import Lease, ProbeRecord
from tuner.domain.measurement import Measurement, Outcome, Purpose
from tuner.probes import Prober, Until
from tuner.probes.slice_plan import OWN_FILES
from tuner.search.beliefs import Beliefs, seconds_ratio
from tuner.search.capacity import UnderWay
from tuner.search.checkpoint_transfer import resume_on_other_nodes
from tuner.search.context import SearchContext
from tuner.search.events import SearchEvent, slice_words
from tuner.search.inflight import LEASE_SECONDS, POLL_SECONDS, Slice, SlicesUnderWay
from tuner.search.interrupts import INTERRUPTED_SLICE, INTERRUPTED_STOP
from tuner.search.lost_checkpoints import is_lost, started_folder
from tuner.search.lost_slices import probe_folder
from tuner.search.policy import Abandon, Action, Ask, Continue, Decision, Policy, Start, Stop, StopKind, Wait
from tuner.search.prediction_log import remember_beliefs
from tuner.search.runs import RunCache
from tuner.search.state import SearchState, read_state, run_of
from tuner.search.stopping import arrival, budget_used

#: If the sampler suggests a configuration that failed before, it is asked again, at most this number of
#: times.
_MOST_SUGGESTIONS = 50
#: When the budget is used up, running slices may still save a checkpoint. They may take as long as their
#: grace period plus this share of the elapsed time.
OVERRUN_SHARE = 0.05


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """The state of a search at its end, with the last forecasts.

    Args:
        state: State at the end of the search.
        beliefs: Forecasts of the time to target from the last decision. None if this decision had no
            forecasts, or if they are out of date because running slices ended later with new measurements.
        stop: The last action, with the cause of the end.
    """

    state: SearchState
    beliefs: Beliefs | None
    stop: Stop


class Search:
    """Runs a search: carries out the decisions of a policy, and stores what each slice measured.

    - A slice is an uninterrupted part of a training. While fewer slices are running than allowed, the policy
      chooses slices to start, until it chooses to wait.
    - When a slice ends, the search stores the measurement of the slice and lets the policy decide again.
    - Decisions depend only on the database and on the running slices. So a search that was killed can resume,
      and loses at most the slices that were running.
    - The caller must close the prober.

    Args:
        context: Job, cluster, database and other objects that the search uses.
        prober: Starts, polls and stops the slices.
        policy: Decides which slices to start, and when the search ends.
    """

    def __init__(self, context: SearchContext, prober: Prober, policy: Policy) -> None:
        self._context = context
        self._prober = prober
        self._policy = policy
        self._slices = SlicesUnderWay(context, prober)
        self._runs = RunCache(context.job)
        self._probes: list[ProbeRecord] = []
        self._held: Lease | None = None
        #: While a configuration that Optuna suggested waits for free nodes: the decision to ask Optuna, the
        #: number of the trial and the configuration. Otherwise None.
        self._asked: tuple[Decision, int, Configuration] | None = None

    def state(self) -> SearchState:
        """Reads the present state of the search from the database and the running slices."""
        context = self._context
        self._probes = context.ledger.probes(context.study.study_id, self._probes)
        capacity = self._slices.capacity()
        return read_state(
            context.job, context.cluster, self._probes, context.epoch_samples, capacity, cache=self._runs
        )

    def run(self) -> SearchResult:
        """Searches until the policy ends the search, and returns the result.

        If the user asks for it (`SearchContext.interruption`), the search ends after its running slices. An
        error or `KeyboardInterrupt` ends all running slices at once. After an interrupt, the time of these
        slices is charged; they may save a checkpoint first if the context says so.

        Raises:
            StorageError: Another Paceline process has taken over a training of this study.
        """
        try:
            # The models use small matrices. With several BLAS threads and busy ranks, fits took ten times as
            # long.
            with threadpool_limits(limits=1, user_api="blas"), self._context.interruption.deferred():
                return self._search()
        except KeyboardInterrupt:
            with contextlib.suppress(TunerError):
                if self._context.saves():
                    for ended in self._slices.end_all(0.0):
                        self._write_down(*ended)
                self._stop_all(self.state(), INTERRUPTED_SLICE)
            raise
        except LeaseLostError as error:
            name = self._context.study.name
            raise StorageError(
                f"another Paceline process is working on study {name} ({error}); "
                "wait until that process has ended, or start another study with --fresh"
            ) from error
        finally:
            try:
                self._slices.cancel()
            finally:
                self._give_leases_back()

    def _search(self) -> SearchResult:
        state = self.state()
        self._context.trials.complete(state.probes, _seconds_to_target(state))
        while True:
            ended = self._fill()
            if ended is not None:
                return ended
            self._await_one()

    def _fill(self) -> SearchResult | None:
        """Starts slices until as many run as allowed, or until the policy waits or ends the search.

        Returns:
            The result of the search if the policy ends it, else None.
        """
        while True:
            state = self.state()
            capacity = state.capacity
            interruption = self._context.interruption
            if capacity.under_way and interruption.is_requested:
                return None
            if len(capacity.under_way) >= capacity.num_slots and budget_used(state) is None:
                return None
            decision = self._policy.decide(state)
            self._context.watch(state, decision.beliefs)
            action = decision.action
            if interruption.is_requested and not isinstance(action, Stop):
                if capacity.under_way:
                    return None
                action = INTERRUPTED_STOP
            if self._asked is not None and not isinstance(action, Stop):
                if not state.fits(self._asked[2]):
                    return None
                self._start_asked(state)
                continue
            waits = isinstance(action, Wait) or (
                isinstance(action, Stop) and action.kind in (StopKind.NO_GAIN, StopKind.UNREACHABLE)
            )
            if state.capacity.under_way and (waits or not self._fits_now(state, action)):
                return None
            assert not isinstance(action, Wait), "the search policy must not wait while no slice is running"
            if decision.beliefs is not None:
                chosen = action.configuration if isinstance(action, Start) else None
                remember_beliefs(self._context, state, decision.beliefs, also=chosen)
            if isinstance(action, Stop):
                self._say(state, SearchEvent(kind="end", text=action.reason))
                has_more = self._end_all(state, action)
                if self._asked is not None:
                    self._context.trials.end(self._asked[1], Outcome.STOPPED, None, None)
                state, beliefs = self.state(), decision.beliefs
                if has_more:
                    # The slices that were just ended have new measurements, so the forecasts are out of date.
                    action, beliefs = arrival(state) or action, None
                self._settle(state, action)
                return SearchResult(state=state, beliefs=beliefs, stop=action)
            if isinstance(action, Abandon):
                self._abandon(state, action)
            else:
                self._execute(state, decision)

    @staticmethod
    def _fits_now(state: SearchState, action: Action) -> bool:
        """Whether the limits on concurrent slices and on nodes allow an action now."""
        if isinstance(action, Continue):
            return state.fits(_probe(state, action.probe_id).configuration)
        return not isinstance(action, Start) or state.fits(action.configuration)

    def _await_one(self) -> None:
        """Waits until a slice has ended and stores its measurement, or until the budget is used up."""
        self._keep_lease(None)
        context, state = self._context, self.state()
        while True:
            try:
                ended = self._slices.next_ended()
            except LeaseLostError as error:
                self._say(self.state(), _dropped(error))
                return
            if ended is not None:
                self._write_down(*ended)
                return
            if context.interruption.is_requested:
                self._finish(state)
                return
            # No slice has ended, so there is no need to read the ledger again.
            present = replace(state, capacity=self._slices.capacity())
            context.watch(present, None)
            if budget_used(present) is not None:
                return
            context.sleep(POLL_SECONDS)

    def _finish(self, state: SearchState) -> None:
        """Ends the running slices after an interrupt: those that end soon at their end, the others now."""
        for ended in self._slices.finish():
            self._write_down(*ended)
        self._stop_all(state, INTERRUPTED_SLICE)

    def _give_leases_back(self) -> None:
        """Releases all rights of this process to work on trainings, also on those that have not started."""
        context = self._context
        for probe in context.ledger.probes(context.study.study_id, self._probes):
            if probe.lease is not None and probe.lease.owner == context.owner:
                context.ledger.release(probe.lease)

    def _execute(self, state: SearchState, decision: Decision) -> None:
        action = decision.action
        if isinstance(action, Ask):
            self._asked = (decision, *self._suggested(state))
            if state.fits(self._asked[2]):
                self._start_asked(state)
        elif isinstance(action, Continue):
            probe = _probe(state, action.probe_id)
            folder = self._started_folder(probe)
            self._start(state, decision, self._take(probe), probe.configuration, folder)
        else:
            assert isinstance(action, Start)
            lease = self._begin(state, action)
            folder = self._probe_folder(lease.probe_id)
            if action.resume_from is not None:
                self._transfer(state, decision, action, lease, folder)
            self._start(state, decision, lease, action.configuration, folder)

    def _take(self, probe: ProbeRecord) -> Lease:
        context = self._context
        return context.ledger.take_probe(probe.probe_id, owner=context.owner, lease_seconds=LEASE_SECONDS)

    def _start(
        self, state: SearchState, decision: Decision, lease: Lease, configuration: Configuration, folder: Path
    ) -> None:
        action = decision.action
        assert isinstance(action, Start | Continue | Ask)
        purpose = Purpose.TRAINING if isinstance(action, Ask) else action.purpose
        words = f"{purpose.value}: {configuration} - {action.reason}"
        decided = SearchEvent(
            kind="decision", text=words, probe_id=lease.probe_id, configuration=configuration
        )
        self._say(state, decided)
        under_way = UnderWay(
            probe_id=lease.probe_id,
            configuration=configuration,
            purpose=purpose,
            num_nodes=state.cluster.nodes_held(configuration),
            expected_seconds=_expected_seconds(state, decision, configuration, action.until),
        )
        slices = [m for probe in state.probes if probe.probe_id == lease.probe_id for m in probe.slices]
        self._slices.start(lease, under_way, action.until, folder, slices)

    def _suggested(self, state: SearchState) -> tuple[int, Configuration]:
        """Asks Optuna for a configuration that has not failed; returns trial number and configuration."""
        given_up, trials = state.given_up, self._context.trials
        number, configuration = trials.ask()
        for _ in range(_MOST_SUGGESTIONS):
            if configuration not in given_up:
                break
            trials.end(number, Outcome.FAILED, None, None)
            number, configuration = trials.ask()
        return number, configuration

    def _start_asked(self, state: SearchState) -> None:
        """Starts the training of the configuration that Optuna suggested and that waits for free nodes."""
        assert self._asked is not None
        (decision, number, configuration), self._asked = self._asked, None
        lease = self._new_probe(configuration, Purpose.TRAINING, number)
        self._start(state, decision, lease, configuration, self._probe_folder(lease.probe_id))

    def _new_probe(self, configuration: Configuration, purpose: Purpose, number: int) -> Lease:
        context = self._context
        return context.ledger.start_probe(
            context.study.study_id,
            configuration,
            purpose,
            trial_number=number,
            owner=context.owner,
            lease_seconds=LEASE_SECONDS,
        )

    def _begin(self, state: SearchState, action: Start) -> Lease:
        # If the first slice of a probe of this configuration was interrupted before it trained, continue this
        # probe in its folder.
        for probe in state.probes:
            if probe.probe_id in state.capacity.probe_ids:
                continue
            same = probe.configuration == action.configuration and not any(m.samples for m in probe.slices)
            alike = (probe.purpose is Purpose.TIMING) == (action.purpose is Purpose.TIMING)
            if same and alike and probe.outcome.can_continue:
                return self._take(probe)
        number = self._context.trials.begin(action.configuration, action.purpose)
        return self._new_probe(action.configuration, action.purpose, number)

    def _transfer(
        self, state: SearchState, decision: Decision, action: Start, lease: Lease, folder: Path
    ) -> None:
        run = next(r for r in state.runs.values() if r.probe.probe_id == action.resume_from)
        source_folder = self._started_folder(run.probe)
        if is_lost(run.measurement, source_folder, without=OWN_FILES):
            return
        ratio = 1.0
        if run.configuration != action.configuration:
            ratio = seconds_ratio(state, action.configuration, run.configuration)
        started = resume_on_other_nodes(run.measurement, source_folder, folder, action.configuration, ratio)
        self._context.ledger.append_slice(lease, started)
        self._end(state, run.probe, f"resumed as probe {lease.probe_id}")

    def _write_down(self, active: Slice, measurement: Measurement) -> None:
        context, lease = self._context, active.lease
        try:
            context.ledger.append_slice(lease, measurement)
        except LeaseLostError as error:
            self._say(self.state(), _dropped(error))
            return
        self._keep_lease(lease)
        state = self.state()
        probe = _probe(state, lease.probe_id)
        words = slice_words(measurement)
        ended = SearchEvent(kind="slice", text=words, measurement=measurement, probe_id=probe.probe_id)
        self._say(state, ended)
        self._slices.warn(probe.probe_id, measurement)
        if probe.trial_number is not None:
            context.trials.report(probe.trial_number, measurement.curve)
        if not probe.outcome.can_continue:
            self._end_trial(state, probe)

    def _keep_lease(self, lease: Lease | None) -> None:
        """Keeps the lease of the slice that has just ended, and releases the lease that was kept before.

        A lease is the time-limited right to work on a probe. It is kept until the next decision, so no other
        process takes the probe before. It is not kept longer, because nothing renews it, and an expired lease
        counts as that of a killed process.

        Args:
            lease: Lease of the slice that has just ended; None to only release the lease that was kept
                before.
        """
        previous, self._held = self._held, lease
        if previous is not None and (lease is None or lease.probe_id != previous.probe_id):
            self._context.ledger.release(previous)

    def _end_all(self, state: SearchState, stop: Stop) -> bool:
        """Ends the running slices when the search ends, and stores their measurements and charges.

        If the budget ended the search, the slices are first asked to save a checkpoint. All scores are
        stored, even those after the newest checkpoint, from which a later search resumes the run.

        Args:
            state: State of the search.
            stop: The cause of the end.

        Returns:
            Whether any of these slices measured a score or a step time.
        """
        ended: list[Measurement] = []
        if stop.kind is StopKind.BUDGET:
            for active, measurement in self._slices.end_all(OVERRUN_SHARE * state.elapsed_seconds):
                self._write_down(active, measurement)
                ended.append(measurement)
        ended += self._stop_all(state)
        return any(measurement.curve or measurement.ranks for measurement in ended)

    def _stop_all(self, state: SearchState, error: str | None = None) -> list[Measurement]:
        """Stops the running slices immediately, stores their measurements and returns them.

        Args:
            state: State of the search.
            error: Message to store with each slice; None if the slices were not interrupted.
        """
        ended: list[Measurement] = []
        for active, measurement in self._slices.stop_all():
            before = _probe(state, active.lease.probe_id).measurement
            # If the training seconds include the start-up, they are too long. Then leave the scores out: the
            # run will have the same scores again when it resumes.
            is_clear = not measurement.counts_startup
            stopped = replace(
                measurement,
                curve=measurement.curve if is_clear else (),
                # A slice that was interrupted just after its start may have timed its start-up as a step.
                ranks=measurement.ranks if is_clear and error is None else (),
                outcome=Outcome.PAUSED,
                step=before.step if before else 0,
                samples=before.samples if before else 0,
                training_seconds=before.training_seconds if before else 0.0,
                checkpoint=before.checkpoint if before else None,
                error=error,
            )
            self._write_down(active, stopped)
            ended.append(stopped)
        return ended

    def _end_trial(self, state: SearchState, probe: ProbeRecord) -> None:
        if probe.trial_number is None:
            return
        arrived = _seconds_to_target(state).get(probe.probe_id)
        self._context.trials.end(probe.trial_number, probe.outcome, arrived, probe.measurement)

    def _abandon(self, state: SearchState, action: Abandon) -> None:
        probe = _probe(state, action.probe_id)
        words = f"given up: {probe.configuration} - {action.reason}"
        self._say(state, SearchEvent(kind="decision", text=words, configuration=probe.configuration))
        self._end(state, probe, action.reason)

    def _end(self, state: SearchState, probe: ProbeRecord, reason: str) -> None:
        """Stores that the search ended a probe (a trial training), unless the probe has ended already."""
        if probe.outcome.can_continue:
            self._context.ledger.end_probe(probe.probe_id, Outcome.STOPPED, reason)
            self._end_trial(state, replace(probe, outcome=Outcome.STOPPED))

    def _settle(self, state: SearchState, stop: Stop) -> None:
        """Ends the Optuna trials of all runs that could still continue, when the search ends.

        If the budget, failures or the user ended the search, the trials stay open, because a later search may
        continue these runs.
        """
        if stop.kind in (StopKind.BUDGET, StopKind.FAULTS, StopKind.INTERRUPTED):
            return
        for run in state.runs.values():
            if run.can_continue:
                self._end_trial(state, replace(run.probe, outcome=Outcome.STOPPED))

    def _started_folder(self, probe: ProbeRecord) -> Path:
        """Returns the folder with the files of a started probe, possibly in an earlier output folder.

        Raises:
            StorageError: The checkpoint is missing.
        """
        own_folder = self._probe_folder(probe.probe_id)
        return started_folder(probe, own_folder, restart_lost=self._context.restart_lost)

    def _probe_folder(self, probe_id: int) -> Path:
        folder = probe_folder(self._context.folder, self._context.study, probe_id)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"the probe folder {folder} cannot be created: {error}; choose another --output"
            ) from error
        return folder

    def _say(self, state: SearchState, event: SearchEvent) -> None:
        self._context.say(replace(event, spent_seconds=state.spent.seconds))


def _dropped(error: LeaseLostError) -> SearchEvent:
    return SearchEvent(kind="warning", text=f"{error}; what this slice measured is not stored")


def _seconds_to_target(state: SearchState) -> dict[int, float | None]:
    return {run.probe.probe_id: run.seconds_to_target for run in state.runs.values()}


def _probe(state: SearchState, probe_id: int) -> ProbeRecord:
    return next(probe for probe in state.probes if probe.probe_id == probe_id)


def _expected_seconds(
    state: SearchState, decision: Decision, configuration: Configuration, until: Until
) -> float:
    """Predicts for how many seconds a slice will occupy its nodes; 0 if unknown."""
    if not state.terms.is_training:
        return 0.0
    run = None if isinstance(decision.action, Ask) else run_of(state, configuration)
    ends = []
    if until.training_seconds is not None:
        done = run.measurement.training_seconds if run else 0.0
        ends.append(until.training_seconds - done)
    beliefs = decision.beliefs
    if until.samples is not None and beliefs is not None and configuration in beliefs.configurations:
        per_sample = beliefs.forecast.seconds_per_sample[beliefs.configurations.index(configuration)]
        ends.append((until.samples - (run.measurement.samples if run else 0)) * float(per_sample))
    if until.scores == 1 and beliefs is not None and configuration in beliefs.configurations:
        # A slice with the limit `scores=1` ends at the next score of its run.
        ends.append(float(beliefs.prospects.status.next_score[beliefs.configurations.index(configuration)]))
    return max(min(ends), 0.0) * state.overhead + state.slice_seconds if ends else 0.0
