"""Measurement of a command's slice in flight, built from its progress lines and jobs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tuner.domain.charge import charge
from tuner.domain.cluster import Cluster
from tuner.domain.measurement import (
    CurvePoint,
    Measurement,
    NoiseStatistic,
    Outcome,
    RankTiming,
)
from tuner.launchers import JobHandle, JobState, JobStatus
from tuner.probes.commands.known_point import known_point, write_known_point
from tuner.probes.commands.lumps import Lumps
from tuner.probes.commands.metric_sources import DISAGREE, JsonSource, MetricSource
from tuner.probes.commands.positions import Positions
from tuner.probes.commands.progress_line import ProgressLine, ScriptLine
from tuner.probes.commands.run_clock import Attempt, ReadPoint, step_spread, timing_of_all
from tuner.probes.commands.script_habits import ScriptHabits
from tuner.probes.commands.slice_checks import SliceChecks
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

#: A scoring is stored if it lies so much further than the last stored one.
_STORED_INTERVAL = 1.05
#: So many lines are kept, to be positioned again where a later one shows how the script counts.
_MOST_STORED = 20_000
#: How long a slice that has scored may wait until it is known how its lines are to be read: seconds, and a
#: share of the time since it began to run.
_SETTLE_SECONDS, _SETTLE_SHARE = 2.0, 0.5
#: The same until the next report shows how fast a run trains whose first one is suspiciously far.
_PACE_SHARE = 1.5
#: No score for so many times the longest distance between two: the script may score no more.
_LATE_SCORE = 2.5
#: A slice ends within this share of that distance after a score.
_NEAR_SCORE = 0.25


@dataclass(frozen=True, kw_only=True)
class _Snapshot:
    """What a slice knew when its job was submitted."""

    attempts: tuple[Attempt, ...]
    points: dict[int, CurvePoint]
    noise: tuple[NoiseStatistic, ...]
    num_lines: int
    base: ReadPoint
    position: ReadPoint | None
    stored_samples: int


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
        self.known = ReadPoint() if plan.is_timing else known_point(plan.folder)
        self._lumps = Lumps(is_fresh=self.known.samples == 0)
        self._snapshot: _Snapshot | None = None
        self._read_at = self._lines_at = started
        self._own_remarks: dict[str, None] = {}
        self.heard = Heard()
        self._last_score: int | None = None
        self.checks = SliceChecks(plan=plan, habits=self.habits, is_new=self.known.samples == 0)
        self.ended: Measurement | None = None
        self.job: JobHandle | None = None
        self.attempt: CommandPlan | None = None
        self.source: MetricSource | None = None
        self.events: JsonSource | None = None
        self.running_since: float | None = None
        self.heard_at = started
        self.asks = False
        self.is_diverged = False
        self.num_lines = 0
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
        self._attempts: list[Attempt] = []
        self._base = self.known
        self._position: ReadPoint | None = None
        self._points: dict[int, CurvePoint] = {}
        self._stored_samples = max(folder.reported_samples, default=0)
        self._num_timed = self._version = 0
        self._was_past = False
        self._first_point: ReadPoint | None = None
        self._noise: list[NoiseStatistic] = []
        self._restart_seconds: float | None = None

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
        self._submitted_samples = self.position.samples
        if self._attempts:
            self._begin_attempt()
        self._snapshot = _Snapshot(
            attempts=tuple(self._attempts),
            points=dict(self._points),
            noise=tuple(self._noise),
            num_lines=self.num_lines,
            base=self._base,
            position=self._position,
            stored_samples=self._stored_samples,
        )
        self._stored_lines = []
        self._lumps = Lumps(is_fresh=self.position.samples == 0 and not attempt.resumes)
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
                self._go_back()
                self._positions = self.attempt.positions(
                    self.habits, self.folder.reported_points, self._submitted
                )
                positioned = self._positions.place(self._stored_lines)
                if not self._positions.has_changed:
                    break
        self._take_all(positioned)
        if self._attempts and not self._lumps.awaits_pace:
            self.checks.follow(self._attempts[-1], self.running_since)

    def _take_all(self, lines: Sequence[ProgressLine]) -> None:
        for line in lines:
            self._take(line)
        if lines and self._attempts:
            self._place()

    def _go_back(self) -> None:
        """Forgets what this job's lines were taken for."""
        then = self._snapshot
        assert then is not None
        self._attempts, self._points, self._noise = list(then.attempts), dict(then.points), list(then.noise)
        self.num_lines, self._base, self._position = then.num_lines, then.base, then.position
        self._stored_samples, self._num_timed, self._first_point = then.stored_samples, 0, None
        self.is_diverged, self._last_score = False, None
        self.folder.restart_slice()
        for samples in sorted(self._points):
            self.folder.add_point(self._points[samples])

    def was_lost(self, now: float, waiting: str) -> None:
        """Registers that the job was lost without a fault of its own.

        Args:
            now: The prober's clock.
            waiting: Why it is submitted again.
        """
        progress = self.position.samples
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
    def position(self) -> ReadPoint:
        """How far the run is known now."""
        return self._position or self._base

    @property
    def has_interval(self) -> bool:
        """Whether a step time is known."""
        return any(a.has_interval() for a in self._attempts)

    @property
    def num_scores(self) -> int:
        """Scores of this slice beyond what was known; exact up to `until.scores`, then some are left out."""
        return sum(samples > self._base.samples for samples in self._points)

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
        self._own_remarks[words] = None

    def remarks(self) -> tuple[str, ...]:
        """What was noticed of the script in this slice."""
        found = dict.fromkeys(self.habits.remarks[self._num_said :])
        found |= self._own_remarks | self.checks.remarks
        scored = self.num_scores > 0 or self.known.value is not None
        found |= dict.fromkeys(source_remarks(self.source, has_score=scored))
        if self.heard.unread_clock:
            found[f"a time cannot be read, and the wall clock counts: {self.heard.unread_clock!r}"] = None
        if self._positions is not None:
            found |= dict.fromkeys(ignored_remarks(self._positions.ignored))
        return tuple(found)

    def _early_remarks(self) -> tuple[str, ...]:
        """What a user should know before the slice ends."""
        size = self.plan.job.command.epoch_samples
        words = unmatched_warning(self.source, self.habits, samples=self.position.samples, epoch_samples=size)
        return (words,) if words else ()

    @property
    def is_at_score(self) -> bool:
        """Whether a score has just been reported, or none has come for much longer than before."""
        scored = sorted(samples for samples in self._points if samples > 0)
        if not scored or self._last_score is None:
            return True
        gaps = [b - a for a, b in itertools.pairwise(scored)] or [scored[0] - self._base.samples]
        past = self.position.samples - self._last_score
        return past <= _NEAR_SCORE * max(gaps) or past > _LATE_SCORE * max(gaps)

    @property
    def has_progressed(self) -> bool:
        """Whether the job that runs now has trained beyond where it started."""
        return self.position.samples > self._submitted_samples

    def last_value(self) -> float:
        """The last scoring that is known; NaN if there is none."""
        if self._points:
            return self._points[max(self._points)].value
        return math.nan if self.known.value is None else self.known.value

    def seconds_now(self, now: float) -> float:
        """The training clock now, running since the last line."""
        if self._position is None:
            return self._base.seconds
        return self.position.seconds + max(now - self.heard_at, 0.0)

    def longest_interval(self) -> float:
        """The longest time between two lines of this slice; 0 where there were none."""
        return max((attempt.longest_interval for attempt in self._attempts), default=0.0)

    def reached_target(self) -> bool:
        """Whether a scoring of this slice is past the job's target."""
        trained = [p for p in self._curve() if p.samples > 0]
        return not self.plan.is_timing and self.plan.job.goal.crossing(trained) is not None

    def measurement(self, outcome: Outcome, now: float, error: str | None = None) -> Measurement:
        """The slice as it stands.

        Args:
            outcome: Its outcome so far.
            now: The prober's clock.
            error: What went wrong.
        """
        plan, position = self.plan, self.position
        held = self._held_before + (self._held(now) if self.job is not None else 0.0)
        charged = charge(held, plan.configuration, self._cluster)
        scoring = sum(attempt.scoring_seconds for attempt in self._attempts)
        checkpoint = checkpoint_of(plan.folder)
        return Measurement(
            configuration=plan.configuration,
            purpose=plan.purpose,
            outcome=outcome,
            curve=self._curve(),
            ranks=() if outcome is Outcome.RUNNING else self._timings(),
            noise=tuple(self._noise),
            step=position.step,
            samples=position.samples,
            training_seconds=position.seconds,
            scoring_seconds=scoring,
            startup_seconds=self._startup_seconds(held),
            repeated_seconds=0.0
            if outcome is Outcome.RUNNING
            else sum(attempt.repeated_seconds() for attempt in self._attempts),
            restart_seconds=self._restart_seconds,
            charged_seconds=charged.seconds,
            charged_dollars=charged.dollars,
            parameter_bytes=plan.job.command.parameter_bytes or 0,
            oversubscribed=self._cluster.oversubscription(plan.configuration.nodes) > 1,
            error=error,
            checkpoint=str(checkpoint) if not plan.is_timing and checkpoint.exists() else None,
            waiting=self.waiting if outcome is Outcome.RUNNING else "",
            remarks=self._early_remarks() if outcome is Outcome.RUNNING else self.remarks(),
            reports_steps=self.heard.has_steps
            and any(a.reports_steps(2 * plan.job.probe.timing_steps) for a in self._attempts),
            counts_startup=bool(self._attempts) and self._attempts[-1].counts_startup,
            resume_refused=self.resume_refused,
            infrastructure_fault=self.infrastructure_fault,
            job_fault=self.job_fault
            or self.checks.refusal is not None
            or (self.refusal is not None and self.habits.num_refused > 1),
        )

    def take_whole_pass(self) -> None:
        """Replaces curve and clock by those of this slice alone, if it trained all that is known again.

        The newest complete pass is one training. Passes at different paces, joined, are none.

        Raises:
            StorageError: The curve cannot be written to the probe's folder.
        """
        found = self._whole_pass()
        if not found:
            return
        earlier = [p for p in self.folder.reported_points if p.samples <= self.known.samples]
        known_samples = {point.samples for point in earlier} | self._points.keys()
        samples, seconds = [0, *(p.samples for p in found)], [0.0, *(p.seconds for p in found)]
        self._restart_seconds = float(np.interp(self.known.samples, samples, seconds))
        self._points, self._stored_samples, self._was_past = {}, 0, False
        self._base, self._position = ReadPoint(), found[-1]
        scored = [_curve_point(p, p.value) for p in found if p.value is not None and math.isfinite(p.value)]
        if earlier and not any(0 < point.samples <= self.known.samples for point in scored):
            # A script that is told which scores are known may leave them out.
            repeated = np.interp([p.samples for p in earlier], samples, seconds).tolist()
            again = [replace(p, training_seconds=s) for p, s in zip(earlier, repeated, strict=True)]
            scored = again + [point for point in scored if point.samples > self.known.samples]
        self.folder.restart_slice()
        for point in scored:
            if self._is_stored(point) or point.samples in known_samples:
                self._points[point.samples] = point
                self._stored_samples = point.samples
                self.folder.add_point(point)

    def _whole_pass(self) -> list[ReadPoint]:
        """What the last process reported, if it started over and got as far as is known; else empty."""
        if self.plan.is_timing or self.attempt is None or self.attempt.resumes or not self._attempts:
            return []
        last = self._attempts[-1]
        if last.is_empty or last.known.samples == 0 or last.samples < self.position.samples:
            return []
        found = last.whole_pass()
        scored = [s for s in (*self.folder.reported_samples, *self._points) if s > 0]
        # A script may resume by itself: then it does not report what lies before.
        return found if found[0].samples <= min(scored, default=0) else []

    def remember(self) -> None:
        """Writes how far the run is known, for the next slice, and notes its scores for other runs.

        Raises:
            OSError: It cannot be written.
        """
        if self.plan.is_timing:
            return
        write_known_point(self.plan.folder, self.position)
        scores = [point for point in self._curve() if point.samples > 0]
        if scores:
            self.habits.last_score = scores[-1].value
        if scores and self.known.samples == 0:
            self.habits.first_scores.append((scores[0].samples, scores[0].value))

    def _take(self, line: ProgressLine) -> None:
        if line.event == "asks":
            self.asks = True
            return
        if line.event == "noise":
            if line.noise is not None and line.noise.samples > self.known.samples:
                self._noise.append(line.noise)
            return
        if line.event == "progress":
            if self.num_lines == 0 and not self.plan.is_timing:
                # What a slice that was lost with its tuner had seen, up to where this one resumes.
                self._base = self._with_lost_points(line.samples)
                if self._attempts:
                    self._attempts[-1].known = self._base
            self.num_lines += 1
        if not self._attempts or not self._attempts[-1].continues_with(line):
            self._begin_attempt()
        self._attempts[-1].add(line)

    def _with_lost_points(self, before_samples: int) -> ReadPoint:
        # The checkpoint may be further than what was reported, where the tuner was killed as a slice ended.
        reported = max(self.folder.reported_samples, default=-1)
        lost = [point for point in self.folder.lost_points(before_samples - 1) if point.samples > reported]
        for point in lost:
            self._points[point.samples] = point
            self._stored_samples = max(self._stored_samples, point.samples)
            self.folder.add_point(point)
        if not lost or lost[-1].samples <= self.known.samples:
            return self.known
        last = lost[-1]
        return replace(
            self.known, step=last.step, samples=last.samples, seconds=last.training_seconds, value=last.value
        )

    def _begin_attempt(self) -> None:
        """Keeps what was seen so far; the next lines come from another process."""
        if self._attempts and self._attempts[-1].is_empty:
            self._attempts.pop()
        self._place()
        self._attempts.append(Attempt(self.position, self.running_since))
        self._num_timed = 0

    def _place(self) -> None:
        """Puts new lines on the run's clock, and new scorings into the folder."""
        points = self._attempts[-1].points() if self._attempts else []
        if not points:
            return
        # While a pace is not sure, those before may still move; late values come between them.
        version = self._attempts[-1].version
        moved = self._num_timed == 0 or points[0] != self._first_point or version != self._version
        start = 0 if moved else self._num_timed - 1
        self._first_point, self._version = points[0], version
        for read_point in points[start:]:
            self._add_point(read_point)
        self._num_timed, self._position = len(points), points[-1]

    def _add_point(self, read_point: ReadPoint) -> None:
        if (
            read_point.value is None
            or read_point.samples in self.folder.reported_samples
            or self.plan.is_timing
        ):
            return
        if not math.isfinite(read_point.value):
            self.is_diverged = True
            self.remark(
                f"the value was {read_point.value} after {read_point.samples} samples, which ended the run"
            )
            return
        self._last_score = max(self._last_score or 0, read_point.samples)
        point = _curve_point(read_point, read_point.value)
        if point.samples > 0 and not self._points and self.source is not None:
            self.checks.first_score(point, self.source.resume_words)
        if self._points.get(read_point.samples) != point and self._is_stored(point):
            self._points[read_point.samples] = point
            self._stored_samples = max(self._stored_samples, read_point.samples)
            self.folder.add_point(point)

    def _is_stored(self, point: CurvePoint) -> bool:
        """Whether a curve needs a scoring: a script may score thousands of times, at even distances."""
        goal = self.plan.job.goal
        passes = goal.target_count().is_past(point.value)
        was_past, self._was_past = self._was_past, passes
        if point.samples in self._points or point.samples >= _STORED_INTERVAL * self._stored_samples:
            return True
        if self.num_scores < (self.plan.until.scores or 0):
            return True  # the slice is to show so many, however close they are
        # Scores in a row count only if none between them is left out.
        return (passes or (was_past and goal.consecutive > 1)) and not self.reached_target()

    def _curve(self) -> tuple[CurvePoint, ...]:
        """The scorings that no earlier slice has reported, in order."""
        return tuple(self._points[samples] for samples in sorted(self._points))

    def _intervals(self) -> Sequence[tuple[float, int]]:
        found = max((attempt.intervals() for attempt in self._attempts), key=len, default=())
        if found or self._position is None or self.plan.is_timing:
            return found
        # A single report, as at the end of an epoch: start-up is part of it, since nothing tells them apart.
        steps = self._position.step - self._base.step
        return [((self._position.seconds - self._base.seconds) / steps, steps)] if steps > 0 else found

    def _timings(self) -> tuple[RankTiming, ...]:
        spread = step_spread(self._intervals())
        return () if spread is None else (timing_of_all(spread, self.plan.configuration, self._cluster),)

    def _startup_seconds(self, held: float) -> float:
        """Of each attempt, from when its nodes were available until training started."""
        began = next((a.began_at() for a in self._attempts if a.began_at() is not None), None)
        if began is None:
            return held
        return min(max(began - self.started - self._pending_before - self._pending, 0.0), held)

    def _held(self, now: float) -> float:
        return max(now - self._submitted - self._pending, 0.0)


def _curve_point(read_point: ReadPoint, value: float) -> CurvePoint:
    return CurvePoint(
        training_seconds=read_point.seconds, step=read_point.step, samples=read_point.samples, value=value
    )
