"""Prober that trains the job's workload on ranks that a launcher starts, in slices (parts of a training)."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from search_spaces import Configuration, traits_of
from tuner.domain.measurement import Measurement, Outcome, Purpose
from tuner.job import Job
from tuner.launchers import JobState, JobStatus, Launcher, RankTask
from tuner.probes.launched_prober import LaunchedProber
from tuner.probes.probe_folder import unwritable
from tuner.probes.prober import ProbeHandle, Until
from tuner.probes.slice_plan import EMULATION_FUNCTION, RANK_FUNCTION
from tuner.probes.slice_record import SliceRecord, failure_words


class TrainingProber(LaunchedProber[SliceRecord]):
    """Trains the job's workload on ranks that a launcher starts.

    A timing probe does its steps without scores and checkpoints, and ends with the outcome STOPPED. Any other
    slice ends with one of these outcomes:

    - PAUSED at a limit in `until`.
    - REACHED once the scores have reached the target of the job.
    - STOPPED at the end of the learning-rate schedule.
    - DIVERGED once the loss, the gradient or the score is not finite.
    - TIMED_OUT if no rank reports progress for the time `probe.hang_timeout`. Increase this time if a single
      step or evaluation takes longer.
    - OUT_OF_MEMORY or FAILED if a rank fails.

    If the strategy is asynchronous, a slice continues without ranks that were lost (died or stopped
    responding); the measurement lists the lost ranks.

    If the ranks are emulated, one process of this host trains all ranks under a virtual clock. The job is
    charged for the time of that process, and no dollars.

    Args:
        job: The job whose workload is trained.
        job_folder: Folder of the job file, in which the workload's module is searched first.
        launcher: Starts the ranks; `close` of the prober closes it.
        clock: Returns the seconds on a monotonic clock.
    """

    def __init__(
        self, job: Job, job_folder: Path, launcher: Launcher, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(job, job_folder, launcher, clock)
        self._untrained_is_scored = False

    def start(
        self, configuration: Configuration, purpose: Purpose, until: Until, folder: Path
    ) -> ProbeHandle:
        plan, probe_folder = self._plan(
            configuration, purpose, until, folder, score_untrained=not self._untrained_is_scored
        )
        started = self._clock()
        try:
            submitted = self._launcher.submit(
                RankTask(
                    function=EMULATION_FUNCTION if plan.is_emulated else RANK_FUNCTION,
                    payload=plan.to_payload(),
                    folder=plan.folder,
                    tolerates_rank_loss=not (plan.is_emulated or traits_of(configuration.strategy).barrier),
                ),
                num_nodes=1 if plan.is_emulated else configuration.nodes,
                devices_per_node=1 if plan.is_emulated else self._cluster.devices_per_node,
            )
        except OSError as error:
            raise unwritable(plan.folder, error) from error
        record = SliceRecord(
            plan=plan, job=submitted, folder=probe_folder, cluster=self._cluster, started=started
        )
        return self._add(record, plan)

    def poll(self, handle: ProbeHandle) -> Measurement:
        record = self._record(handle)
        if record.ended is not None:
            return record.ended
        status = self._heard(record)
        if status.state is JobState.SUCCEEDED:
            return self._end(record, status, record.finish(status.results))
        if status.state is JobState.FAILED:
            outcome = Outcome.OUT_OF_MEMORY if record.out_of_memory else Outcome.FAILED
            return self._end(record, status, outcome, failure_words(status.failures))
        if status.state is JobState.CANCELLED:
            return self._end(record, status, Outcome.STOPPED)
        if status.state.has_ended:
            # The nodes of the job were lost, or the time limit of the job was reached.
            outcome = Outcome.TIMED_OUT if status.state is JobState.TIMED_OUT else Outcome.FAILED
            return self._end(record, status, outcome, failure_words(status.failures) or status.detail)
        limit = self._job.probe.hang_seconds
        if status.seconds_since_progress > limit:
            self._launcher.cancel(record.job)
            words = (
                f"no rank reported anything for {limit:g} s (probe.hang_timeout); "
                f"last reports: {record.last_words()}"
            )
            if status.failures:
                words += "\n" + failure_words(status.failures)
            return self._end(record, status, Outcome.TIMED_OUT, words)
        return self._measured(record, status, Outcome.RUNNING)

    def cancel(self, handle: ProbeHandle) -> None:
        record = self._record(handle)
        if record.ended is not None:
            return
        status = self._heard(record)
        self._launcher.cancel(record.job)
        self._end(record, status, Outcome.STOPPED)

    def ask_to_end(self, handle: ProbeHandle) -> float | None:
        """Returns 0: the slice gets no additional time to save a checkpoint.

        Ranks cannot be asked to save a checkpoint early. The slice ends by its own limits near the end of the
        budget, and saves a checkpoint then.
        """
        return 0.0

    def end_orphans(self, folder: Path) -> None:
        self._launcher.end_orphans(folder)

    def close(self) -> None:
        for record in self._slices.values():
            if record.ended is None:
                self._launcher.cancel(record.job)
        self._launcher.close()

    def _heard(self, record: SliceRecord) -> JobStatus:
        try:
            status = self._launcher.poll(record.job)
        except OSError as error:
            raise unwritable(record.plan.folder, error) from error
        for rank, message in status.messages:
            record.take(rank, message)
        return status

    def _end(
        self, record: SliceRecord, status: JobStatus, outcome: Outcome, error: str | None = None
    ) -> Measurement:
        # If a rank was killed or its node was lost, the same slice may succeed when it is run again.
        killed = outcome is Outcome.FAILED and any(
            f.exit_code == -signal.SIGKILL for f in status.failures[:1]
        )
        lost = status.state is JobState.LOST or killed
        record.ended = replace(
            self._measured(record, status, outcome, error), infrastructure_fault=lost and outcome.is_fault
        )
        if outcome is Outcome.FAILED:
            # If a full disk is why ranks failed, this raises a StorageError.
            record.folder.check_disk_space()
        record.folder.end_slice(outcome)
        if any(point.samples == 0 for point in record.ended.curve):
            self._untrained_is_scored = True
        return record.ended

    def _measured(
        self, record: SliceRecord, status: JobStatus, outcome: Outcome, error: str | None = None
    ) -> Measurement:
        return record.measurement(
            outcome,
            # The time that the job waited for nodes is not charged.
            elapsed_seconds=self._clock() - record.started - status.pending_seconds,
            startup_seconds=status.startup_seconds,
            error=error,
        )
