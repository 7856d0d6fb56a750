"""Finds where in its run each line of a script belongs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from tuner.domain.measurement import CurvePoint
from tuner.job.sections import GoalSection
from tuner.probes.commands.epoch_scores import EpochScores
from tuner.probes.commands.epochs import EpochLines
from tuner.probes.commands.progress_line import ProgressLine, ScriptLine
from tuner.probes.commands.run_clock import ReadPoint
from tuner.probes.commands.script_clock import ScriptClock
from tuner.probes.commands.script_habits import ScriptHabits
from tuner.probes.commands.script_values import ScriptValues
from tuner.probes.commands.value_order import ValueOrder

#: So many lines one after the other that go back show that the script counts anew.
_MOST_STRAY = 3
_TWO_VALUES = "the script reported several values for one position"
_BEGAN_ANEW = (
    "the script began anew although it was asked to resume (workload.resume): what was trained before is "
    "trained and paid for again"
)


@dataclass(kw_only=True)
class Ignored:
    """Lines that were left out for the same reason.

    Args:
        count: How many.
        example: The first one.
    """

    count: int = 0
    example: str = ""


@dataclass(kw_only=True)
class _Counter:
    """How far the counting of one process, or of one epoch, has come."""

    first: int | None = None
    frontier: int = 0
    has_bare_lines: bool = False
    scored: dict[int, float] = field(default_factory=dict)
    last_interval: int = 0


class Positions:
    """Places the lines of one attempt at a slice, in the order in which they were written.

    What the lines show of the script goes to `habits`. If that changes how lines are read, `has_changed` is
    true: then a new instance has to position all lines again.

    Args:
        habits: What is known of the job's script.
        goal: The job's goal.
        batch_size: Of a step.
        epoch_samples: Of an epoch; None if the job does not say.
        known: How far the run was known before.
        earlier: Scores of the run's earlier slices.
        started_at: When the script was started, seconds on the prober's clock.
        resumes: Whether it was started to resume.
        may_restart: Whether something else, such as torchrun, may restart the script from its checkpoint.
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
        self._order = ValueOrder(habits, started_at=started_at, is_fresh=known.samples == 0)
        self._counter = _Counter()
        self._process = ""
        self._offset = 0
        #: Samples at which a resumed script began to count anew; 0 where it counts on.
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
        #: Lines that were left out, by reason.
        self.ignored: dict[str, Ignored] = {}
        #: Why the script's lines cannot be positioned; None as long as they can.
        self.refusal: str | None = None

    @property
    def has_changed(self) -> bool:
        """Whether lines that were positioned before may belong somewhere else."""
        return self._habits.reading != self._reading

    @property
    def is_settled(self) -> bool:
        """Whether it is known how the lines are to be read, so that the next one changes nothing."""
        counts_otherwise = self._score_step is not None and self._habits.scores_count_otherwise is None
        readers = (self._epochs, self._order, self._epoch_scores)
        return not counts_otherwise and all(reader.is_settled for reader in readers)

    def place(self, lines: Iterable[ScriptLine]) -> list[ProgressLine]:
        """The lines at their places; those that have none are counted in `ignored`."""
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
        """What was held back until more lines would come, now that the script has ended by itself."""
        size = self._epoch_samples or 0
        return [
            self._line(line, int(epochs * size) + self._resumed_at, time_of=time_of)
            for line, epochs, time_of in self._epochs.close()
        ]

    def begin_process(self, process: str = "") -> None:
        """The next lines come from another process, which may count from its checkpoint."""
        if self._counter.first is not None:
            self._counter, self._offset, self._back = _Counter(), 0, []
            self._epochs.begin_process()
            self._last_epoch, self._last_step = None, 0.0
        self._process = process

    def ignore(self, reason: str, text: str) -> None:
        """Counts a line that was left out."""
        entry = self.ignored.setdefault(reason, Ignored(example=text.strip()))
        entry.count += 1

    def _place(self, line: ScriptLine) -> list[ProgressLine]:
        if line.samples is not None:
            is_in_epoch = line.epoch is not None and line.step is None
            steps = line.samples / self._batch_size
            return self._fine(line, self._from_steps(line, steps) if is_in_epoch else int(line.samples))
        if line.step is not None:
            if self._counts_otherwise(line):
                return [self._scored(replace(line, step=None), self._last_samples or 0)]
            is_open = self._score_step is not None and self._habits.scores_count_otherwise is None
            if is_open and line.value is not None and line.epoch is None:
                return []  # until the next score shows it
            return self._fine(line, self._from_steps(line, line.step))
        if line.epoch is not None:
            if self._epoch_samples is None:
                raise ValueError(
                    "reports only epochs, and workload.epoch_samples is not set in the job: add it"
                )
            if self._epochs.is_fraction(line):
                return self._fine(line, round(line.epoch * self._epoch_samples))
            return self._coarse(line, line.epoch)
        if self._epochs.current is not None:
            return self._coarse(line, self._epochs.current)
        if self._last_samples is None:
            raise ValueError("reports a value before any position")
        if line.value is not None:
            self._epoch_scores.add_score(line)
        base = 1 if self._habits.first_epoch is None else self._habits.first_epoch
        end = self._epoch_scores.end_of_epoch(base, self._epoch_samples or self._habits.epoch_samples)
        if end is not None and self._resumed is None and end + self._resumed_at >= self._last_samples:
            return [self._scored(line, end + self._resumed_at)]
        return [self._scored(line, self._last_samples)]

    # Steps and samples.

    def _counts_otherwise(self, line: ScriptLine) -> bool:
        """Whether a score's line counts epochs, or scorings, under the name of steps, as MMEngine does.

        Its first two counts then are 1 and 2, or 0 and 1, while training has gone on from further on to still
        further on.
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
                    "lines with scores count something else than the others under the name of steps, such as "
                    f"{line.text.strip()[:120]!r}: each score belongs to the position before it"
                )
            self._score_step = (step or 0, self._last_samples)
        return bool(habits.scores_count_otherwise)

    def _from_steps(self, line: ScriptLine, step: float) -> int:
        """Samples at a number of steps, which may count within the epoch."""
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
                        f"the script counts {counted} within each epoch, and calls its first epoch {base}: "
                        "positions are epochs and what was counted in them"
                    )
            if self._epoch_samples is None and habits.step_is_within_epoch and not habits.epoch_samples:
                habits.epoch_samples = self._most_steps * self._batch_size
                habits.say(
                    "workload.epoch_samples is not stated: an epoch is taken for the "
                    f"{habits.epoch_samples:g} samples that the script's steps show"
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
        """Lines whose positions are exact."""
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
                    "the script reports scores after training has gone on: each is positioned at the "
                    "position it names"
                )
            return [positioned]
        self._back.append((line, samples))
        if samples > counter.first and len(self._back) < _MOST_STRAY:
            return []
        return self._count_anew()

    def _stray_lines(self) -> None:
        for line, _ in self._back:
            self.ignore("names a position that training had passed", line.text)
        self._back = []

    def _count_anew(self) -> list[ProgressLine]:
        """The script's count went back: at each epoch, by a restart, or for a reason that is not known."""
        counter, (line, samples) = self._counter, self._back[0]
        size = self._epoch_samples
        in_steps = line.samples is None and line.epoch is None and size is not None
        cycle = counter.frontier - self._offset
        if in_steps and size is not None and abs(cycle - size) <= counter.last_interval + self._batch_size:
            self._habits.say(
                "the script's steps begin again at each epoch: positions are epochs and steps together"
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
                f"positions went back from {counter.frontier} to {samples} samples: taken for a restart of "
                "the script from its checkpoint"
            )
            lines, self._back = self._back, []
            self._counter = _Counter()
            return [positioned for again, before in lines for positioned in self._advance(again, before)]
        if self.refusal is None:
            self.refusal = (
                f"the script's position went back from {counter.frontier} to {samples} samples "
                f"({line.text.strip()[:120]!r}), so that it is not known how far training is. If it counts "
                "within an epoch, also report the epoch, and state workload.epoch_samples; if it trains "
                "several models one after the other, such as folds, let it train one"
            )
        return []

    def _after_resume(self) -> list[ProgressLine]:
        """Whether a resumed script counts on, counts anew, or has begun anew."""
        assert self._resumed is not None
        lines = self._resumed
        line, samples = lines[-1]
        first, known = lines[0][1], self._known.samples
        fresh = self._habits.first_position
        if fresh is not None and first <= 1.01 * fresh and 2 * first <= known:
            if line.value is None or not math.isfinite(line.value):
                return []  # until a score shows which of both it is
            if self._goes_on_from_last(line, samples):
                self._resumed_at = known
                self._habits.say(
                    "after a resume the script counts its steps from 0 again: they are added to those before"
                )
            else:
                self._habits.say(_BEGAN_ANEW)
        self._resumed = None
        return [positioned for again, before in lines for positioned in self._fine(again, before)]

    def _goes_on_from_last(self, line: ScriptLine, samples: int) -> bool:
        """Whether a value goes on from the run's last score rather than from where the run began."""
        assert line.value is not None
        if not self._earlier:
            return False
        value = line.value / 100.0 if self._habits.is_percent else line.value
        same = min(self._earlier, key=lambda point: abs(point.samples - samples))
        return abs(value - self._earlier[-1].value) < abs(value - same.value)

    # Epochs.

    def _coarse(self, line: ScriptLine, epoch: float) -> list[ProgressLine]:
        """Lines that name a whole epoch, or a value that belongs to the last one named."""
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
            return  # until a score shows whether it goes on
        if 2 * first <= known and self._goes_on_from_last(line, int(first)):
            self._resumed_at = known
            self._habits.say(
                "after a resume the script counts its epochs anew: they are added to those before"
            )
        elif 2 * first <= known:
            self._habits.say(_BEGAN_ANEW)
        self._resumed = None

    # Both.

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
                    f"{_TWO_VALUES}, such as {before:g} and {value:g} for {samples} samples: the last one of "
                    "each counts. If several ranks print, let only rank 0 print",
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
        """Whether a line's steps are not those since the run began."""
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
