"""The loop: read the state, decide, carry out one slice, write it down, decide again."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from threadpoolctl import threadpool_limits

from search_spaces import Configuration, traits_of
from tuner.cluster import Cluster
from tuner.errors import LeaseLostError, StorageError
from tuner.job import Job
from tuner.ledger import Lease, Ledger, ProbeRecord, StudyRecord
from tuner.measurement import Measurement, Outcome, Purpose
from tuner.probes import ProbeHandle, Prober, Until
from tuner.search.beliefs import seconds_ratio
from tuner.search.carry import carried, carry_over
from tuner.search.events import Listener, SearchEvent, ignore
from tuner.search.memory import remember_beliefs
from tuner.search.policy import Abandon, Ask, Continue, Decision, Policy, Start, Stop, StopKind
from tuner.search.state import SearchState, read_state
from tuner.search.trials import StudyTrials

_LEASE_SECONDS = 60.0
_POLL_SECONDS = 0.05


@dataclass(frozen=True, kw_only=True)
class SearchSetting:
    """What a search works with.

    Args:
        job: The job.
        cluster: What it trains on.
        study: Its study.
        ledger: Its memory.
        trials: The Optuna study.
        folder: The output folder; probes lie in `probes/` below it.
        epoch_samples: Size of the training set.
        owner: Names this process in leases.
        clock: Seconds since the epoch.
        sleep: Waits so many seconds.
        listen: Is told what happens.
    """

    job: Job
    cluster: Cluster
    study: StudyRecord
    ledger: Ledger
    trials: StudyTrials
    folder: Path
    epoch_samples: int
    owner: str
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    listen: Listener = ignore


class Search:
    """Carries a policy's decisions out, slice by slice.

    Everything a decision rests on is in the ledger: a search that was killed goes on where it was,
    having lost at most the slice under way. The prober is not closed here.

    Args:
        setting: What it works with.
        prober: Carries out slices.
        policy: Decides.
    """

    def __init__(self, setting: SearchSetting, prober: Prober, policy: Policy) -> None:
        self._setting = setting
        self._prober = prober
        self._policy = policy
        self._held: Lease | None = None

    def state(self) -> SearchState:
        """Where the search stands now."""
        setting = self._setting
        probes = setting.ledger.probes(setting.study.study_id)
        return read_state(setting.job, setting.cluster, probes, setting.epoch_samples)

    def run(self) -> tuple[Stop, Decision]:
        """Searches until the policy stops; returns why, with what was believed then.

        Raises:
            StorageError: Another worker has taken a probe of this study.
        """
        try:
            # Beside busy ranks, threads for matrices as small as ours wait for each other: fits took ten
            # times as long.
            with threadpool_limits(limits=1, user_api="blas"):
                return self._search()
        except LeaseLostError as error:
            name = self._setting.study.name
            raise StorageError(
                f"study {name} is being worked on by another tuner ({error}); "
                "wait for it to end, or start another study with --fresh"
            ) from error
        finally:
            self._hold(None)

    def _search(self) -> tuple[Stop, Decision]:
        self._tidy()
        while True:
            state = self.state()
            decision = self._policy.decide(state)
            self._remember(state, decision)
            action = decision.action
            if isinstance(action, Stop):
                self._say("end", action.reason, state)
                self._settle(state, action)
                return action, decision
            if isinstance(action, Abandon):
                self._abandon(state, action)
                continue
            self._carry_out(state, decision)

    def _hold(self, lease: Lease | None) -> None:
        """Keeps the last probe's lease while the next is decided on, so that no other tuner comes between."""
        previous, self._held = self._held, lease
        if previous is not None and (lease is None or lease.probe_id != previous.probe_id):
            self._setting.ledger.release(previous)

    def _tidy(self) -> None:
        """Ends trials for which no probe was recorded."""
        self._setting.trials.fail_orphans(
            [p.trial_number for p in self.state().probes if p.trial_number is not None]
        )

    def _remember(self, state: SearchState, decision: Decision) -> None:
        if decision.beliefs is None:
            return
        action = decision.action
        setting = self._setting
        remember_beliefs(
            setting.ledger,
            setting.study,
            state,
            decision.beliefs,
            setting.clock(),
            also=action.configuration if isinstance(action, Start) else None,
        )

    def _carry_out(self, state: SearchState, decision: Decision) -> None:
        action, setting = decision.action, self._setting
        if isinstance(action, Continue):
            probe = next(p for p in state.probes if p.probe_id == action.probe_id)
            lease = setting.ledger.take_probe(
                probe.probe_id, owner=setting.owner, lease_seconds=_LEASE_SECONDS
            )
            configuration, number, purpose = probe.configuration, probe.trial_number, action.purpose
            folder = self._begun_folder(probe)
        else:
            assert isinstance(action, Start | Ask)
            purpose = action.purpose if isinstance(action, Start) else Purpose.TRAINING
            lease, configuration, number = self._begin(state, action, purpose)
            folder = self._probe_folder(lease.probe_id)
            if isinstance(action, Start) and action.carry_from is not None:
                self._carry(state, decision, action, lease, folder)
        self._say("decision", f"{purpose.value}: {configuration} - {action.reason}", state)
        try:
            measurement = self._slice(lease, configuration, purpose, action.until, folder)
        except LeaseLostError as error:
            self._say("warning", f"{error}; what this slice brought is dropped", state)
            return
        self._write_down(lease, number, measurement, state)

    def _begin(
        self, state: SearchState, action: Start | Ask, purpose: Purpose
    ) -> tuple[Lease, Configuration, int | None]:
        setting = self._setting
        if isinstance(action, Start):
            # A probe whose first slice was cut off goes on in its folder, from what was checkpointed there.
            for probe in state.probes:
                same = probe.configuration == action.configuration and not probe.slices
                alike = (probe.purpose is Purpose.TIMING) == (purpose is Purpose.TIMING)
                if same and alike and probe.outcome.can_continue:
                    lease = setting.ledger.take_probe(
                        probe.probe_id, owner=setting.owner, lease_seconds=_LEASE_SECONDS
                    )
                    return lease, action.configuration, probe.trial_number
        if isinstance(action, Ask):
            number, configuration = setting.trials.ask()
        else:
            configuration = action.configuration
            number = setting.trials.begin(configuration, purpose)
        lease = setting.ledger.start_probe(
            setting.study.study_id,
            configuration,
            purpose,
            trial_number=number,
            owner=setting.owner,
            lease_seconds=_LEASE_SECONDS,
        )
        return lease, configuration, number

    def _carry(
        self, state: SearchState, decision: Decision, action: Start, lease: Lease, folder: Path
    ) -> None:
        run = next(r for r in state.runs.values() if r.probe.probe_id == action.carry_from)
        ratio = 1.0
        if run.configuration != action.configuration:
            assert decision.beliefs is not None
            ratio = seconds_ratio(decision.beliefs, action.configuration, run.configuration)
        begun = carry_over(
            run.measurement, self._begun_folder(run.probe), folder, action.configuration, ratio
        )
        self._setting.ledger.append_slice(lease, begun)
        self._end(state, run.probe, f"carried on as probe {lease.probe_id}")

    def _slice(
        self, lease: Lease, configuration: Configuration, purpose: Purpose, until: Until, folder: Path
    ) -> Measurement:
        """One slice from start to end; whatever ends this process ends the slice."""
        clock = carried(folder)
        handle = self._prober.start(configuration, purpose, clock.until(until), folder)
        try:
            measurement = self._watch(lease, handle)
        except BaseException:
            self._prober.cancel(handle)
            self._setting.ledger.release(lease)
            raise
        if purpose is Purpose.TIMING and measurement.outcome is Outcome.PAUSED:
            measurement = replace(measurement, outcome=Outcome.STOPPED)
        return clock.of(measurement)

    def _watch(self, lease: Lease, handle: ProbeHandle) -> Measurement:
        setting = self._setting
        renew_at = setting.clock() + _LEASE_SECONDS / 3
        seen: tuple[int, str] | None = None
        while True:
            measurement = self._prober.poll(handle)
            if measurement.outcome is not Outcome.RUNNING:
                return measurement
            if (measurement.step, measurement.waiting) != seen:
                seen = (measurement.step, measurement.waiting)
                setting.listen(SearchEvent(kind="progress", text="", measurement=measurement))
            if setting.clock() >= renew_at:
                lease = setting.ledger.renew(lease, lease_seconds=_LEASE_SECONDS)
                renew_at = setting.clock() + _LEASE_SECONDS / 3
            setting.sleep(_POLL_SECONDS)

    def _write_down(
        self, lease: Lease, number: int | None, measurement: Measurement, before: SearchState
    ) -> None:
        setting = self._setting
        try:
            setting.ledger.append_slice(lease, measurement)
        except LeaseLostError as error:
            self._say("warning", f"{error}; what this slice brought is dropped", before)
            return
        self._hold(lease)
        state = self.state()
        probe = next(p for p in state.probes if p.probe_id == lease.probe_id)
        self._say("slice", _slice_words(measurement), state, measurement)
        if number is None:
            return
        setting.trials.report(number, measurement.curve)
        if not probe.outcome.can_continue:
            self._tell(state, probe)

    def _tell(self, state: SearchState, probe: ProbeRecord) -> None:
        if probe.trial_number is None:
            return
        runs = {run.probe.probe_id: run for run in state.runs.values()}
        run = runs.get(probe.probe_id)
        self._setting.trials.end(
            probe.trial_number,
            probe.outcome,
            run.seconds_to_target if run else None,
            probe.measurement,
        )

    def _abandon(self, state: SearchState, action: Abandon) -> None:
        probe = next(p for p in state.probes if p.probe_id == action.probe_id)
        self._say("decision", f"given up: {probe.configuration} - {action.reason}", state)
        self._end(state, probe, action.reason)

    def _end(self, state: SearchState, probe: ProbeRecord, reason: str) -> None:
        """Ends a probe on purpose; one that has ended keeps its end."""
        if probe.outcome.can_continue:
            self._setting.ledger.end_probe(probe.probe_id, Outcome.STOPPED, reason)
            self._tell(state, replace(probe, outcome=Outcome.STOPPED))

    def _settle(self, state: SearchState, stop: Stop) -> None:
        """Tells Optuna the end of what will not go on; after a used-up budget everything may go on."""
        if stop.kind in (StopKind.BUDGET, StopKind.FAULTS):
            return
        for run in state.runs.values():
            if run.can_continue:
                self._tell(state, replace(run.probe, outcome=Outcome.STOPPED))

    def _begun_folder(self, probe: ProbeRecord) -> Path:
        """The folder of a probe that has slices: where its checkpoint is, whatever the output folder now."""
        measured = probe.measurement
        if measured is None or measured.checkpoint is None:
            return self._probe_folder(probe.probe_id)
        checkpoint = Path(measured.checkpoint)
        if not checkpoint.exists():
            raise StorageError(
                f"the checkpoint {checkpoint} of probe {probe.probe_id} is gone; put it back, "
                "or start anew with --fresh"
            )
        return checkpoint.parent.parent

    def _probe_folder(self, probe_id: int) -> Path:
        # The study's birth is in the name: a folder that outlived its database is never gone on with.
        study = self._setting.study
        name = f"{study.name}-{int(study.created_at):x}"
        folder = self._setting.folder / "probes" / name / f"{probe_id:04d}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"the probe folder {folder} cannot be made: {error}; choose another --output"
            ) from error
        return folder

    def _say(
        self,
        kind: str,
        text: str,
        state: SearchState,
        measurement: Measurement | None = None,
    ) -> None:
        self._setting.listen(
            SearchEvent(
                kind=kind,  # type: ignore[arg-type]
                text=text,
                measurement=measurement,
                spent_seconds=state.spent.seconds,
            )
        )


def _slice_words(measurement: Measurement) -> str:
    words = [measurement.outcome.value]
    if measurement.curve:
        point = measurement.curve[-1]
        words.append(f"{point.value:.4g} after {point.samples} samples, {point.training_seconds:.1f} s")
    if measurement.step_seconds is not None and measurement.batch_seconds is not None:
        if traits_of(measurement.configuration.strategy).barrier:
            words.append(f"{1000 * measurement.step_seconds.median:.3g} ms a step")
        else:
            # Each rank has a pace of its own: what counts is all of them together.
            words.append(f"{1000 * measurement.batch_seconds:.3g} ms a batch")
    if measurement.lost_ranks:
        words.append(
            f"without {'ranks' if len(measurement.lost_ranks) > 1 else 'rank'} "
            + ", ".join(str(rank) for rank in measurement.lost_ranks)
        )
    if measurement.error:
        words.append(measurement.error.strip().splitlines()[-1])
    return ", ".join(words)
