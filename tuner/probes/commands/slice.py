"""State of a slice (part of a run) of the user's script: its jobs, the lines read, and its measurement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tuner.domain.cluster import Cluster, charge
from tuner.domain.measurement import (
    Measurement,
    Outcome,
    RankTiming,
)
from tuner.launchers import JobHandle, JobState, JobStatus
from tuner.probes.commands.buffered_lines import FirstBlock, spread_block
from tuner.probes.commands.heard import (
    Heard,
    ignored_remarks,
    source_remarks,
    unmatched_warning,
)
from tuner.probes.commands.json_source import JsonSource
from tuner.probes.commands.metric_source import DISAGREE, MetricSource
from tuner.probes.commands.positions import Positions
from tuner.probes.commands.progress_line import ProgressLine, ScriptLine
from tuner.probes.commands.run_clock import ReadPoint, step_spread, timing_of_all
from tuner.probes.commands.script_habits import ScriptHabits
from tuner.probes.commands.slice_checks import SliceChecks
from tuner.probes.commands.slice_curve import SliceCurve, known_point
from tuner.probes.commands.task import CommandPlan, checkpoint_of
from tuner.probes.probe_folder import ProbeFolder
from tuner.probes.slice_plan import SlicePlan

#: At most this many lines are stored, to compute the training progress at them again if a later line shows
#: how the script counts steps or epochs.
_MOST_STORED = 20_000
#: If only another line can show how the earlier lines have to be read, a slice that has reached its limit
#: waits for that line, but not longer than the larger of two times: `_SETTLE_SECONDS`, and `_SETTLE_SHARE` of
#: the time from the start of the script to its last line.
_SETTLE_SECONDS, _SETTLE_SHARE = 2.0, 0.5
#: Replaces `_SETTLE_SHARE` if the first line of a run reports suspiciously many samples, and only the next
#: line can show how fast the run trains.
_PACE_SHARE = 1.5


class CommandSlice:
    """Reads the lines of a script and builds the measurement of a slice from them.

    Args:
        plan: Configuration, limits and folders of the slice.
        folder: Folder of the probe, to which scores are written.
        cluster: The cluster on which the script runs; determines the cost of the slice.
        started: Time on the prober's monotonic clock when the slice was requested, seconds.
        habits: Facts found in earlier slices about how the script reports; None if there are none.
    """

    def __init__(
        self,
        *,
        plan: SlicePlan,
        folder: ProbeFolder,
        cluster: Cluster,
        started: float,
        habits: ScriptHabits | None = None,
    ) -> None:
        self.plan, self.folder, self.started = plan, folder, started
        self.habits = habits or ScriptHabits()
        #: Number of remarks (sentences for the user) in `habits` that earlier slices have added.
        self._num_said = len(self.habits.remarks)
        self._positions: Positions | None = None
        self._stored_lines: list[ScriptLine] | None = []
        known = ReadPoint() if plan.is_timing else known_point(plan.folder)
        self._first_block = FirstBlock(is_fresh=known.samples == 0)
        self._read_at = self._lines_at = started
        self.heard = Heard()
        self.checks = SliceChecks(plan=plan, habits=self.habits, is_new=known.samples == 0)
        self.curve = SliceCurve(plan=plan, folder=folder, known=known, checks=self.checks)
        self.ended: Measurement | None = None
        self.job: JobHandle | None = None
        self.attempt: CommandPlan | None = None
        self.source: MetricSource | None = None
        self.events: JsonSource | None = None
        self.running_since: float | None = None
        self.heard_at = started
        self.asks = False
        self.waiting = ""
        #: The outcome that the slice will have when its job has ended; None while the job may continue.
        self.verdict: Outcome | None = None
        self.verdict_at = 0.0
        self.verdict_words: str | None = None
        self.is_cancelled = False
        self.cancelled_at = 0.0
        self.not_before = 0.0  # by the prober's monotonic clock
        self.starts_anew = self.resume_refused = self.infrastructure_fault = self.job_fault = False
        self.num_attempts = 0
        self.lost_in_a_row = 0
        self._samples_at_loss = -1
        self._cluster = cluster
        self._submitted, self._submitted_samples = started, 0
        self._held_before = 0.0
        self._pending = self._pending_before = 0.0

    def submitted(
        self,
        job: JobHandle,
        attempt: CommandPlan,
        sources: tuple[MetricSource, JsonSource | None],
        now: float,
    ) -> None:
        """Stores a job that was submitted for the slice, or for the rest of the slice after an earlier job.

        Args:
            job: Handle of the job, by which the launcher identifies it.
            attempt: Command and folders of the job.
            sources: The source of progress lines, and the source of other events (None if the first source
                reads them too).
            now: Present time on the prober's monotonic clock, seconds.
        """
        self.job, self.attempt = job, attempt
        self.source, self.events = sources
        self.num_attempts += 1
        self.running_since = None
        self._submitted = self.heard_at = self._read_at = self._lines_at = now
        self._submitted_samples = self.curve.position.samples
        self.curve.begin_job(resumes=attempt.resumes)
        self._stored_lines = []
        self._first_block = FirstBlock(is_fresh=self.curve.position.samples == 0 and not attempt.resumes)
        if attempt.resumes:
            self.checks.resumed()
        self._positions = attempt.positions(self.habits, self.folder.reported_points, now)

    def hear(self, status: JobStatus, now: float) -> None:
        """Reads the lines that the script has reported since the last call.

        Args:
            status: Present status of the job.
            now: Present time on the prober's monotonic clock, seconds.

        Raises:
            StorageError: The curve cannot be written to the folder of the probe.
        """
        assert self.source is not None
        has_ended = status.state.has_ended
        self._pending = status.pending_seconds
        self.waiting = "" if has_ended or status.state == "running" else status.detail or "nodes"
        if self.waiting:
            if self.running_since is not None and self._positions is not None:
                self._positions.begin_process()
            self.running_since = None  # a scheduler backend may restart a job
        elif self.running_since is None:
            self.running_since = self.heard_at = now
        lines = self.source.read(now, has_ended=has_ended)
        if self.events is not None:
            heard = self.events.read(now, has_ended=has_ended)
            # The two sources use different clocks for the write times, so only the read times are used.
            lines = [replace(line, time=None) for line in heard if line.event != "progress"] + list(lines)
        if any(line.event == "progress" for line in lines):
            self.heard_at = now
        self.checks.resume_words = self.source.resume_words
        for words in self.source.disagreements:
            self.habits.say(words, once=DISAGREE)
        since = self._lines_at if self.source.is_buffered else self._read_at
        if lines:
            since = max(since, self.running_since or since)
            self._read(spread_block(lines, since), since, now)
            self._lines_at = now
        self._read_at = now
        if status.state is JobState.SUCCEEDED and self._positions is not None and self.verdict is None:
            self._take_all(self._positions.finish())

    def _read(self, lines: Sequence[ScriptLine], since: float, now: float) -> None:
        """Computes the training progress at new lines.

        If the new lines show how the script counts steps or epochs, the progress at all lines of the job is
        computed again.

        Args:
            lines: The new lines, in order.
            since: Earliest time at which the lines may have been written, on the prober's monotonic clock,
                seconds.
            now: Present time on the prober's monotonic clock, seconds.
        """
        assert self._positions is not None
        assert self.attempt is not None
        if self._stored_lines is not None:
            if len(self._stored_lines) < _MOST_STORED:
                self._stored_lines.extend(lines)
            else:
                self._stored_lines = None
        self.checks.read(lines)
        self.heard.add(lines, self.habits)
        positioned = self._positions.place(lines)
        moved = None
        if self.source is not None and self.source.is_buffered and self._stored_lines is not None:
            moved = self._first_block.retimed(self._stored_lines, lines, since, now)
            self._stored_lines = moved or self._stored_lines
        if (self._positions.has_changed or moved) and self._stored_lines is not None:
            for _ in range(4):  # each pass may find another fact about how the script counts
                self.curve.go_back()
                self._positions = self.attempt.positions(
                    self.habits, self.folder.reported_points, self._submitted
                )
                positioned = self._positions.place(self._stored_lines)
                if not self._positions.has_changed:
                    break
        self._take_all(positioned)
        if self.curve.attempts and not self._first_block.awaits_pace:
            self.checks.follow(self.curve.attempts[-1], self.running_since)

    def _take_all(self, lines: Sequence[ProgressLine]) -> None:
        self.asks |= any(line.event == "asks" for line in lines)
        self.curve.take(lines, self.running_since)

    def was_lost(self, now: float, waiting: str) -> None:
        """Counts a fault of the nodes or network that ended the job, and prepares for another job.

        Args:
            now: Present time on the prober's monotonic clock, seconds.
            waiting: Why the slice is submitted again, for the user.
        """
        progress = self.curve.position.samples
        self.lost_in_a_row = 1 if progress > self._samples_at_loss else self.lost_in_a_row + 1
        self._samples_at_loss = progress
        self.will_repeat(now, waiting)

    def will_repeat(self, now: float, waiting: str) -> None:
        """Prepares for another job that runs the rest of the slice.

        Args:
            now: Present time on the prober's monotonic clock, seconds.
            waiting: Why the slice is submitted again, for the user.
        """
        self._held_before += self._held(now)
        self._pending_before += self._pending
        self.job, self._pending = None, 0.0
        self.running_since = None
        self.waiting = waiting

    @property
    def may_end(self) -> bool:
        """Whether the slice may end now: False while the next line may change how earlier lines are read."""
        awaits_pace = self.checks.awaits_pace or self._first_block.awaits_pace
        if self._positions is None or (self._positions.is_settled and not awaits_pace):
            return True
        since = self.started if self.running_since is None else self.running_since
        share = _PACE_SHARE if self.checks.awaits_pace else _SETTLE_SHARE
        return self._read_at - self.heard_at > max(_SETTLE_SECONDS, share * (self.heard_at - since))

    @property
    def refusal(self) -> str | None:
        """Why the script cannot be measured, for the user; None if it can be measured."""
        return self.checks.refusal or (self._positions.refusal if self._positions else None)

    def remark(self, words: str) -> None:
        """Adds a remark, which is a sentence for the user."""
        self.checks.remarks[words] = None

    def remarks(self) -> tuple[str, ...]:
        """Returns all remarks of this slice: sentences for the user about what the script did."""
        found = dict.fromkeys(self.habits.remarks[self._num_said :])
        found |= self.checks.remarks
        scored = self.curve.num_scores > 0 or self.curve.known.value is not None
        found |= dict.fromkeys(source_remarks(self.source, has_score=scored))
        if self.heard.unread_clock:
            found[
                f"the wall clock is used, since this line has no valid time: {self.heard.unread_clock!r}"
            ] = None
        if self._positions is not None:
            found |= dict.fromkeys(ignored_remarks(self._positions.ignored))
        return tuple(found)

    def _early_remarks(self) -> tuple[str, ...]:
        """Returns the remarks that the user has to see before the slice ends."""
        size = self.plan.job.command.epoch_samples
        words = unmatched_warning(
            self.source, self.habits, samples=self.curve.position.samples, epoch_samples=size
        )
        return (words,) if words else ()

    @property
    def has_progressed(self) -> bool:
        """Whether the current job has trained since it was submitted."""
        return self.curve.position.samples > self._submitted_samples

    def measurement(self, outcome: Outcome, now: float, error: str | None = None) -> Measurement:
        """Builds the measurement of the slice so far.

        Args:
            outcome: Outcome of the slice; RUNNING if it has not ended.
            now: Present time on the prober's monotonic clock, seconds; determines the cost of the slice.
            error: Description of the failure; None if there is no failure.
        """
        plan, position = self.plan, self.curve.position
        held = self._held_before + (self._held(now) if self.job is not None else 0.0)
        charged = charge(held, plan.configuration, self._cluster)
        scoring = sum(attempt.scoring_seconds for attempt in self.curve.attempts)
        checkpoint = checkpoint_of(plan.folder)
        return Measurement(
            configuration=plan.configuration,
            purpose=plan.purpose,
            outcome=outcome,
            curve=self.curve.points(),
            ranks=() if outcome is Outcome.RUNNING else self._timings(),
            noise=tuple(self.curve.noise),
            step=position.step,
            samples=position.samples,
            training_seconds=position.seconds,
            scoring_seconds=scoring,
            startup_seconds=self._startup_seconds(held),
            repeated_seconds=0.0
            if outcome is Outcome.RUNNING
            else sum(attempt.repeated_seconds() for attempt in self.curve.attempts),
            restart_seconds=self.curve.restart_seconds,
            charged_seconds=charged.seconds,
            charged_dollars=charged.dollars,
            parameter_bytes=plan.job.command.parameter_bytes or 0,
            oversubscribed=self._cluster.oversubscription(plan.configuration.nodes) > 1,
            error=error,
            checkpoint=str(checkpoint) if not plan.is_timing and checkpoint.exists() else None,
            waiting=self.waiting if outcome is Outcome.RUNNING else "",
            remarks=self._early_remarks() if outcome is Outcome.RUNNING else self.remarks(),
            reports_steps=self.heard.has_steps
            and any(a.reports_steps(2 * plan.job.probe.timing_steps) for a in self.curve.attempts),
            counts_startup=bool(self.curve.attempts) and self.curve.attempts[-1].counts_startup,
            resume_refused=self.resume_refused,
            infrastructure_fault=self.infrastructure_fault,
            job_fault=self.job_fault
            or self.checks.refusal is not None
            or (self.refusal is not None and self.habits.num_refused > 1),
        )

    def _timings(self) -> tuple[RankTiming, ...]:
        spread = step_spread(self.curve.intervals())
        return () if spread is None else (timing_of_all(spread, self.plan.configuration, self._cluster),)

    def _startup_seconds(self, held: float) -> float:
        """Returns the seconds between the time when nodes were available and the start of training.

        Args:
            held: Seconds for which the slice has occupied its nodes so far; upper limit of the result.
        """
        began = next((a.began_at() for a in self.curve.attempts if a.began_at() is not None), None)
        if began is None:
            return held
        return min(max(began - self.started - self._pending_before - self._pending, 0.0), held)

    def _held(self, now: float) -> float:
        return max(now - self._submitted - self._pending, 0.0)
