"""Prober that runs the user's own command: a training script in any framework that reports its progress."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from search_spaces import Configuration
from tuner.domain.measurement import Measurement, Outcome, Purpose
from tuner.job import Job
from tuner.launchers import JobHandle, JobState, JobStatus, Launcher
from tuner.launchers.log_ends import read_ends
from tuner.probes.commands.failures import Failure, FailureKind, classify
from tuner.probes.commands.heard import Heard, last_kinds
from tuner.probes.commands.script_habits import ScriptHabits
from tuner.probes.commands.set_aside import (
    has_set_aside,
    note_starts_over,
    note_truncated,
    set_aside,
    starts_over,
    truncated_words,
)
from tuner.probes.commands.slice import CommandSlice
from tuner.probes.commands.task import SLICES_FOLDER, CommandPlan, can_go_on
from tuner.probes.launched_prober import LaunchedProber
from tuner.probes.probe_folder import unwritable
from tuner.probes.prober import ProbeHandle, Until

#: A slice (part of a run) fails if its jobs lose their nodes or find their port in use this many times in a
#: row without any training in between.
_MOST_LOSSES = 3
#: A command that found its port in use is started again after this number of seconds, multiplied by the
#: number of such failures in a row.
_PORT_SECONDS = 0.5
#: Seconds between the request to stop and SIGTERM if the script has never called `should_stop`.
_MOMENT_SECONDS = 0.5
#: A slice with a limit in training seconds waits for its next line for at most this many times the longest
#: time between two lines so far.
_LATE_LINE_FACTOR = 1.5


class CommandProber(LaunchedProber[CommandSlice]):
    """Runs `workload.command` and reads the reports of the script.

    A run (the training of one configuration) consists of slices, each with limits such as a number of steps.

    How a slice ends:

    - When a report shows that a limit of the slice is reached, the script is asked to stop: `should_stop` of
      `paceline_client` returns True. Later the script gets SIGTERM, then `workload.grace` seconds to save.
      The outcome is PAUSED.
    - A slice does not end at a limit before its first score, unless it only measures step times.
    - A slice with the limit `scores` ends after that number of new scores.
    - If the script ends by itself before a limit, the outcome is STOPPED. The other outcomes are those of
      `TrainingProber`.

    How a run continues:

    - If the script cannot resume, or has saved no checkpoint, the next slice starts the run over and is
      charged for all of its training. If this slice trains at least as far as the earlier slices, its
      learning curve and training time replace theirs; otherwise it adds nothing to the run.
    - If the script fails while it resumes, its run starts from scratch in the same slice, but only once. The
      files that the script had saved are moved into another folder, not deleted.
    - If the script refuses to resume, or was killed because it needed longer than `workload.grace` to save,
      it is not asked to resume again.

    Faults of nodes:

    - A job that loses its nodes or finds a port in use is submitted again. The slice fails after three such
      faults in a row without any training in between.
    - While a job waits for nodes, nothing is charged, and the time does not count for `probe.hang_timeout`.

    Args:
        job: Parsed job file, whose workload is a command.
        job_folder: Folder of the job file; relative paths in the job file start there.
        launcher: Starts the processes of the command; `close` of the prober closes it.
        clock: The prober's clock: returns the seconds on a monotonic clock.
    """

    def __init__(
        self, job: Job, job_folder: Path, launcher: Launcher, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(job, job_folder, launcher, clock)
        self._leaving: dict[Path, list[JobHandle]] = {}
        #: Maps the folder with the probes of a search to the facts found about how the script reports.
        self._habits: dict[Path, ScriptHabits] = {}
        #: Whether the script cannot resume, so every slice starts its run from scratch in empty folders.
        self._starts_over = False

    def start(
        self, configuration: Configuration, purpose: Purpose, until: Until, folder: Path
    ) -> ProbeHandle:
        plan, probe_folder = self._plan(configuration, purpose, until, folder)
        record = CommandSlice(
            plan=plan,
            folder=probe_folder,
            cluster=self._cluster,
            started=self._clock(),
            habits=self._habits_of(plan.folder.parent),
        )
        handle = self._add(record, plan)
        self._submit_if_free(record)
        return handle

    def poll(self, handle: ProbeHandle) -> Measurement:
        record = self._record(handle)
        if record.ended is not None:
            return record.ended
        if record.job is None:
            self._submit_if_free(record)
        if record.job is None:
            return record.measurement(Outcome.RUNNING, self._clock())
        now = self._clock()
        status = self._heard(record, record.job, now)
        if status.state.has_ended:
            return self._after_job(record, status, now)
        self._watch(record, status, now)
        return record.measurement(Outcome.RUNNING, now)

    def cancel(self, handle: ProbeHandle) -> None:
        record = self._record(handle)
        if record.ended is not None:
            return
        now = self._clock()
        if record.job is not None:
            self._heard(record, record.job, now)
            self._launcher.cancel(record.job)
            self._leaving.setdefault(record.plan.folder, []).append(record.job)
        self._end(record, Outcome.STOPPED, now, is_cancelled=True)

    def heard(self, handle: ProbeHandle) -> Heard:
        """Returns examples and counts of the script's lines that a slice has read so far, for the user."""
        record = self._record(handle)
        heard = record.heard
        if record.source is not None:
            heard.unmatched = tuple(record.source.unmatched.values())
        if record.job is not None and not heard.num_lines:
            logs = self._launcher.log_files(record.job).values()
            heard.printed = last_kinds("\n".join(read_ends(log.path) for log in logs))
        if heard.first_output_at is None and (heard.num_lines or heard.printed):
            heard.first_output_at = self._clock()
        heard.first_samples = record.curve.first_samples
        return heard

    def ask_to_end(self, handle: ProbeHandle) -> float | None:
        """Asks the script to save and end, by creating its stop file.

        The script gets SIGTERM later, and is killed `workload.grace` seconds after SIGTERM.

        Returns:
            The value of `workload.grace` in seconds; None if the slice has no job or has ended.
        """
        record = self._record(handle)
        if record.job is None or record.ended is not None:
            return None
        if record.verdict is None:
            self._ask(record, Outcome.PAUSED, None, self._clock())
        return self._job.command.grace

    def end_orphans(self, folder: Path) -> None:
        for slice_folder in sorted((folder / SLICES_FOLDER).glob("*")):
            self._launcher.end_orphans(slice_folder)

    def close(self) -> None:
        for record in self._slices.values():
            if record.ended is None and record.job is not None:
                self._launcher.cancel(record.job)
                self._trim(record)
        self._launcher.close()

    def _habits_of(self, study_folder: Path) -> ScriptHabits:
        if study_folder not in self._habits:
            self._habits[study_folder] = ScriptHabits.load(study_folder)
        return self._habits[study_folder]

    def _submit_if_free(self, record: CommandSlice) -> None:
        """Submits the job of a slice, unless a cancelled job of the same probe is still saving."""
        folder = record.plan.folder
        leaving = [
            job for job in self._leaving.pop(folder, []) if not self._launcher.poll(job).state.has_ended
        ]
        if leaving:
            self._leaving[folder] = leaving
            record.waiting = "the job of the previous slice is still saving its checkpoint"
            return
        if self._clock() < record.not_before:
            return
        plan = record.plan
        over = self._starts_over or starts_over(folder)
        resumes = not plan.is_timing and can_go_on(self._job, folder) and not over
        name = f"{record.folder.slice_number:04d}-{record.num_attempts + 1}"
        attempt = CommandPlan(
            plan=plan,
            known=record.curve.known,
            folder=folder / SLICES_FOLDER / name,
            resumes=resumes,
            scored_samples=max(record.curve.position.samples, plan.scored_samples),
        )
        try:
            if over:
                set_aside(folder)
            task = attempt.prepare()
            job = self._launcher.submit_command(
                task,
                num_nodes=plan.configuration.nodes,
                devices_per_node=self._cluster.devices_per_node,
            )
        except OSError as error:
            raise unwritable(folder, error) from error
        sources = attempt.sources(lambda: self._launcher.log_files(job))
        record.submitted(job, attempt, sources, self._clock())

    def _heard(self, record: CommandSlice, job: JobHandle, now: float) -> JobStatus:
        try:
            status = self._launcher.poll(job)
            record.hear(status, now)
        except OSError as error:
            raise unwritable(record.plan.folder, error) from error
        return status

    def _watch(self, record: CommandSlice, status: JobStatus, now: float) -> None:
        """Asks a running job to end if there is a reason, and cancels the job if it does not end in time."""
        if record.verdict is None:
            found = self._reason_to_end(record, now) if status.state is JobState.RUNNING else None
            if found is None:
                return
            self._ask(record, *found, now)
        assert record.job is not None
        broken = record.verdict in (Outcome.DIVERGED, Outcome.TIMED_OUT, Outcome.FAILED)
        timeout = self._job.command.grace if record.asks else _MOMENT_SECONDS
        if not record.is_cancelled and (broken or now - record.verdict_at >= timeout):
            record.is_cancelled, record.cancelled_at = True, now
            self._launcher.cancel(record.job)

    @staticmethod
    def _ask(record: CommandSlice, verdict: Outcome, words: str | None, now: float) -> None:
        """Asks a script to save and end, and stores the outcome that its slice will have.

        Args:
            record: State of the slice.
            verdict: Outcome that the slice will have when its job has ended.
            words: Description of a failure, for the user; None if there is no failure.
            now: Present time on the prober's monotonic clock, seconds.
        """
        record.verdict, record.verdict_words, record.verdict_at = verdict, words, now
        assert record.attempt is not None
        record.attempt.stop_file.touch()

    def _reason_to_end(self, record: CommandSlice, now: float) -> tuple[Outcome, str | None] | None:
        if record.refusal is not None:
            return Outcome.FAILED, record.refusal
        if record.curve.is_diverged:
            return Outcome.DIVERGED, None
        if record.curve.reached_target() and record.may_end:
            return Outcome.REACHED, None
        if self._is_over(record, now):
            return Outcome.PAUSED, None
        limit = self._job.probe.hang_seconds
        if now - record.heard_at > limit:
            num_lines = record.curve.num_lines
            heard = f"after {num_lines} lines" if num_lines else "and nothing at all since it started"
            assert record.source is not None
            return Outcome.TIMED_OUT, (
                f"the script reported nothing for {limit:g} s, {heard}: raise probe.hang_timeout if it "
                f"reports less often. Expected: {record.source.place}"
            )
        return None

    def _is_over(self, record: CommandSlice, now: float, *, has_ended: bool = False) -> bool:
        """Whether the slice has reached one of its limits, and its last score is recent enough to end.

        Args:
            record: State of the slice.
            now: Present time on the prober's monotonic clock, seconds.
            has_ended: Whether the script has ended by itself; then its last score need not be recent.
        """
        if record.curve.num_lines == 0:
            return False
        until, known, position = record.plan.until, record.curve.known, record.curve.position
        if record.plan.is_timing:
            if not record.curve.has_interval:
                return False
        else:
            may_end = has_ended or record.may_end
            # A slice with enough scores ends, even if its last lines show training after these scores.
            if may_end and record.plan.has_all_scores(record.curve.num_scores):
                return True
            # A slice waits for its first score; only the search may end it earlier, at the end of the budget.
            if record.curve.num_scores == 0 or not (may_end and (has_ended or record.curve.is_at_score)):
                return False
        if until.samples is not None and position.samples >= until.samples:
            return True
        if until.steps is not None and position.step - known.step >= until.steps:
            return True
        if until.training_seconds is None:
            return False
        wanted = until.training_seconds - known.seconds
        if position.seconds - known.seconds >= wanted:
            return True
        waits = record.curve.seconds_now(now - record.heard_at) - known.seconds
        is_late = now - record.heard_at > _LATE_LINE_FACTOR * record.curve.longest_interval()
        return waits >= wanted and is_late and record.curve.has_interval

    def _after_job(self, record: CommandSlice, status: JobStatus, now: float) -> Measurement:
        """Returns the measurement of a slice whose job has ended; may submit another job for the slice."""
        state, verdict = status.state, record.verdict
        if record.refusal is not None:
            return self._end(record, Outcome.FAILED, now, record.refusal)
        if record.curve.is_diverged:
            return self._end(record, Outcome.DIVERGED, now)
        if record.curve.reached_target():
            return self._end(record, Outcome.REACHED, now)
        if verdict is not None:
            late = record.is_cancelled and now - record.cancelled_at >= self._job.command.grace
            note_truncated(record.plan.folder, is_truncated=late)
            return self._end(record, verdict, now, record.verdict_words)
        if state is JobState.LOST:
            words = "its nodes were lost" + (f" ({status.detail})" if status.detail else "")
            return self._after_loss(record, words, now)
        if state is JobState.CANCELLED:
            return self._end(record, Outcome.STOPPED, now, "the job was cancelled from outside")
        if state is JobState.TIMED_OUT:
            words = "the job reached its time limit" + (f": {status.detail}" if status.detail else "")
            return self._end(record, Outcome.TIMED_OUT, now, words)
        if state is JobState.FAILED:
            return self._after_failure(record, status, now)
        return self._after_success(record, now)

    def _after_success(self, record: CommandSlice, now: float) -> Measurement:
        curve = record.curve
        if curve.num_lines == 0 and curve.known.samples == 0:
            assert record.source is not None
            record.job_fault = not record.habits.has_read
            return self._end(
                record,
                Outcome.FAILED,
                now,
                f"the script ended without an error, but reported nothing. Expected: {record.source.place}"
                + self._last_warning(record),
            )
        if not record.plan.is_timing and curve.num_scores == 0 and curve.known.value is None:
            name = self._job.command.metrics.value
            record.job_fault = not record.habits.has_scored
            return self._end(
                record,
                Outcome.FAILED,
                now,
                f"the script ended after {curve.num_lines} lines without the metric {name!r}: report it "
                "after each evaluation, or set workload.metrics.value to the name that the script uses"
                + self._last_warning(record),
            )
        if self._is_over(record, now, has_ended=True):
            return self._end(record, Outcome.PAUSED, now)
        if not record.plan.is_timing:
            position = curve.position
            record.remark(
                f"the script ended by itself after {position.samples} samples (step {position.step}) at "
                f"{self._job.goal.metric} {curve.last_value():.4g}, before it reached the target: let it "
                "train for more epochs"
            )
        return self._end(record, Outcome.STOPPED, now)

    @staticmethod
    def _last_warning(record: CommandSlice) -> str:
        warnings = [*(record.source.warnings if record.source else ())]
        return f". {len(warnings)} lines were skipped, such as {warnings[-1]}" if warnings else ""

    def _after_failure(self, record: CommandSlice, status: JobStatus, now: float) -> Measurement:
        assert record.job is not None
        assert record.attempt is not None
        at_start = not record.has_progressed
        failure = classify(
            status,
            self._launcher.logs(record.job),
            self._job,
            resumed=record.attempt.resumes and at_start,
            used=record.folder.slice_number + record.num_attempts > 2 and at_start,
        )
        if failure.kind is FailureKind.OUT_OF_MEMORY:
            words = f"{failure.words}\nout of memory: {failure.error}; smaller batches are tried next"
            return self._end(record, Outcome.OUT_OF_MEMORY, now, words)
        if failure.kind is FailureKind.PORT_IN_USE:
            record.not_before = now + _PORT_SECONDS * (record.lost_in_a_row + 1)
            return self._after_loss(record, f"its port was in use ({failure.error})", now)
        if failure.kind in (FailureKind.CHECKPOINT, FailureKind.RESUME_REFUSED):
            return self._start_anew(record, failure, now)
        error = failure.error  # the last line of the text, which every summary quotes
        if at_start and not record.habits.has_read:
            is_same = _fails_as_before(failure, record)
            if is_same or failure.is_of_script:
                record.job_fault = True
                others = ", and with another configuration, too" if is_same else ""
                error += f" (before the first report{others}: the script, its data or its command is broken)"
        words = failure.words
        if words.splitlines()[-1].strip() != error:
            words += f"\n{error}"
        return self._end(record, Outcome.FAILED, now, words)

    def _start_anew(self, record: CommandSlice, failure: Failure, now: float) -> Measurement:
        """Starts a run from scratch after the script failed to resume.

        If the run was started from scratch before, the slice ends with the outcome FAILED.
        """
        folder, resumed = record.plan.folder, record.attempt is not None and record.attempt.resumes
        # If the disk is full, the script could not save its checkpoint, and this raises a StorageError.
        record.folder.check_disk_space()
        what = f"its checkpoint could not be read ({failure.error})"
        if failure.kind is FailureKind.RESUME_REFUSED:
            refused = "to resume" if resumed else "a folder with files of an earlier start"
            what = f"the script refused {refused} ({failure.error})"
        if record.starts_anew or has_set_aside(folder):
            words = (
                f"{failure.words}\n{what}, although the run had restarted from scratch: the run is stopped"
            )
            return self._end(record, Outcome.FAILED, now, words)
        is_refused = failure.kind is FailureKind.RESUME_REFUSED
        truncated = "" if is_refused else truncated_words(folder, self._job.command.grace)
        if is_refused or truncated:
            self._starts_over = record.resume_refused = True
        try:
            set_aside(folder)
            if record.resume_refused:
                note_starts_over(folder)
        except OSError as error:
            raise unwritable(folder, error) from error
        record.starts_anew = True
        anew = "later slices start over, too" if record.resume_refused else "its saved files were moved aside"
        record.remark(f"{what}: its run restarted from scratch, and {anew}{truncated}")
        record.will_repeat(now, "the run restarts from scratch")
        self._submit_if_free(record)
        return record.measurement(Outcome.RUNNING, now)

    def _after_loss(self, record: CommandSlice, what: str, now: float) -> Measurement:
        """Submits a job for the rest of a slice after a fault of the nodes or network.

        After three such faults in a row without progress, the slice fails instead. `what` describes the fault
        for the user.
        """
        self._trim(record)
        record.was_lost(now, f"{what}; submitted again")
        if record.lost_in_a_row >= _MOST_LOSSES:
            record.infrastructure_fault = True
            words = f"{what} {record.lost_in_a_row} times in a row without any progress: no more tries"
            return self._end(record, Outcome.FAILED, now, words)
        self._submit_if_free(record)
        return record.measurement(Outcome.RUNNING, now)

    def _end(
        self,
        record: CommandSlice,
        outcome: Outcome,
        now: float,
        error: str | None = None,
        *,
        is_cancelled: bool = False,
    ) -> Measurement:
        if record.plan.is_timing and outcome is Outcome.PAUSED:
            outcome = Outcome.STOPPED
        try:
            if not outcome.is_fault:
                # A cancelled slice may not replace the curve of the run, since the search may discard it.
                if not is_cancelled:
                    record.curve.take_whole_pass()
                    if outcome in (Outcome.PAUSED, Outcome.STOPPED) and record.curve.reached_target():
                        outcome = Outcome.REACHED
                record.curve.remember(record.habits)
            record.habits.num_refused += record.refusal is not None
            record.habits.save(record.plan.folder.parent)
        except OSError as problem:
            raise unwritable(record.plan.folder, problem) from problem
        self._trim(record)
        record.ended = record.measurement(outcome, now, error)
        if outcome is Outcome.FAILED:
            # If the script failed because the disk is full, this raises a StorageError.
            record.folder.check_disk_space()
        record.folder.end_slice(outcome)
        return record.ended

    def _trim(self, record: CommandSlice) -> None:
        """Shortens the log files and the file of reports of a slice's last job, which has ended."""
        if record.job is not None and record.attempt is not None:
            self._launcher.trim_logs(record.job)
            record.attempt.trim_reports()


def _fails_as_before(failure: Failure, record: CommandSlice) -> bool:
    """Whether another configuration has failed with the same error at the start of the script.

    Also stores this failure, to compare it with the next one.

    Args:
        failure: The failure, which came before the first report of the script.
        record: State of the slice that failed.
    """
    habits, values = record.habits, record.plan.configuration.key
    is_same = failure.identity == habits.start_failure and habits.start_failure_of not in ("", values)
    habits.start_failure, habits.start_failure_of = failure.identity, values
    return is_same
