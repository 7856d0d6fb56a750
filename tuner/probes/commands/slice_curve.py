"""Learning curve and training time of a running slice (part of a run) of the user's script."""

from __future__ import annotations

import copy
import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from tuner.domain.checkpoints import write_atomically
from tuner.domain.measurement import CurvePoint, Measurement, NoiseStatistic
from tuner.probes.commands.progress_line import ProgressLine
from tuner.probes.commands.run_clock import Attempt, ReadPoint
from tuner.probes.commands.script_habits import ScriptHabits
from tuner.probes.commands.slice_checks import SliceChecks
from tuner.probes.probe_folder import ProbeFolder, unwritable
from tuner.probes.slice_plan import CHECKPOINTS_FOLDER, SlicePlan

_PROGRESS_FILE = "progress.json"
#: A score is stored if the number of samples processed at this score is at least this factor times the number
#: at the last stored score.
_STORED_INTERVAL = 1.05
#: If the number of samples processed since the last score is more than this factor times the largest number
#: of samples between two scores, the script is assumed not to report any further score.
_LATE_SCORE = 2.5
#: A slice ends at a limit only if the number of samples processed since its last score is at most this share
#: of the largest number of samples between two scores.
_NEAR_SCORE = 0.25


def known_point(probe_folder: Path) -> ReadPoint:
    """Reads the training progress at the end of a probe's last slice.

    If no slice of the probe has ended, the progress is that at the beginning of the run: 0 samples.
    """
    path = probe_folder / CHECKPOINTS_FOLDER / _PROGRESS_FILE
    try:
        return ReadPoint(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return ReadPoint()


def rebuild_records(probe_folder: Path, measured: Measurement) -> None:
    """Writes the records of a run's earlier slices to a folder on another host without files of the run.

    The next slice then knows how far the run was. It starts the run over, and counts what it repeats.

    Args:
        probe_folder: Folder of the probe.
        measured: All measurements of the run so far.

    Raises:
        StorageError: The folder cannot be written.
    """
    records = ProbeFolder(probe_folder)
    for point in measured.curve:
        records.add_point(point)
    records.end_slice(measured.outcome)
    try:
        (probe_folder / CHECKPOINTS_FOLDER).mkdir(exist_ok=True)
        last = ReadPoint(
            step=measured.step,
            samples=measured.samples,
            seconds=measured.training_seconds,
            value=measured.curve[-1].value if measured.curve else None,
        )
        _write_progress(probe_folder, last)
    except OSError as error:
        raise unwritable(probe_folder, error) from error


def _write_progress(probe_folder: Path, position: ReadPoint) -> None:
    text = json.dumps(asdict(position)).encode()
    path = probe_folder / CHECKPOINTS_FOLDER / _PROGRESS_FILE
    write_atomically(path, lambda file: file.write(text))


#: Attributes of `SliceCurve` that change when lines are added; `go_back` restores them.
_CHANGED_BY_LINES = (
    "attempts",
    "noise",
    "num_lines",
    "is_diverged",
    "_base",
    "_position",
    "_points",
    "_stored_samples",
    "_was_past",
    "_last_score",
)


class SliceCurve:
    """Computes the learning curve and training time of a slice from its lines.

    New scores are also written to the folder of the probe.

    Args:
        plan: Configuration, limits and folders of the slice.
        folder: Folder of the probe, to which scores are written.
        known: Training progress of the run before the slice.
        checks: The checks of the slice; they get the first score of a new run, which must not be close to the
            last score of another run.

    Attributes:
        attempts: One training clock for each process that trained the slice, in order. A job has several such
            processes if the script was restarted.
        noise: Estimates of gradient noise that the script reported in this slice, in order.
        num_lines: Number of progress lines read.
        is_diverged: Whether the script reported a score that is NaN or infinite.
        restart_seconds: If the slice started the run over, the training time, in seconds, that it needed to
            process as many samples as the run had processed before; otherwise None.
    """

    def __init__(
        self, *, plan: SlicePlan, folder: ProbeFolder, known: ReadPoint, checks: SliceChecks
    ) -> None:
        self._plan, self._folder, self.known, self._checks = plan, folder, known, checks
        self.attempts: list[Attempt] = []
        self.noise: list[NoiseStatistic] = []
        self.num_lines = 0
        self.is_diverged = False
        self.restart_seconds: float | None = None
        self._base = self.known
        self._position: ReadPoint | None = None
        self._points: dict[int, CurvePoint] = {}
        self._stored_samples = max(folder.reported_samples, default=0)
        self._was_past = False
        self._last_score: int | None = None
        self._resumes = True
        self._is_new_job = True
        self._snapshot: dict[str, Any] = {}

    def begin_job(self, *, resumes: bool) -> None:
        """Prepares for the lines of another job of the slice.

        Args:
            resumes: Whether the job resumes from a checkpoint.
        """
        self._resumes, self._is_new_job = resumes, True
        self._snapshot = {name: copy.copy(getattr(self, name)) for name in _CHANGED_BY_LINES}

    def go_back(self) -> None:
        """Removes training progress and scores of the current job, so its lines can be added again."""
        for name, before in self._snapshot.items():
            setattr(self, name, copy.copy(before))
        self._is_new_job = True
        self._folder.restart_slice()
        for samples in sorted(self._points):
            self._folder.add_point(self._points[samples])

    def take(self, lines: Sequence[ProgressLine], running_since: float | None) -> None:
        """Adds lines whose numbers of steps and samples are known.

        Args:
            lines: The new lines, in order.
            running_since: Time on the prober's monotonic clock when the job started to run, seconds; None if
                the job is not running.

        Raises:
            StorageError: The curve cannot be written to the folder of the probe.
        """
        for line in lines:
            self._take(line, running_since)
        if lines and self.attempts:
            self._place()

    @property
    def position(self) -> ReadPoint:
        """The training progress of the run at the last line, or before the slice if there is no line."""
        return self._position or self._base

    @property
    def first_samples(self) -> int | None:
        """Number of samples processed at the first line of the newest process; None if there is no line."""
        return self.attempts[-1].first_samples if self.attempts else None

    @property
    def has_interval(self) -> bool:
        """Whether the step time can be computed: a process has reported two lines with different steps."""
        return any(a.has_interval() for a in self.attempts)

    @property
    def num_scores(self) -> int:
        """Number of stored scores of this slice: the first `until.scores` ones, and some later ones."""
        return sum(samples > self._base.samples for samples in self._points)

    @property
    def is_at_score(self) -> bool:
        """Whether the slice may end at a limit: its last score is recent, or no further score is expected."""
        scored = sorted(samples for samples in self._points if samples > 0)
        if not scored or self._last_score is None:
            return True
        gaps = [b - a for a, b in itertools.pairwise(scored)] or [scored[0] - self._base.samples]
        past = self.position.samples - self._last_score
        return past <= _NEAR_SCORE * max(gaps) or past > _LATE_SCORE * max(gaps)

    def last_value(self) -> float:
        """Returns the last score (value of the metric) of the run; NaN if there is none."""
        if self._points:
            return self._points[max(self._points)].value
        return math.nan if self.known.value is None else self.known.value

    def seconds_now(self, silent_seconds: float) -> float:
        """Estimates the present training time of the run in seconds from its training time at the last line.

        Args:
            silent_seconds: Seconds since the last line.
        """
        return self.position.seconds + (0.0 if self._position is None else max(silent_seconds, 0.0))

    def longest_interval(self) -> float:
        """Returns the longest time between two successive lines of this slice, seconds; 0 if unknown."""
        return max((attempt.longest_interval for attempt in self.attempts), default=0.0)

    def reached_target(self) -> bool:
        """Whether the scores of this slice have reached the metric target of the job."""
        trained = [p for p in self.points() if p.samples > 0]
        return not self._plan.is_timing and self._plan.job.goal.crossing(trained) is not None

    def take_whole_pass(self) -> None:
        """Replaces the learning curve and training time of the run by those of this slice if it is complete.

        The slice is complete if it started the run over and trained at least as far as the earlier slices.
        Then its curve is that of one uninterrupted training run, while a curve joined from several slices
        may mix different training speeds.

        Raises:
            StorageError: The curve cannot be written to the folder of the probe.
        """
        found = self._whole_pass()
        if not found:
            return
        earlier = [p for p in self._folder.reported_points if p.samples <= self.known.samples]
        known_samples = {point.samples for point in earlier} | self._points.keys()
        samples, seconds = [0, *(p.samples for p in found)], [0.0, *(p.seconds for p in found)]
        self.restart_seconds = float(np.interp(self.known.samples, samples, seconds))
        self._points, self._stored_samples, self._was_past = {}, 0, False
        self._base, self._position = ReadPoint(), found[-1]
        scored = [_curve_point(p, p.value) for p in found if p.value is not None and math.isfinite(p.value)]
        if earlier and not any(0 < point.samples <= self.known.samples for point in scored):
            # A script may skip the scores that earlier slices have reported (up to `{scored_samples}`).
            repeated = np.interp([p.samples for p in earlier], samples, seconds).tolist()
            again = [replace(p, training_seconds=s) for p, s in zip(earlier, repeated, strict=True)]
            scored = again + [point for point in scored if point.samples > self.known.samples]
        self._folder.restart_slice()
        for point in scored:
            if self._is_stored(point) or point.samples in known_samples:
                self._points[point.samples] = point
                self._stored_samples = point.samples
                self._folder.add_point(point)

    def _whole_pass(self) -> list[ReadPoint]:
        """Returns the training progress at each line of the last process if it repeated all earlier training.

        The list is empty if the process did not start the run over, or trained less than the earlier slices.
        """
        if self._plan.is_timing or self._resumes or not self.attempts:
            return []
        last = self.attempts[-1]
        if last.is_empty or last.known.samples == 0 or last.samples < self.position.samples:
            return []
        found = last.whole_pass()
        scored = [s for s in (*self._folder.reported_samples, *self._points) if s > 0]
        # A script that resumes by itself does not report the training that it skips.
        return found if found[0].samples <= min(scored, default=0) else []

    def remember(self, habits: ScriptHabits) -> None:
        """Writes the training progress to a file for the next slice, and stores the first and last score.

        Args:
            habits: Facts found in all runs about the script, to which the two scores are added.

        Raises:
            OSError: The file cannot be written.
        """
        if self._plan.is_timing:
            return
        _write_progress(self._plan.folder, self.position)
        scores = [point for point in self.points() if point.samples > 0]
        if scores:
            habits.last_score = scores[-1].value
        if scores and self.known.samples == 0:
            habits.first_scores.append((scores[0].samples, scores[0].value))

    def _take(self, line: ProgressLine, running_since: float | None) -> None:
        if line.event == "asks":
            return
        if line.event == "noise":
            if line.noise is not None and line.noise.samples > self.known.samples:
                self.noise.append(line.noise)
            return
        if line.event == "progress":
            if self.num_lines == 0 and not self._plan.is_timing:
                # If the tuner was killed during a slice, the scores of that slice are used up to the number
                # of samples at which this slice resumes.
                self._base = self._with_lost_points(line.samples)
                if self.attempts:
                    self.attempts[-1].known = self._base
            self.num_lines += 1
        if self._is_new_job or not self.attempts[-1].continues_with(line):
            self._begin_attempt(running_since)
        self.attempts[-1].add(line)

    def _with_lost_points(self, before_samples: int) -> ReadPoint:
        # If the tuner was killed when a slice ended, the checkpoint may be newer than the last known score.
        reported = max(self._folder.reported_samples, default=-1)
        lost = [point for point in self._folder.lost_points(before_samples - 1) if point.samples > reported]
        for point in lost:
            self._points[point.samples] = point
            self._stored_samples = max(self._stored_samples, point.samples)
            self._folder.add_point(point)
        if not lost or lost[-1].samples <= self.known.samples:
            return self.known
        last = lost[-1]
        return replace(
            self.known, step=last.step, samples=last.samples, seconds=last.training_seconds, value=last.value
        )

    def _begin_attempt(self, running_since: float | None) -> None:
        """Starts the training clock of another process, which has written the next lines."""
        if self.attempts and self.attempts[-1].is_empty:
            self.attempts.pop()
        self._place()
        self.attempts.append(Attempt(self.position, running_since))
        self._is_new_job = False

    def _place(self) -> None:
        """Sets the training progress of the run to that at the newest line, and stores new scores."""
        points = self.attempts[-1].new_points() if self.attempts else []
        for point in points:
            self._add_point(point)
        if points:
            self._position = points[-1]

    def _add_point(self, read_point: ReadPoint) -> None:
        if (
            read_point.value is None
            or read_point.samples in self._folder.reported_samples
            or self._plan.is_timing
        ):
            return
        if not math.isfinite(read_point.value):
            self.is_diverged = True
            words = (
                f"the run has ended, as its score was {read_point.value} after {read_point.samples} samples"
            )
            self._checks.remarks[words] = None
            return
        self._last_score = max(self._last_score or 0, read_point.samples)
        point = _curve_point(read_point, read_point.value)
        if point.samples > 0 and not self._points:
            self._checks.first_score(point)
        if self._points.get(read_point.samples) != point and self._is_stored(point):
            self._points[read_point.samples] = point
            self._stored_samples = max(self._stored_samples, read_point.samples)
            self._folder.add_point(point)

    def _is_stored(self, point: CurvePoint) -> bool:
        """Whether a score has to be stored; many are not, since a script may report thousands of scores."""
        goal = self._plan.job.goal
        passes = goal.target_count().is_past(point.value)
        was_past, self._was_past = self._was_past, passes
        if point.samples in self._points or point.samples >= _STORED_INTERVAL * self._stored_samples:
            return True
        if self.num_scores < (self._plan.until.scores or 0):
            return True  # the first `until.scores` scores are always stored
        # Consecutive scores past the target must all be stored.
        return (passes or (was_past and goal.consecutive_scores > 1)) and not self.reached_target()

    def points(self) -> tuple[CurvePoint, ...]:
        """Returns the stored scores that no earlier slice has reported, in order."""
        return tuple(self._points[samples] for samples in sorted(self._points))

    def intervals(self) -> Sequence[tuple[float, int]]:
        """Returns the intervals between successive lines of the process that has the most intervals.

        Returns:
            Seconds per step and number of steps of each interval, in order.
        """
        found = max((attempt.intervals() for attempt in self.attempts), key=len, default=())
        if found or self._position is None or self._plan.is_timing:
            return found
        # With a single line, such as at the end of an epoch, start-up cannot be separated from training.
        steps = self._position.step - self._base.step
        return [((self._position.seconds - self._base.seconds) / steps, steps)] if steps > 0 else found


def _curve_point(read_point: ReadPoint, value: float) -> CurvePoint:
    return CurvePoint(
        training_seconds=read_point.seconds, step=read_point.step, samples=read_point.samples, value=value
    )
