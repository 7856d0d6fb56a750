"""Training clock of a run: the seconds that a script has spent on training, computed from its lines.

A line is one report of the script, with the number of samples processed and maybe a score (a metric value). A
run may be trained by several processes, one after the other, since the script may be resumed or restarted.
The clock leaves out start-up, evaluation, and training that a process repeats after a restart.
"""

from __future__ import annotations

import bisect
import copy
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from search_spaces import BatchSplitsEvenly, Configuration
from tuner.domain.cluster import Cluster
from tuner.domain.measurement import RankTiming, Spread
from tuner.probes.commands.progress_line import ProgressLine

#: The step time is computed from the intervals between successive lines. If there are more intervals than
#: this number, the first one is taken as warm-up and left out.
_ENOUGH_INTERVALS = 3
#: The seconds per sample before the first line are estimated from the first `_EARLY` lines. More lines are
#: used if these cover less than `_READ_INTERVAL_SECONDS` and do not report when they were written.
_EARLY, _READ_INTERVAL_SECONDS = 4, 1.0
#: When `_WARM_UP_PLACES` lines were read, the first interval between lines is taken as warm-up if all of
#: these are true: its seconds per sample are more than `_WARM_UP_FACTOR` times the median of the later
#: intervals, the later intervals differ by less than this factor, and the first interval took
#: `_LEAST_WARM_UP_SECONDS` longer than the median would have.
_WARM_UP_FACTOR, _LEAST_WARM_UP_SECONDS, _WARM_UP_PLACES = 1.5, 0.1, 6
#: In the percentiles of step times, each interval between two lines is weighted by its number of steps, but
#: at most by this number.
_MOST_STEPS_OF_INTERVAL = 200


@dataclass(frozen=True, kw_only=True)
class ReadPoint:
    """Training progress of a run at one of its lines.

    Args:
        step: Number of optimizer steps since the run began.
        samples: Number of samples processed since the run began.
        seconds: Training time since the run began, seconds.
        seconds_per_sample: Mean training time per sample in the process that reported the line, seconds; 0 if
            unknown.
        value: Value of the metric that the line reports; None if the line has no score.
    """

    step: int = 0
    samples: int = 0
    seconds: float = 0.0
    seconds_per_sample: float = 0.0
    value: float | None = None


@dataclass(frozen=True, kw_only=True)
class _Place:
    """A line of one process of the script: number of steps and samples, score, and time in seconds.

    The time does not include the time that the process spent on evaluation before the line.
    """

    time: float
    step: int
    samples: int
    value: float | None = None


class Attempt:
    """Training clock of one process of the script, from its first line to its last line.

    If the script reports times, these are used; otherwise the times at which its lines were read. The time
    between two lines with the same number of samples was spent on evaluation, and is left out.

    Args:
        known: Training progress of the run before this process.
        started_at: Time on the prober's monotonic clock when the script was started, seconds; None if
            unknown. If there is only one line, the time per sample is unknown, so training is assumed to
            begin at this time.
    """

    def __init__(self, known: ReadPoint, started_at: float | None = None) -> None:
        self.known = known
        self.scoring_seconds = 0.0
        self.longest_interval = 0.0
        self._started_at = started_at
        self._process = ""
        self._begin: ProgressLine | None = None
        self._places: list[_Place] = []
        #: Smallest difference between the prober's monotonic clock and the clock of the lines, seconds. It
        #: converts times of lines to the prober's monotonic clock.
        self._least_lag = math.inf
        self._has_own_times: bool | None = None
        self._has_own_start = False
        self._last_time = 0.0
        #: Number of lines for which `new_points` has returned results, and the time, on the clock of the
        #: lines, at which it assumed new training to begin.
        self._num_returned = 0
        self._returned_origin: float | None = None

    @property
    def is_empty(self) -> bool:
        """Whether the process has not reported any progress."""
        return not self._places

    def reports_steps(self, few: int) -> bool:
        """Whether step times can be computed from the lines of this process.

        This is so if lines without a score come between the scores, or if two scores are at most `few` steps
        apart.

        Args:
            few: Largest number of steps between two scores from which step times can be computed.
        """
        if any(place.value is None and place.samples > 0 for place in self._places[:-1]):
            return True
        gaps = [b.step - a.step for a, b in itertools.pairwise(self._places) if a.samples > 0]
        return len(gaps) >= 2 and min(gaps) <= few

    @property
    def samples(self) -> int:
        """Number of samples processed at the last line; 0 if there is no line."""
        return self._places[-1].samples if self._places else 0

    def continues_with(self, line: ProgressLine) -> bool:
        """Whether a line may have been reported by this process.

        The result is False if the line contains the name of another process, or if its number of samples is
        lower than at the last line.
        """
        if self.is_empty:
            return True
        if self._process and line.process and line.process != self._process:
            return False
        return line.is_late or line.samples >= self.samples

    def add(self, line: ProgressLine) -> None:
        """Adds a line of this process."""
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
            # The clock that the script reports was 0 when the run began.
            self._has_own_start = True
            if self.known.samples == 0:
                self._places.append(_Place(time=0.0, step=0, samples=0))
        if self._places and line.samples == self.samples:
            self._rescore(line, time)
        else:
            earliest = self._places[-1].time if self._places else -math.inf
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
        """Number of samples processed at the first line; None if there is no line.

        It is 0 if the first line reports the start of training.
        """
        return None if self.is_empty else self._places[0].samples

    def first_reported(self) -> tuple[int, float, int, float, float] | None:
        """Returns the first report of training, and the speed of training after it.

        Returns:
            Five numbers: the samples at the first report, the time of that report on the prober's monotonic
            clock in seconds, the number of reports, the seconds per sample between the first and the last
            report, and the seconds between the first and the last report. None if there is no report.
        """
        if self.is_empty or math.isinf(self._least_lag):
            return None
        places = [place for place in self._places if place.samples > 0]
        if not places:
            return None
        first, last = places[0], places[-1]
        span = last.time - first.time
        pace = span / (last.samples - first.samples) if last.samples > first.samples else 0.0
        return first.samples, first.time + self._least_lag, len(places), pace, span

    def points(self) -> list[ReadPoint]:
        """Returns the training progress at each line that shows new training, in order.

        A line shows new training if it reports more samples than the run had processed before this process
        (`known`). The training clock continues at the time when this process reached that number of samples.
        This time is interpolated between two lines; if it was before the first line, it is extrapolated from
        the time per sample of the first lines.
        """
        return self._points_from(0, self._passed_at(self.known.samples)) if self._places else []

    def new_points(self) -> list[ReadPoint]:
        """Returns those results of `points` that are new or may have changed since the last call, in order.

        If a new line has changed the estimate of when training began, all results have changed. Otherwise the
        last result of the last call is returned again, since a later line may have reported its score.
        """
        if not self._places:
            return []
        origin = self._passed_at(self.known.samples)
        start = max(self._num_returned - 1, 0) if origin == self._returned_origin else 0
        self._num_returned, self._returned_origin = len(self._places), origin
        return self._points_from(start, origin)

    def _points_from(self, start: int, origin: float) -> list[ReadPoint]:
        pace = self.pace() or self.known.seconds_per_sample
        return [
            ReadPoint(
                step=place.step,
                samples=place.samples,
                seconds=self.known.seconds + max(place.time - origin, 0.0),
                seconds_per_sample=pace,
                value=place.value,
            )
            for place in self._places[start:]
            if place.samples > self.known.samples or (place.samples == 0 and self.known == ReadPoint())
        ]

    def whole_pass(self) -> list[ReadPoint]:
        """Returns the training progress at all lines, with a clock that counts only the time of this process.

        If the process started the run over, the result describes one uninterrupted training run.
        """
        alone = copy.copy(self)
        alone.known = ReadPoint()
        if self._has_own_start and self._places and self._places[0].samples > 0:
            alone._places = [_Place(time=0.0, step=0, samples=0), *self._places]
        return alone.points()

    def repeated_seconds(self) -> float:
        """Returns the seconds that this process spent on training that earlier processes had already done."""
        if self.is_empty or self._places[0].samples >= self.known.samples:
            return 0.0
        passed = min(self._passed_at(self.known.samples), self._places[-1].time)
        return max(passed - self._places[0].time, 0.0)

    def began_at(self) -> float | None:
        """Returns the time on the prober's monotonic clock when this process began to train, seconds.

        None if the process has not reported any progress.
        """
        if self.is_empty:
            return None
        first = self._places[0]
        goes_on = first.samples > self.known.samples
        return (self._passed_at(self.known.samples) if goes_on else first.time) + self._least_lag

    @property
    def counts_startup(self) -> bool:
        """Whether the training clock includes start-up, since no time per sample is known yet."""
        if self.is_empty or self._started_at is None or self.known.seconds_per_sample > 0.0:
            return False
        first, last = self._places[0], self._places[-1]
        return first.samples > self.known.samples and last.time <= first.time

    def pace(self) -> float:
        """Returns the seconds of training per sample, between first and last line; 0 if there is only one."""
        if len(self._places) < 2:
            return 0.0
        first, last = self._places[0], self._places[-1]
        return max(last.time - first.time, 0.0) / (last.samples - first.samples)

    def intervals(self) -> list[tuple[float, int]]:
        """Returns the seconds per step and the number of steps of each interval between two successive lines.

        If the time of evaluation is unknown, an interval that ends with a score includes that time. Such
        intervals are returned only if there are fewer than two other intervals.
        """
        if self.is_empty:
            return []
        # Of lines that were read together, which have the same time, use only the last one.
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
        """Whether there are two lines with different numbers of steps."""
        return len(self._places) > 1 and self._places[-1].step > self._places[0].step

    def _add_late(self, line: ProgressLine) -> None:
        """Adds a line with a score that the script reports only after training has gone on."""
        index = bisect.bisect_left(self._places, line.samples, key=_samples_of)
        if index < len(self._places) and self._places[index].samples == line.samples:
            if line.value is not None:
                self._places[index] = replace(self._places[index], value=line.value)
        elif index > 0:
            place = _Place(
                time=self._time_at(line.samples), step=line.step, samples=line.samples, value=line.value
            )
            self._places.insert(index, place)
        self._returned_origin = None

    def _leave_warm_up_out(self) -> None:
        """Moves the start of training to a later time if the first interval clearly includes a warm-up.

        This is needed only if a line reports the start of training. Otherwise the first interval begins after
        the warm-up, and the time before the first line is estimated from the lines after it.
        """
        paces = [(b.time - a.time) / (b.samples - a.samples) for a, b in itertools.pairwise(self._places)]
        later = sorted(paces[1:])
        usual, first = later[len(later) // 2], self._places[0]
        excess = (paces[0] - usual) * (self._places[1].samples - first.samples)
        is_clear = paces[0] > _WARM_UP_FACTOR * usual and later[-1] < _WARM_UP_FACTOR * later[0]
        if is_clear and excess > _LEAST_WARM_UP_SECONDS and first.samples <= self.known.samples:
            self._places[0] = replace(first, time=first.time + excess)
            self._returned_origin = None

    def _rescore(self, line: ProgressLine, time: float) -> None:
        """Adds a line with as many samples as the last one; the time in between was spent on evaluation."""
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
        """Returns the time, on the clock of the lines, at which training had processed `samples` samples.

        For a number of samples below that of the first line, the time is extrapolated.
        """
        first = self._places[0]
        if first.samples <= samples:
            return self._time_at(samples)
        pace = self._early_pace() or self.known.seconds_per_sample
        if pace == 0.0 and self._started_at is not None:
            return self._started_at - self._least_lag
        return first.time - pace * (first.samples - samples)

    def _time_at(self, samples: int) -> float:
        """Returns the time at a number of samples, interpolated between two lines.

        For a number of samples above that of the last line, the time of the last line is returned.
        """
        index = bisect.bisect_left(self._places, samples, key=_samples_of)
        if index == len(self._places):
            return self._places[-1].time
        after = self._places[index]
        if index == 0 or after.samples == samples:
            return after.time
        before = self._places[index - 1]
        share = (samples - before.samples) / (after.samples - before.samples)
        return before.time + share * (after.time - before.time)

    def _early_pace(self) -> float:
        """Returns the seconds of training per sample between the first lines; 0 if there is only one line.

        Compilation and warm-up come before the first line, so they are not included.
        """
        first, last = self._places[0], self._places[-1]
        for place in self._places[_EARLY - 1 :]:
            if place.time - first.time >= self._least_span:
                last = place
                break
        if last is first:
            return 0.0
        return max(last.time - first.time, 0.0) / (last.samples - first.samples)

    @property
    def _least_span(self) -> float:
        """Shortest time between two lines from which the time per sample can be computed reliably, seconds.

        It is 0 if lines report when they were written. For other lines, only the time at which they were read
        is known, and several lines may be read at once.
        """
        return 0.0 if self._has_own_times else _READ_INTERVAL_SECONDS


def _samples_of(place: _Place) -> int:
    return place.samples


def step_spread(intervals: Sequence[tuple[float, int]]) -> Spread | None:
    """Computes mean, percentiles and standard deviation of the step time from the intervals between lines.

    The mean time of k independent steps has 1 / sqrt(k) of the standard deviation of a single step. So the
    standard deviation between intervals is multiplied by the square root of their mean number of steps.

    Args:
        intervals: Seconds per step and number of steps of each interval between two lines, in order.

    Returns:
        The step time, seconds; None if there are no intervals.
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
    """Returns one timing for all ranks of a script, in which the whole step is computing time.

    The times of the other parts of a step, such as synchronization, are 0, since a script does not report
    them.

    Args:
        step: Mean, percentiles and standard deviation of the step time, seconds.
        configuration: The configuration that the script trained.
        cluster: The cluster on which the script ran.
    """
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
