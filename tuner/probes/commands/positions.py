"""Computes the position of each line of a script: the number of steps and samples since the run began.

A line is one report of the script. Scripts count in different ways: from 0 or from 1, over the whole run or
within an epoch. The first lines show how a script counts; these facts are stored in `ScriptHabits`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from tuner.domain.measurement import CurvePoint
from tuner.job.sections import GoalSection
from tuner.probes.commands.epochs import EpochLines
from tuner.probes.commands.progress_line import MOST, ProgressLine, ScriptLine
from tuner.probes.commands.run_clock import ReadPoint
from tuner.probes.commands.score_positions import EpochScores, ScoreBeforePosition
from tuner.probes.commands.script_clock import ScriptClock
from tuner.probes.commands.script_habits import ScriptHabits
from tuner.probes.commands.script_values import ScriptValues

#: If this many lines in a row report fewer samples than earlier lines, the script has restarted its count.
_MOST_STRAY = 3
_TWO_VALUES = "the script reported several values for one position"
_BEGAN_ANEW = (
    "the script started from scratch although it was asked to resume (workload.resume): all earlier training "
    "of this run is repeated and charged again"
)


@dataclass(kw_only=True)
class Ignored:
    """Lines that were ignored for the same reason: their number, and the text of the first such line."""

    count: int = 0
    example: str = ""


@dataclass(kw_only=True)
class _Counter:
    """Training progress that one process of the script has reported, as numbers of samples processed.

    Args:
        first: Number of samples at the first line; None if no line was read.
        frontier: Largest number of samples at any line.
        has_bare_lines: Whether lines without a score were read.
        scored: Maps the number of samples at each line with a score to the score.
        last_interval: Number of samples between the last line and the line with fewer samples before it.
    """

    first: int | None = None
    frontier: int = 0
    has_bare_lines: bool = False
    scored: dict[int, float] = field(default_factory=dict)
    last_interval: int = 0


class Positions:
    """Computes the training progress (step, samples) at each line that one job of a script reports.

    Facts about how the script counts are added to `habits`. If a new fact changes how lines are read,
    `has_changed` becomes True: then the caller has to pass all lines of the job to a new instance.

    Args:
        habits: Facts found in all runs about how the script reports.
        goal: Metric and target of the job, which determine the unit and valid range of scores.
        batch_size: Number of samples per step, over all ranks.
        epoch_samples: Number of samples per epoch; None if the job file does not set it.
        known: Training progress of the run before this job.
        earlier: Scores of the earlier slices of the run, in order.
        started_at: Time on the prober's monotonic clock when the script was started, seconds.
        resumes: Whether the script was asked to resume.
        may_restart: Whether a program such as torchrun may restart the script from its checkpoint.

    Attributes:
        ignored: Maps each reason for ignoring lines to the number of these lines and an example.
        refusal: Why the training progress cannot be computed, for the user; None if it can be computed.
    """

    def __init__(
        self,
        habits: ScriptHabits,
        goal: GoalSection,
        *,
        batch_size: int,
        epoch_samples: int | None,
        known: ReadPoint,
        earlier: Sequence[CurvePoint] = (),
        started_at: float,
        resumes: bool = False,
        may_restart: bool = False,
    ) -> None:
        self._habits, self._reading = habits, habits.reading
        self._batch_size, self._epoch_samples = batch_size, epoch_samples
        self._known, self._may_restart, self._started_at = known, may_restart, started_at
        self._clock = ScriptClock(habits)
        self._values = ScriptValues(habits, goal, was_finite=known.value is not None)
        self._epochs = EpochLines(habits, started_at=started_at, is_fresh=known.samples == 0)
        self._order = ScoreBeforePosition(habits, started_at=started_at, is_fresh=known.samples == 0)
        self._counter = _Counter()
        self._process = ""
        self._offset = 0
        #: If the script counts from 0 after a resume, the number of samples that the run had processed
        #: before the resume; it is added to the samples of each line. Otherwise 0.
        self._resumed_at = 0
        self._has_bare_steps = False
        self._score_step: tuple[float, int] | None = None
        self._earlier = [point for point in earlier if point.samples > 0]
        self._resumed: list[tuple[ScriptLine, int]] | None = [] if resumes and known.samples > 0 else None
        self._back: list[tuple[ScriptLine, int]] = []
        self._last_epoch: float | None = None
        self._last_step = self._most_steps = 0.0
        self._last_samples: int | None = None
        self._epoch_scores = EpochScores(habits)
        self.ignored: dict[str, Ignored] = {}
        self.refusal: str | None = None

    @property
    def has_changed(self) -> bool:
        """Whether a new fact about the script may change the training progress at earlier lines."""
        return self._habits.reading != self._reading

    @property
    def is_settled(self) -> bool:
        """Whether it is known how the script counts, so later lines do not change earlier results."""
        counts_otherwise = self._score_step is not None and self._habits.scores_count_otherwise is None
        readers = (self._epochs, self._order, self._epoch_scores)
        return not counts_otherwise and all(reader.is_settled for reader in readers)

    def place(self, lines: Iterable[ScriptLine]) -> list[ProgressLine]:
        """Computes the training progress at new lines; a line without known progress is counted in `ignored`.

        Args:
            lines: The new lines, in order.

        Returns:
            The lines whose training progress is known now, maybe with lines of earlier calls. If the progress
            at a line depends on the next line, a later call returns this line.
        """
        found: list[ProgressLine] = []
        for line in lines:
            if line.event != "progress":
                found.append(_event(line))
                continue
            if line.process != self._process and line.process:
                self.begin_process(line.process)
            joined = self._order.joined(line)
            try:
                found += [] if joined is None else self._place(joined)
            except ValueError as error:
                self.ignore(str(error), line.text)
        return found

    def finish(self) -> list[ProgressLine]:
        """Returns the lines of a script that has ended which `place` has not returned yet."""
        size = self._epoch_samples or 0
        return [
            self._line(line, int(epochs * size) + self._resumed_at, time_of=time_of)
            for line, epochs, time_of in self._epochs.close()
        ]

    def begin_process(self, process: str = "") -> None:
        """Prepares for the lines of another process, which may resume from a checkpoint.

        Args:
            process: Name of the process that the next lines contain; empty if unknown.
        """
        if self._counter.first is not None:
            self._counter, self._offset, self._back = _Counter(), 0, []
            self._epochs.begin_process()
            self._last_epoch, self._last_step = None, 0.0
        self._process = process

    def ignore(self, reason: str, text: str) -> None:
        """Counts an ignored line under its reason.

        Args:
            reason: The reason, which must be the same text for all lines of the same kind.
            text: Text of the line, for the example.
        """
        entry = self.ignored.setdefault(reason, Ignored(example=text.strip()))
        entry.count += 1

    def _place(self, line: ScriptLine) -> list[ProgressLine]:
        if max((line.step or 0) * self._batch_size, (line.epoch or 0) * (self._epoch_samples or 1)) > MOST:
            raise ValueError(f"the step or epoch is equivalent to more than {MOST:g} samples")
        if line.samples is not None:
            is_in_epoch = line.epoch is not None and line.step is None
            steps = line.samples / self._batch_size
            return self._fine(line, self._from_steps(line, steps) if is_in_epoch else int(line.samples))
        if line.step is not None:
            if self._counts_otherwise(line):
                return [self._scored(replace(line, step=None), self._last_samples or 0)]
            is_open = self._score_step is not None and self._habits.scores_count_otherwise is None
            if is_open and line.value is not None and line.epoch is None:
                return []  # the next score shows whether the steps of these lines are optimizer steps
            return self._fine(line, self._from_steps(line, line.step))
        if line.epoch is not None:
            if self._epoch_samples is None:
                raise ValueError(
                    "add workload.epoch_samples to the job file, since the script reports only epochs"
                )
            if self._epochs.is_fraction(line):
                return self._fine(line, round(line.epoch * self._epoch_samples))
            return self._coarse(line, line.epoch)
        if self._epochs.current is not None:
            return self._coarse(line, self._epochs.current)
        if self._last_samples is None:
            raise ValueError("reports a value before any position (step, samples or epoch)")
        if line.value is not None:
            self._epoch_scores.add_score(line)
        base = 1 if self._habits.first_epoch is None else self._habits.first_epoch
        end = self._epoch_scores.end_of_epoch(base, self._epoch_samples or self._habits.epoch_samples)
        if end is not None and self._resumed is None and end + self._resumed_at >= self._last_samples:
            return [self._scored(line, end + self._resumed_at)]
        return [self._scored(line, self._last_samples)]

    def _counts_otherwise(self, line: ScriptLine) -> bool:
        """Whether the step on lines with scores is a number of epochs or evaluations, not of optimizer steps.

        In MMEngine, for example, the first two lines with scores have the steps 1 and 2 (or 0 and 1). The
        steps of the lines without scores are much larger, and rise between these two lines.
        """
        habits, step = self._habits, line.step
        if line.value is None or line.samples is not None or line.epoch is not None:
            self._has_bare_steps |= line.value is None
            return False
        if habits.scores_count_otherwise is None and self._has_bare_steps and self._last_samples is not None:
            is_behind = 2 * (step or 0) * self._batch_size < self._last_samples
            follows = self._score_step is None or step == self._score_step[0] + 1
            went_on = self._score_step is None or self._last_samples > self._score_step[1]
            is_small = step in (0, 1) if self._score_step is None else True
            if not (is_behind and follows and went_on and is_small):
                habits.scores_count_otherwise = False
            elif self._score_step is not None:
                habits.scores_count_otherwise = True
                habits.say(
                    "the step on lines with scores is not a number of optimizer steps, such as in "
                    f"{line.text.strip()[:120]!r}: each score is assigned to the training progress before it"
                )
            self._score_step = (step or 0, self._last_samples)
        return bool(habits.scores_count_otherwise)

    def _from_steps(self, line: ScriptLine, step: float) -> int:
        """Converts the steps of a line to the number of samples since the run began.

        The epoch on the line, if any, shows whether the script counts steps over the run or within the epoch.
        """
        habits, epoch = self._habits, line.epoch
        samples = round(step * self._batch_size)
        if epoch is None or epoch != math.floor(epoch):
            return samples + self._offset
        if habits.first_epoch is None and self._last_epoch is None and self._known.samples == 0:
            habits.first_epoch = 0 if epoch < 1 else 1 if epoch < 2 else None
        base = 1 if habits.first_epoch is None else habits.first_epoch
        if self._last_epoch is not None and epoch > self._last_epoch:
            if habits.step_is_within_epoch is None:
                habits.step_is_within_epoch = step <= self._last_step
                if habits.step_is_within_epoch:
                    counted = "steps" if line.samples is None else "samples"
                    habits.say(
                        f"the script counts {counted} within each epoch, and its first epoch is {base}: "
                        f"the training progress is computed from epochs and {counted}"
                    )
            if self._epoch_samples is None and habits.step_is_within_epoch and not habits.epoch_samples:
                habits.epoch_samples = self._most_steps * self._batch_size
                habits.say(
                    "workload.epoch_samples is not stated: an epoch is taken to have "
                    f"{habits.epoch_samples:g} samples, as the script's steps show"
                )
            self._most_steps = 0.0
        elif habits.step_is_within_epoch is None and self._known.samples > 2 * samples and epoch > base:
            habits.step_is_within_epoch = True
        self._epoch_scores.add_progress(line, epoch, samples, self._epoch_samples or habits.epoch_samples)
        self._last_epoch, self._last_step = epoch, step
        self._most_steps = max(self._most_steps, step)
        if not habits.step_is_within_epoch:
            return samples
        size = self._epoch_samples or habits.epoch_samples
        return int((epoch - base) * size + (min(samples, size) if size else samples))

    def _fine(self, line: ScriptLine, samples: int) -> list[ProgressLine]:
        """Returns the training progress at a line with samples, steps or a fraction of an epoch."""
        if self._resumed is not None:
            self._resumed.append((line, samples))
            return self._after_resume()
        return self._advance(line, samples + self._resumed_at)

    def _advance(self, line: ScriptLine, samples: int) -> list[ProgressLine]:
        counter = self._counter
        if counter.first is None:
            counter.first = samples
        if samples >= counter.frontier:
            self._stray_lines()
            if samples > counter.frontier:
                counter.last_interval = samples - counter.frontier
            counter.frontier = samples
            counter.has_bare_lines |= line.value is None
            self._last_samples = samples
            return [self._scored(line, samples)]
        is_late = counter.has_bare_lines and samples not in counter.scored and samples >= counter.first
        if line.value is not None and is_late:
            positioned = self._scored(line, samples, is_late=True)
            if positioned.value is not None:
                self._habits.say(
                    "the script reports scores while it trains further: each score is assigned to the "
                    "step, samples or epoch on its own line"
                )
            return [positioned]
        self._back.append((line, samples))
        if samples > counter.first and len(self._back) < _MOST_STRAY:
            return []
        return self._count_anew()

    def _stray_lines(self) -> None:
        for line, _ in self._back:
            self.ignore("the script reports fewer samples, steps or epochs than on previous lines", line.text)
        self._back = []

    def _count_anew(self) -> list[ProgressLine]:
        """Handles lines that report fewer samples than earlier lines.

        The script may count from 0 in each epoch, or may have restarted from its checkpoint. If neither can
        be the reason, `refusal` is set.
        """
        counter, (line, samples) = self._counter, self._back[0]
        size = self._epoch_samples
        in_steps = line.samples is None and line.epoch is None and size is not None
        cycle = counter.frontier - self._offset
        if in_steps and size is not None and abs(cycle - size) <= counter.last_interval + self._batch_size:
            self._habits.say(
                "the script counts steps from 0 in each epoch: its progress is computed from epochs and steps"
            )
            self._offset += size
            lines, self._back = self._back, []
            self._counter = _Counter(
                first=counter.first, frontier=self._offset, has_bare_lines=counter.has_bare_lines
            )
            found: list[ProgressLine] = []
            for again, before in lines:
                found += self._advance(again, before + size)
            self._counter.first = self._offset + (counter.first or 0)
            return found
        if self._may_restart:
            self._habits.say(
                f"the script's progress fell from {counter.frontier} to {samples} samples: the script seems "
                "to have restarted from its checkpoint"
            )
            lines, self._back = self._back, []
            self._counter = _Counter()
            return [positioned for again, before in lines for positioned in self._advance(again, before)]
        if self.refusal is None:
            self.refusal = (
                f"the script's progress fell from {counter.frontier} to {samples} samples "
                f"({line.text.strip()[:120]!r}), so the progress of training is unknown. If the script "
                "counts within an epoch, also report the epoch, and state workload.epoch_samples; if it "
                "trains several models in sequence, such as the folds of cross-validation, let it train one"
            )
        return []

    def _after_resume(self) -> list[ProgressLine]:
        """Finds out whether a resumed script continues its count, counts from 0, or did not resume at all."""
        assert self._resumed is not None
        lines = self._resumed
        line, samples = lines[-1]
        first, known = lines[0][1], self._known.samples
        fresh = self._habits.first_position
        if fresh is not None and first <= 1.01 * fresh and 2 * first <= known:
            if line.value is None or not math.isfinite(line.value):
                return []  # the next score will show whether the script has resumed
            if self._goes_on_from_last(line, samples):
                self._resumed_at = known
                self._habits.say(
                    "after a resume the script counts steps from 0: those before the resume are added to them"
                )
            else:
                self._habits.say(_BEGAN_ANEW)
        self._resumed = None
        return [positioned for again, before in lines for positioned in self._fine(again, before)]

    def _goes_on_from_last(self, line: ScriptLine, samples: int) -> bool:
        """Whether a line's score is nearer to the run's last score than to its score at `samples`."""
        assert line.value is not None
        if not self._earlier:
            return False
        value = line.value / 100.0 if self._habits.is_percent else line.value
        same = min(self._earlier, key=lambda point: abs(point.samples - samples))
        return abs(value - self._earlier[-1].value) < abs(value - same.value)

    def _coarse(self, line: ScriptLine, epoch: float) -> list[ProgressLine]:
        """Returns the lines whose training progress is known now that a line reports a whole epoch."""
        size, counter = self._epoch_samples, self._counter
        assert size is not None
        if self._resumed is not None:
            self._find_epoch_of_resume(line, epoch)
        if self._epochs.current is not None and epoch < self._epochs.current:
            samples = int(self._epochs.done(epoch) * size) + self._resumed_at
            if line.value is not None and counter.has_bare_lines and samples not in counter.scored:
                return [self._scored(line, samples, is_late=True)]
            if not self._may_restart:
                self._back.append((line, samples))
                return self._count_anew()
            self._epochs.begin_process()
            self._counter = counter = _Counter()
        found = []
        for positioned, epochs, time_of in self._epochs.add(line, epoch):
            samples = int(epochs * size) + self._resumed_at
            if counter.first is None:
                counter.first = samples
            counter.frontier = max(counter.frontier, samples)
            counter.has_bare_lines |= positioned.value is None
            self._last_samples = samples
            found.append(self._scored(positioned, samples, time_of=time_of))
        return found

    def _find_epoch_of_resume(self, line: ScriptLine, epoch: float) -> None:
        size, known = self._epoch_samples or 0, self._known.samples
        first = self._epochs.done(epoch) * size
        if line.value is None and 2 * first <= known:
            return  # the next score will show whether the script has resumed
        if 2 * first <= known and self._goes_on_from_last(line, int(first)):
            self._resumed_at = known
            self._habits.say(
                "after a resume the script counts epochs anew: those before the resume are added to them"
            )
        elif 2 * first <= known:
            self._habits.say(_BEGAN_ANEW)
        self._resumed = None

    def _scored(
        self,
        line: ScriptLine,
        samples: int,
        *,
        is_late: bool = False,
        time_of: ScriptLine | None = None,
    ) -> ProgressLine:
        positioned = self._line(line, samples, is_late=is_late, time_of=time_of)
        value, before = positioned.value, self._counter.scored.get(samples)
        if value is not None and math.isfinite(value):
            if before is not None and not math.isclose(before, value, rel_tol=1e-6):
                self._habits.say(
                    f"{_TWO_VALUES}, such as {before:g} and {value:g} at {samples} samples: the last value "
                    "is used. If several ranks print, let only rank 0 print",
                    once=_TWO_VALUES,
                )
            self._counter.scored[samples] = value
        return positioned

    def _line(
        self, line: ScriptLine, samples: int, *, is_late: bool = False, time_of: ScriptLine | None = None
    ) -> ProgressLine:
        timed = time_of or line
        seconds, time = None, timed.time
        if line.seconds is not None and not is_late:
            wall = timed.time if timed.time is not None else timed.seen_at
            is_fresh = self._known.samples == 0 and timed.time is None
            since_start = timed.seen_at - self._started_at if is_fresh else None
            seconds, date = self._clock.read(line.seconds, wall, since_start)
            time = date if date is not None else time
        value = None
        if line.value is not None:
            try:
                value = self._values.read(line)
            except ValueError as error:
                self.ignore(str(error), line.text)
        counts_on = line.step is not None and not self._is_recounted(line)
        step = line.step if line.step is not None and counts_on else samples / self._batch_size
        return ProgressLine(
            seen_at=timed.seen_at,
            time=time,
            seconds=seconds,
            process=line.process,
            step=int(step),
            samples=samples,
            value=value,
            is_late=is_late,
        )

    def _is_recounted(self, line: ScriptLine) -> bool:
        """Whether the script counts the steps on a line from 0 again in each epoch or after a resume."""
        within = bool(self._habits.step_is_within_epoch) and line.epoch is not None
        return within or self._resumed_at > 0 or (self._offset > 0 and line.samples is None)


def _event(line: ScriptLine) -> ProgressLine:
    return ProgressLine(
        event=line.event,
        seen_at=line.seen_at,
        time=line.time,
        process=line.process,
        step=int(line.step or 0),
        samples=int(line.samples or 0),
        noise=line.noise,
    )
