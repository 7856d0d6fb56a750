"""Training clock of a run that reports progress lines, across slices, resumes and restarts."""

from __future__ import annotations

import bisect
import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from search_spaces import BatchSplitsEvenly, Configuration
from tuner.domain.cluster import Cluster
from tuner.domain.measurement import RankTiming, Spread
from tuner.probes.commands.progress_line import ProgressLine

#: Intervals between lines, the first of which warms up and is left out where there are so many.
_ENOUGH_INTERVALS = 3
#: The pace before a first line is that of as many lines from there.
_EARLY = 4
_READ_INTERVAL_SECONDS = 1.0
#: A first interval is warm-up where it takes so many times as long as the next ones, which are alike, and
#: longer
#: by so many seconds; so many places are needed to see it.
_WARM_UP_FACTOR, _LEAST_WARM_UP_SECONDS, _WARM_UP_PLACES = 1.5, 0.1, 6
#: Of so many steps at most an interval stands for in a spread.
_MOST_STEPS_OF_INTERVAL = 200


@dataclass(frozen=True, kw_only=True)
class ReadPoint:
    """A point of a run on its training clock.

    Args:
        step: Optimizer steps done.
        samples: Samples seen.
        seconds: Training clock there.
        seconds_per_sample: Pace up to there; 0 where unknown.
        value: The metric; None where nothing was scored.
    """

    step: int = 0
    samples: int = 0
    seconds: float = 0.0
    seconds_per_sample: float = 0.0
    value: float | None = None


@dataclass(frozen=True, kw_only=True)
class _Place:
    """A line on the clock of its own attempt, scoring left out."""

    time: float
    step: int
    samples: int
    value: float | None = None


class Attempt:
    """The lines of one process, from where it starts or resumes to where it ends.

    The script's own times count if it reports them, else those at which lines were read. Where two lines
    name the same samples, the time between them was scoring.

    Args:
        known: How far the run was known before.
        started_at: When the script was started, on the prober's clock, for a first line without any
            other pace.
    """

    def __init__(self, known: ReadPoint, started_at: float | None = None) -> None:
        self.known = known
        self.scoring_seconds = 0.0
        self.longest_interval = 0.0
        self._started_at = started_at
        self._process = ""
        self._begin: ProgressLine | None = None
        self._places: list[_Place] = []
        self._points: list[ReadPoint] = []
        self._least_lag = float("inf")
        self._has_own_times: bool | None = None
        self._last_time = 0.0
        self._passed: float | None = None
        self._has_early_pace = False
        self._has_own_start = False
        self._num_timed = 0
        #: Grows when places move that were there before.
        self.version = 0

    @property
    def is_empty(self) -> bool:
        """Whether it reported no progress yet."""
        return not self._places

    def reports_steps(self, few: int) -> bool:
        """Whether progress is reported between scores, or at least every few steps."""
        if any(place.value is None and place.samples > 0 for place in self._places[:-1]):
            return True
        gaps = [b.step - a.step for a, b in itertools.pairwise(self._places) if a.samples > 0]
        return len(gaps) >= 2 and min(gaps) <= few

    @property
    def samples(self) -> int:
        """Samples seen, by its last line."""
        return self._places[-1].samples if self._places else 0

    def continues_with(self, line: ProgressLine) -> bool:
        """Whether a line may be of this attempt: the same process, and not further back."""
        if self.is_empty:
            return True
        if self._process and line.process and line.process != self._process:
            return False
        return line.is_late or line.samples >= self.samples

    def add(self, line: ProgressLine) -> None:
        """Adds a line."""
        self._process = line.process if self.is_empty else self._process
        if line.event == "begin":
            self._begin = line
            return
        if self.is_empty and self._begin is not None and line.seconds is None:
            begin, self._last_time = self._begin, self._time_of(self._begin)
            self._places.append(_Place(time=self._last_time, step=begin.step, samples=begin.samples))
        if line.is_late and not self.is_empty:
            self._add_late(line)
            return
        time = self._time_of(line)
        if self.is_empty and line.seconds is not None and line.samples > 0:
            # Its own clock started at zero, with the run.
            self._has_own_start = True
            if self.known.samples == 0:
                self._places.append(_Place(time=0.0, step=0, samples=0))
        if self._places and line.samples == self.samples:
            self._rescore(line, time)
        else:
            earliest = self._places[-1].time if self._places else -np.inf
            effective = max(time - self.scoring_seconds, earliest)
            if self._places:
                self.longest_interval = max(self.longest_interval, time - self._last_time)
            self._places.append(
                _Place(time=effective, step=line.step, samples=line.samples, value=line.value)
            )
            if len(self._places) == _WARM_UP_PLACES:
                self._leave_warm_up_out()
        self._last_time = max(time, self._last_time)

    @property
    def first_samples(self) -> int | None:
        """Samples of its first line, 0 where that names a beginning; None before it."""
        return None if self.is_empty else self._places[0].samples

    def first_reported(self) -> tuple[int, float, int, float, float] | None:
        """The first report of progress, and how fast those after it follow.

        Returns:
            Its samples, when it was seen on the prober's clock, how many places were reported, seconds a
            sample between the first and the last, and seconds between them; None before the first.
        """
        if self.is_empty or self._least_lag == float("inf"):
            return None
        places = [place for place in self._places if place.samples > 0]
        if not places:
            return None
        first, last = places[0], places[-1]
        span = last.time - first.time
        pace = span / (last.samples - first.samples) if last.samples > first.samples else 0.0
        return first.samples, first.time + self._least_lag, len(places), pace, span

    def points(self) -> list[ReadPoint]:
        """Every place beyond what was known, on the run's clock, in order.

        The clock continues at the known point: from when this attempt passed it, however often it was passed
        before. That time lies between two lines, or before the first by the pace of those that follow.
        """
        if self.is_empty:
            return []
        # A first line's time moves while the next ones set the pace; a last line's value may still come.
        if self._passed is None or not self._has_early_pace:
            self._passed = self._passed_at(self.known.samples)
            self._points, self._num_timed = [], 0
        elif self._num_timed:
            self._num_timed -= 1
            if self._points and self._points[-1].samples == self._places[self._num_timed].samples:
                self._points.pop()
        pace = self.pace() or self.known.seconds_per_sample
        for place in self._places[self._num_timed :]:
            is_untrained = place.samples == 0 and self.known == ReadPoint()
            if place.samples > self.known.samples or is_untrained:
                seconds = self.known.seconds + max(place.time - self._passed, 0.0)
                self._points.append(
                    ReadPoint(
                        step=place.step,
                        samples=place.samples,
                        seconds=seconds,
                        seconds_per_sample=pace,
                        value=place.value,
                    )
                )
        self._num_timed = len(self._places)
        if not self._points:  # until it has passed what was known, the place may move
            self._passed = None
        return self._points

    def whole_pass(self) -> list[ReadPoint]:
        """Every place on the clock of this attempt alone, in order, as if nothing had been known before.

        It is the clock of a training only where the attempt started the run over.
        """
        alone = copy.copy(self)
        alone.known = ReadPoint()
        if self._has_own_start and self._places and self._places[0].samples > 0:
            alone._places = [_Place(time=0.0, step=0, samples=0), *self._places]
        alone._move()
        return alone.points()

    def repeated_seconds(self) -> float:
        """Training up to what was known before."""
        if self.is_empty or self._places[0].samples >= self.known.samples:
            return 0.0
        passed = min(self._passed_at(self.known.samples), self._places[-1].time)
        return max(passed - self._places[0].time, 0.0)

    def began_at(self) -> float | None:
        """When training started, or resumed, on the prober's clock; None before it did."""
        if self.is_empty:
            return None
        first = self._places[0]
        goes_on = first.samples > self.known.samples
        return (self._passed_at(self.known.samples) if goes_on else first.time) + self._least_lag

    @property
    def counts_startup(self) -> bool:
        """Whether its training is counted from the start of the script, since no pace is known yet."""
        if self.is_empty or self._started_at is None or self.known.seconds_per_sample > 0.0:
            return False
        first, last = self._places[0], self._places[-1]
        return first.samples > self.known.samples and last.time <= first.time

    def pace(self) -> float:
        """Seconds a sample between its first line and its last; 0 where there is only one."""
        if len(self._places) < 2:
            return 0.0
        first, last = self._places[0], self._places[-1]
        return max(last.time - first.time, 0.0) / (last.samples - first.samples)

    def intervals(self) -> list[tuple[float, int]]:
        """Seconds a step, and how many steps, of each interval between two lines.

        Intervals that end with a scoring hold it: they count only where there are no others.
        """
        if self.is_empty:
            return []
        # Lines that were read together have one time, and count as one.
        spaced = [
            place
            for place, after in itertools.pairwise([*self._places, self._places[-1]])
            if after is place or after.time > place.time
        ]
        made = [
            (
                (b.time - a.time) / (b.step - a.step),
                b.step - a.step,
                b.value is None or self.scoring_seconds > 0,
            )
            for a, b in itertools.pairwise(spaced)
            if b.step > a.step
        ]
        pure = [(seconds, steps) for seconds, steps, is_pure in made if is_pure]
        return pure if len(pure) >= 2 else [(seconds, steps) for seconds, steps, _ in made]

    def has_interval(self) -> bool:
        """Whether there is one."""
        return len(self._places) > 1 and self._places[-1].step > self._places[0].step

    def _add_late(self, line: ProgressLine) -> None:
        """Adds a value that was reported after training had gone on, where it belongs."""
        seen = [place.samples for place in self._places]
        index = bisect.bisect_left(seen, line.samples)
        if index < len(seen) and seen[index] == line.samples:
            if line.value is not None:
                self._places[index] = replace(self._places[index], value=line.value)
        elif index > 0:
            before, after = self._places[index - 1], self._places[index]
            share = (line.samples - before.samples) / (after.samples - before.samples)
            time = before.time + share * (after.time - before.time)
            self._places.insert(
                index, _Place(time=time, step=line.step, samples=line.samples, value=line.value)
            )
        self._move()

    def _leave_warm_up_out(self) -> None:
        """Counts a first interval's compilation and caching as start-up, if later ones are clearly shorter.

        Without a report from before the first step this happens by itself: what precedes the first line is
        estimated by the pace of the lines that follow it.
        """
        paces = [(b.time - a.time) / (b.samples - a.samples) for a, b in itertools.pairwise(self._places)]
        later = sorted(paces[1:])
        usual, first = later[len(later) // 2], self._places[0]
        excess = (paces[0] - usual) * (self._places[1].samples - first.samples)
        is_clear = paces[0] > _WARM_UP_FACTOR * usual and later[-1] < _WARM_UP_FACTOR * later[0]
        if is_clear and excess > _LEAST_WARM_UP_SECONDS and first.samples <= self.known.samples:
            self._places[0] = replace(first, time=first.time + excess)
            self._move()

    def _move(self) -> None:
        self._passed, self._points, self._num_timed = None, [], 0
        self.version += 1

    def _rescore(self, line: ProgressLine, time: float) -> None:
        """Adds a line at the samples of the last one: the time between is scoring."""
        last = self._places[-1]
        self.scoring_seconds += max(time - self._last_time, 0.0)
        self._places[-1] = _Place(
            time=last.time,
            step=max(last.step, line.step),
            samples=last.samples,
            value=last.value if line.value is None else line.value,
        )

    def _time_of(self, line: ProgressLine) -> float:
        own = line.time if line.seconds is None else line.seconds
        if self._has_own_times is None:
            self._has_own_times = own is not None
        if self._has_own_times and own is None:
            return line.seen_at - self._least_lag
        time = own if self._has_own_times and own is not None else line.seen_at
        self._least_lag = min(self._least_lag, line.seen_at - time)
        return time

    def _passed_at(self, samples: int) -> float:
        """When it had seen so many samples, on its own clock."""
        first = self._places[0]
        if first.samples > samples:
            pace = self._early_pace() or self.known.seconds_per_sample
            if pace == 0.0 and self._started_at is not None:
                return self._started_at - self._least_lag
            return first.time - pace * (first.samples - samples)
        self._has_early_pace = True  # which nothing asks for
        seen = [place.samples for place in self._places]
        return float(np.interp(samples, seen, [place.time for place in self._places]))

    def _early_pace(self) -> float:
        """The pace of the first intervals: compilation and warm-up, if any, lie before the first line."""
        first = self._places[0]
        few = self._places
        for number, place in enumerate(self._places, start=1):
            if number >= _EARLY and place.time - first.time >= self._least_span:
                few, self._has_early_pace = self._places[:number], True
                break
        if len(few) < 2:
            return 0.0
        return max(few[-1].time - first.time, 0.0) / (few[-1].samples - first.samples)

    @property
    def _least_span(self) -> float:
        """How far lines must be apart to determine a pace: lines without a time are read in batches."""
        return 0.0 if self._has_own_times else _READ_INTERVAL_SECONDS


def step_spread(intervals: Sequence[tuple[float, int]]) -> Spread | None:
    """Step seconds from intervals between lines, or None where there is none.

    An interval of k steps hides how its steps differ: the spread of its mean is 1 / sqrt(k) of theirs.

    Args:
        intervals: Seconds a step, and how many steps.
    """
    selected = list(intervals)
    if len(selected) > _ENOUGH_INTERVALS:
        selected = selected[1:]
    if not selected:
        return None
    counts = np.array([steps for _, steps in selected])
    seconds = np.repeat([s for s, _ in selected], np.minimum(counts, _MOST_STEPS_OF_INTERVAL))
    spread = Spread.of(seconds.tolist())
    return Spread(
        median=spread.median,
        p10=spread.p10,
        p90=spread.p90,
        mean=float(np.average([s for s, _ in selected], weights=counts)),
        std=spread.std * float(np.sqrt(counts.mean())),
        count=int(counts.sum()),
    )


def timing_of_all(step: Spread, configuration: Configuration, cluster: Cluster) -> RankTiming:
    """The step time of a script as that of all its ranks: what a step consists of is not reported."""
    devices = cluster.devices_per_node
    nothing = Spread(median=0.0, p10=0.0, p90=0.0, mean=0.0, std=0.0, count=0)
    return RankTiming(
        rank=0,
        batch_size=BatchSplitsEvenly(devices_per_node=devices).split(configuration)[0],
        compute=step,
        sync=nothing,
        input=nothing,
        step=step,
        count=configuration.nodes * devices,
    )
