"""Measurement of a command's slice in flight, built from its progress lines and jobs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tuner.domain.charge import charge
from tuner.domain.cluster import Cluster
from tuner.domain.measurement import (
    Measurement,
    Outcome,
    RankTiming,
)
from tuner.launchers import JobHandle, JobState, JobStatus
from tuner.probes.commands.json_source import JsonSource
from tuner.probes.commands.lumps import Lumps
from tuner.probes.commands.metric_source import DISAGREE, MetricSource
from tuner.probes.commands.positions import Positions
from tuner.probes.commands.progress_line import ProgressLine, ScriptLine
from tuner.probes.commands.run_clock import ReadPoint, step_spread, timing_of_all
from tuner.probes.commands.script_habits import ScriptHabits
from tuner.probes.commands.slice_checks import SliceChecks
from tuner.probes.commands.slice_curve import SliceCurve, known_point
from tuner.probes.commands.slice_lines import (
    Heard,
    ignored_remarks,
    source_remarks,
    spread_lump,
    unmatched_warning,
)
from tuner.probes.commands.task import CommandPlan, checkpoint_of
from tuner.probes.probe_folder import ProbeFolder
from tuner.probes.slice_plan import SlicePlan

#: So many lines are kept, to be positioned again where a later one shows how the script counts.
_MOST_STORED = 20_000
#: How long a slice that has scored may wait until it is known how its lines are to be read: seconds, and a
#: share of the time since it began to run.
_SETTLE_SECONDS, _SETTLE_SHARE = 2.0, 0.5
#: The same until the next report shows how fast a run trains whose first one is suspiciously far.
_PACE_SHARE = 1.5


class CommandSlice:
    """Turns the reports of a script into a growing measurement.

    Args:
        plan: The slice.
        folder: The probe's folder.
        cluster: What it runs on.
        started: The prober's clock when it was asked for.
        habits: What is known of how the script reports.
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
        #: How many remarks on the script other slices have made.
        self._num_said = len(self.habits.remarks)
        self._positions: Positions | None = None
        self._stored_lines: list[ScriptLine] | None = []
        known = ReadPoint() if plan.is_timing else known_point(plan.folder)
        self._lumps = Lumps(is_fresh=known.samples == 0)
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
        #: The outcome of the slice once its job has ended, since when, and whether the job was cancelled.
        self.verdict: Outcome | None = None
        self.verdict_at = 0.0
        self.verdict_words: str | None = None
        self.is_cancelled = False
        self.cancelled_at = 0.0
        self.not_before = 0.0  # by the prober's clock
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
        """Registers a job that runs the slice, or the rest of it."""
        self.job, self.attempt = job, attempt
        self.source, self.events = sources
        self.num_attempts += 1
        self.running_since = None
        self._submitted = self.heard_at = self._read_at = self._lines_at = now
        self._submitted_samples = self.curve.position.samples
        self.curve.begin_job(resumes=attempt.resumes)
        self._stored_lines = []
        self._lumps = Lumps(is_fresh=self.curve.position.samples == 0 and not attempt.resumes)
        if attempt.resumes:
            self.checks.resumed()
        self._positions = attempt.positions(self.habits, self.folder.reported_points, now)

    def hear(self, status: JobStatus, now: float) -> None:
        """Takes the job's status from the scheduler backend, and reads what the script reported since.

        Raises:
            StorageError: The curve cannot be written to the probe's folder.
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
            # Two places have two clocks; when lines are read is common to both.
            lines = [replace(line, time=None) for line in heard if line.event != "progress"] + list(lines)
        if any(line.event == "progress" for line in lines):
            self.heard_at = now
        self.checks.resume_words = self.source.resume_words
        for words in self.source.disagreements:
            self.habits.say(words, once=DISAGREE)
        since = self._lines_at if self.source.is_buffered else self._read_at
        if lines:
            since = max(since, self.running_since or since)
            self._read(spread_lump(lines, since), since, now)
            self._lines_at = now
        self._read_at = now
        if status.state is JobState.SUCCEEDED and self._positions is not None and self.verdict is None:
            self._take_all(self._positions.finish())

    def _read(self, lines: Sequence[ScriptLine], since: float, now: float) -> None:
        """Places new lines; all of them where a new one shows how the script counts."""
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
            moved = self._lumps.retimed(self._stored_lines, lines, since, now)
            self._stored_lines = moved or self._stored_lines
        if (self._positions.has_changed or moved) and self._stored_lines is not None:
            for _ in range(4):  # what is found out is found out once
                self.curve.go_back()
                self._positions = self.attempt.positions(
                    self.habits, self.folder.reported_points, self._submitted
                )
                positioned = self._positions.place(self._stored_lines)
                if not self._positions.has_changed:
                    break
        self._take_all(positioned)
        if self.curve.attempts and not self._lumps.awaits_pace:
            self.checks.follow(self.curve.attempts[-1], self.running_since)

    def _take_all(self, lines: Sequence[ProgressLine]) -> None:
        self.asks |= any(line.event == "asks" for line in lines)
        self.curve.take(lines, self.running_since)

    def was_lost(self, now: float, waiting: str) -> None:
        """Registers that the job was lost without a fault of its own.

        Args:
            now: The prober's clock.
            waiting: Why it is submitted again.
        """
        progress = self.curve.position.samples
        self.lost_in_a_row = 1 if progress > self._samples_at_loss else self.lost_in_a_row + 1
        self._samples_at_loss = progress
        self.will_repeat(now, waiting)

    def will_repeat(self, now: float, waiting: str) -> None:
        """Registers that the job has ended, and that another one runs the rest of the slice.

        Args:
            now: The prober's clock.
            waiting: Why it is submitted again.
        """
        self._held_before += self._held(now)
        self._pending_before += self._pending
        self.job, self._pending = None, 0.0
        self.running_since = None
        self.waiting = waiting

    @property
    def may_end(self) -> bool:
        """Whether the next line is not needed to know how those before are to be read."""
        awaits_pace = self.checks.awaits_pace or self._lumps.awaits_pace
        if self._positions is None or (self._positions.is_settled and not awaits_pace):
            return True
        since = self.started if self.running_since is None else self.running_since
        share = _PACE_SHARE if self.checks.awaits_pace else _SETTLE_SHARE
        return self._read_at - self.heard_at > max(_SETTLE_SECONDS, share * (self.heard_at - since))

    @property
    def refusal(self) -> str | None:
        """Why what the script does cannot be measured; None as long as it can."""
        return self.checks.refusal or (self._positions.refusal if self._positions else None)

    def remark(self, words: str) -> None:
        """Stores a sentence on what was noticed."""
        self.checks.remarks[words] = None

    def remarks(self) -> tuple[str, ...]:
        """What was noticed of the script in this slice."""
        found = dict.fromkeys(self.habits.remarks[self._num_said :])
        found |= self.checks.remarks
        scored = self.curve.num_scores > 0 or self.curve.known.value is not None
        found |= dict.fromkeys(source_remarks(self.source, has_score=scored))
        if self.heard.unread_clock:
            found[f"a time cannot be read, and the wall clock counts: {self.heard.unread_clock!r}"] = None
        if self._positions is not None:
            found |= dict.fromkeys(ignored_remarks(self._positions.ignored))
        return tuple(found)

    def _early_remarks(self) -> tuple[str, ...]:
        """What a user should know before the slice ends."""
        size = self.plan.job.command.epoch_samples
        words = unmatched_warning(
            self.source, self.habits, samples=self.curve.position.samples, epoch_samples=size
        )
        return (words,) if words else ()

    @property
    def has_progressed(self) -> bool:
        """Whether the job that runs now has trained beyond where it started."""
        return self.curve.position.samples > self._submitted_samples

    def measurement(self, outcome: Outcome, now: float, error: str | None = None) -> Measurement:
        """The slice as it stands.

        Args:
            outcome: Its outcome so far.
            now: The prober's clock.
            error: What went wrong.
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
        """Of each attempt, from when its nodes were available until training started."""
        began = next((a.began_at() for a in self.curve.attempts if a.began_at() is not None), None)
        if began is None:
            return held
        return min(max(began - self.started - self._pending_before - self._pending, 0.0), held)

    def _held(self, now: float) -> float:
        return max(now - self._submitted - self._pending, 0.0)
