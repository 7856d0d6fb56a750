"""Acquisition function: expected gain and cost of every short probe and timing probe."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from search_spaces import Configuration
from tuner.analytic.predictor import Predictor
from tuner.domain.measurement import Purpose
from tuner.probes import Until, first_evaluation
from tuner.search.beliefs import Beliefs
from tuner.search.emulation_cost import fit_emulation_cost
from tuner.search.expected_gain import LEAST_GAIN, compared, expected_cost, expected_gain, typical
from tuner.search.limits import may_start, seconds_left
from tuner.search.pending_probes import left_to_resolve
from tuner.search.policy import Continue, Start
from tuner.search.state import Run, SearchState, run_of
from tuner.search.timings import TimingKey, timing_key

Array = npt.NDArray[np.float64]

#: A short probe of a run covers this share of its predicted length; resuming the best covers more.
_PROBE_SHARE, _SLICE_SHARE = 0.08, 0.15
_SHORTEST_SLICE_SECONDS = 1.5
#: A probe that takes this many times what was expected ends without its scoring.
_OVERRUN_FACTOR = 4.0
#: A timing probe ends after so many training seconds even if it has steps left.
_TIMING_SECONDS = 1.5
#: What no probe shows of log samples to target.
_UNKNOWN_AT_ONCE = 0.05
#: What a timing leaves unknown of log seconds.
_UNKNOWN_AFTER_TIMING = 0.08
#: A configuration whose chance of reaching the target is smaller is out of reach.
_LEAST_PROBABILITY = 0.02


@dataclass(frozen=True, kw_only=True)
class ProbeCost:
    """What resuming each candidate is charged on the machine that runs it.

    Args:
        per_sample: Charged seconds of a sample, `(num,)`.
        price: Cost in the goal's unit of one charged second, `(num,)`.
        shortest_samples: The shortest probe in samples, `(num,)`.
    """

    per_sample: Array
    price: Array
    shortest_samples: Array


@dataclass(frozen=True, kw_only=True)
class Option:
    """Something that could be done next.

    Args:
        gain: What it is expected to save, in the goal's unit.
        cost: What it costs, in the same.
        index: The candidate it is about.
        purpose: TIMING for a timing probe, STATISTICS for a short probe of a run.
    """

    gain: float
    cost: float
    index: int
    purpose: Purpose

    @property
    def net_gain(self) -> float:
        """What it is expected to save beyond what it costs."""
        return self.gain - self.cost


class Acquisition:
    """One decision's candidates with what each is expected to cost.

    The cost of a candidate is what remains of its first training, and all of each further one that the
    answer serves, in seconds or dollars.

    Args:
        state: What is known and spent.
        beliefs: What is believed of the candidates.
    """

    def __init__(self, state: SearchState, beliefs: Beliefs) -> None:
        self._state = state
        self._beliefs = beliefs
        forecast = beliefs.forecast
        more = state.further_trainings
        virtual = state.cluster.virtual is not None
        # An emulated run is not a real training: nothing of it remains to be done.
        self._runs = [run_of(state, c) for c in beliefs.configurations]
        cost = np.zeros_like(forecast.total) if virtual else self._still_to_train()
        cost = cost + more * forecast.total if more else cost
        self._cost = _within_limits(state, beliefs, cost) * beliefs.price
        self._expected, self._reach = expected_cost(self._cost)
        self._length = typical(forecast.total)
        self._left = typical(forecast.remaining)
        self._slice_seconds = state.slice_seconds
        self._probe_cost = probe_cost(state, beliefs)
        self._compared_with: int | None = None
        self._ratios = self._resolvable = np.zeros(0)
        self._may_start = may_start(state)
        reachable = np.isfinite(self._expected) & (self._reach > _LEAST_PROBABILITY)
        levels = frozenset(state.space.candidates())
        self._reachable = [
            bool(near)
            and (run is not None or configuration in levels or state.space.is_feasible(configuration))
            for near, run, configuration in zip(reachable, self._runs, beliefs.configurations, strict=True)
        ]

    def _still_to_train(self) -> Array:
        """What remains of each candidate's first training, draws: all of it if a run starts over."""
        forecast = self._beliefs.forecast
        if not self._state.repeats:
            return forecast.remaining
        arrived = np.array([run is not None and run.arrived for run in self._runs], dtype=bool)
        return np.where(arrived, forecast.remaining, forecast.total)

    def incumbent(self) -> int | None:
        """The candidate with the smallest expected cost; None if none is reachable."""
        usable = [i for i in range(len(self._runs)) if self._reachable[i] and self._may_go_on(i)]
        return min(usable, key=lambda i: float(self._expected[i]), default=None)

    def best_option(self, incumbent: int, allows: Callable[[Option], bool] | None = None) -> Option | None:
        """The option that is most worth its cost; None where none is.

        What is emulated is paid for with another machine's time than what it saves. There any gain that shows
        is worth it, as long as the budget lasts, and the most for its cost comes first.
        """
        options = [o for o in self.options(incumbent) if allows is None or allows(o)]
        if self._state.cluster.virtual is None:
            best = max(options, key=lambda option: option.net_gain, default=None)
            return best if best is not None and best.net_gain > 0 else None
        least = self.least_gain(incumbent)
        shown = [option for option in options if option.gain > least]
        return max(shown, key=lambda option: option.gain / option.cost, default=None)

    def least_gain(self, incumbent: int) -> float:
        """A gain below this does not show."""
        return LEAST_GAIN * float(self._expected[incumbent])

    def leader_is_due(self, incumbent: int) -> bool:
        """Whether emulation resumes the incumbent before it probes others.

        Until it has reached the target it gets as much of this machine as all other probes together: half for
        the leader, half for its challengers (top-two sampling; Russo 2016). Nothing untrained may be
        the answer.
        """
        if not self.can_be_settled(incumbent):
            return False
        leading = spent_on_probes = 0.0
        for probe in self._state.probes:
            for measurement in probe.slices:
                if measurement.purpose is Purpose.TRAINING:
                    leading += measurement.charged_seconds
                else:
                    spent_on_probes += measurement.charged_seconds
        return leading < spent_on_probes

    def can_be_settled(self, incumbent: int) -> bool:
        """Whether the incumbent is emulated and has not reached the target yet."""
        run = self._runs[incumbent]
        return self._state.cluster.virtual is not None and (run is None or not run.arrived)

    def options(self, incumbent: int) -> list[Option]:
        """Every short probe and timing that could run instead of the incumbent."""
        return [*self._probes(incumbent), *self._timings(incumbent)]

    def _probes(self, incumbent: int) -> Iterator[Option]:
        price = self._probe_cost.price
        for i, configuration in enumerate(self._beliefs.configurations):
            run = self._runs[i]
            if i == incumbent or not self._reachable[i]:
                continue
            if run is None and not self._may_start:
                continue
            if run is not None and (run.configuration != configuration or not run.is_open):
                continue
            done = run.measurement.training_seconds if run else 0.0
            probe_seconds = self._probe_seconds(i)
            after = min(0.95, (done + probe_seconds) / max(self._length[i], 1e-9))
            ratio, variance = self._against(i, incumbent)
            unknown = self._unknown_after(after)
            per_sample = self._beliefs.forecast.seconds_per_sample[i]
            again = done if self._state.repeats else 0.0
            paid = (again + probe_seconds) / per_sample * self._probe_cost.per_sample[i] * price[i]
            best = float(self._expected[incumbent])
            # What a probe trains need not be trained again, unless emulated or no training is requested.
            is_stored = self._state.cluster.virtual is None and not self._state.repeats
            done_by_probe = paid if is_stored else 0.0
            resolved = variance**2 / (variance + unknown)
            gain = self._reach[i] * expected_gain(best, best * ratio, resolved, done_by_probe)
            spent = paid + self._slice_seconds * price[i]
            yield Option(gain=gain, cost=spent, index=i, purpose=Purpose.STATISTICS)

    def _unknown_after(self, share: float) -> float:
        """Variance of log samples to target that a probe leaves, compared with other runs.

        The probe's scoring shows the run's speed as well as noise and slope allow; what lies ahead of it
        stays as uncertain as extrapolation is, but for what all runs have in common.

        Args:
            share: Share of the run that is known after the probe.
        """
        predictor = self._beliefs.predictor
        assert isinstance(predictor, Predictor), "short probes are evaluated by the laws' models"
        left = predictor.samples.arrivals.own_sd_after_probe(-math.log(share))
        return _UNKNOWN_AT_ONCE**2 + left**2

    def _resolves(self, index: int) -> float:
        """The share of a candidate's own variance of log time that a probe in flight resolves."""
        run = self._runs[index]
        done = run.measurement.training_seconds if run else 0.0
        after = min(0.95, (done + self._probe_seconds(index)) / max(self._length[index], 1e-9))
        variance = float(self._resolvable[index])
        return variance / (variance + self._unknown_after(after)) if math.isfinite(after) else 0.0

    def _probe_seconds(self, index: int) -> float:
        """A probe's training seconds: a share of the run, and as far as the next scorings at the least."""
        run = self._runs[index]
        samples = self._probe_samples(index) - (run.measurement.samples if run else 0)
        return float(samples * self._beliefs.forecast.seconds_per_sample[index])

    def _probe_samples(self, index: int) -> int:
        """Where a probe ends: past the next scoring, or a share of the run further, at most twice as far."""
        probe, run = self._state.job.probe, self._runs[index]
        seen = run.measurement.samples if run else 0
        first = first_evaluation(self._state.epoch_samples, probe.first_score_samples)
        next_samples = max(seen * probe.score_growth, first) * probe.score_growth
        per_sample = self._beliefs.forecast.seconds_per_sample[index]
        share = _PROBE_SHARE * self._length[index] / per_sample
        shortest = seen + self._probe_cost.shortest_samples[index]
        # What is paid for again is doubled at least, so that all repetitions cost no more than the last.
        least = 2 * seen if self._state.repeats else min(seen + share, 2 * seen)
        schedule = self._state.schedule
        if schedule.has_scores:
            # A probe shows nothing between two scores of the script.
            configuration = self._beliefs.configurations[index]
            due = schedule.at_or_after(configuration, max(shortest, least))
            return max(due, schedule.next_after(configuration, seen) or seen + 1)
        return int(np.ceil(max(next_samples, shortest, least)))

    def _against(self, index: int, incumbent: int) -> tuple[float, float]:
        """Median ratio of a candidate's cost to the incumbent's, and the variance a probe could resolve."""
        if self._compared_with != incumbent:
            total = self._beliefs.forecast.total
            least = 1e-3 * float(self._expected[incumbent])
            self._ratios, self._resolvable = compared(total, self._cost, incumbent, least)
            self._compared_with = incumbent
            if self._state.capacity.under_way:
                left = left_to_resolve(self._state, self._beliefs, self._resolves, incumbent)
                self._resolvable = self._resolvable * left
        return float(self._ratios[index]), float(self._resolvable[index])

    def _timings(self, incumbent: int) -> Iterator[Option]:
        if not self._may_start or not self._state.schedule.times_steps:
            return
        forecast, price = self._beliefs.forecast, self._probe_cost.price
        known = self._state.timed() | self._state.failed_timings()
        best_of: dict[TimingKey, int] = {}
        for i, configuration in enumerate(self._beliefs.configurations):
            key = timing_key(configuration, self._state.cluster)
            if key in known or not self._reachable[i] or self._is_only_described(configuration):
                continue
            if key not in best_of or self._expected[i] < self._expected[best_of[key]]:
                best_of[key] = i
        for i in best_of.values():
            variance = float(forecast.log_seconds_sd[i]) ** 2
            resolved = variance**2 / (variance + _UNKNOWN_AFTER_TIMING**2)
            ratio, _ = self._against(i, incumbent)
            best = float(self._expected[incumbent])
            gain = self._reach[i] * expected_gain(best, best * ratio, resolved, 0.0)
            spent = (_TIMING_SECONDS + self._slice_seconds) * price[i]
            yield Option(gain=gain, cost=spent, index=i, purpose=Purpose.TIMING)

    def _is_only_described(self, configuration: Configuration) -> bool:
        """Whether a timing would repeat what was described, while true steps can be had elsewhere."""
        cluster = self._state.cluster
        return cluster.at_hand is not None and cluster.emulates(configuration)

    def execute(self, option: Option, incumbent: int) -> Start | Continue:
        """The action of an option."""
        configuration = self._beliefs.configurations[option.index]
        if option.purpose is Purpose.TIMING:
            steps = self._state.job.probe.timing_steps
            return Start(
                configuration=configuration,
                purpose=Purpose.TIMING,
                until=Until(steps=steps, training_seconds=_TIMING_SECONDS),
                reason="its step time decides",
            )
        ratio, variance = self._against(option.index, incumbent)
        factor = math.exp(1.645 * math.sqrt(variance))
        reason = f"may take {ratio / factor:.2g} to {ratio * factor:.2g} times the best known"
        length_seconds = self._probe_seconds(option.index)
        action = self._advance(option.index, _OVERRUN_FACTOR * length_seconds, Purpose.STATISTICS, reason)
        if self._state.job.probe.slice_seconds is not None:
            return action
        # A probe shows nothing before its scoring: samples end it, seconds only if they run away.
        samples = self._probe_samples(option.index)
        return replace(action, until=replace(action.until, samples=samples))

    def go_on(self, incumbent: int) -> Start | Continue:
        """The next slice of the incumbent."""
        # While little is known of a run, its length may be far off: at most twice what was seen.
        run = self._runs[incumbent]
        seen = run.measurement.training_seconds if run else 0.0
        length_seconds = min(_SLICE_SHARE * float(self._length[incumbent]), seen)
        length_seconds = max(length_seconds, self._probe_seconds(incumbent))
        reason = "expected to reach the target first"
        return self._advance(incumbent, length_seconds, Purpose.TRAINING, reason)

    def _advance(self, index: int, length_seconds: float, purpose: Purpose, reason: str) -> Start | Continue:
        """The slice that takes a candidate's run further by so many training seconds."""
        configuration, run = self._beliefs.configurations[index], self._runs[index]
        done = self._seen_seconds(index)
        per_sample = float(self._beliefs.forecast.seconds_per_sample[index])
        left = seconds_left(self._state, configuration)
        if self._state.repeats:
            length_seconds, left = max(length_seconds, done), left - done
        if self._state.cluster.virtual is not None:
            left *= per_sample / float(self._probe_cost.per_sample[index])
        if run is not None and not self._can_transfer(run, configuration):
            # Its statistics are those of all: they are learnt where it runs, without another clock.
            samples = min(length_seconds, left) / per_sample
            return Continue(
                probe_id=run.probe.probe_id,
                purpose=purpose,
                until=Until(samples=int(np.ceil(run.measurement.samples + samples))),
                reason=reason,
            )
        length_seconds = self._state.job.probe.slice_seconds or length_seconds
        shortest = float(self._probe_cost.shortest_samples[index]) * per_sample
        until = Until(training_seconds=done + min(length_seconds, max(left, shortest)))
        schedule = self._state.schedule
        if schedule.has_scores and self._state.job.probe.slice_seconds is None:
            seen = run.measurement.samples if run is not None and run.configuration == configuration else 0
            wanted = seen + max(min(length_seconds, left) / per_sample, 1.0)
            due = schedule.at_or_after(configuration, wanted)
            until = Until(samples=max(due, schedule.next_after(configuration, seen) or seen + 1))
        if run is not None and run.is_open and run.configuration == configuration:
            return Continue(probe_id=run.probe.probe_id, purpose=purpose, until=until, reason=reason)
        return Start(
            configuration=configuration,
            purpose=purpose,
            until=until,
            reason=reason,
            resume_from=run.probe.probe_id if run else None,
        )

    def _seen_seconds(self, index: int) -> float:
        """What of a candidate's run was seen, on its own clock; 0 if none was started."""
        run = self._runs[index]
        if run is None:
            return 0.0
        if run.configuration == self._beliefs.configurations[index]:
            return run.measurement.training_seconds
        # Resumed from other nodes: its clock is converted.
        return float(self._length[index]) - float(self._left[index])

    def _can_transfer(self, run: Run, configuration: Configuration) -> bool:
        """Whether a run can be resumed on other nodes: not from real ranks to emulated ones."""
        cluster = self._state.cluster
        return cluster.emulates(run.configuration) == cluster.emulates(configuration)

    def _may_go_on(self, index: int) -> bool:
        run = self._runs[index]
        if run is None:
            return self._may_start
        if run.arrived:
            return True
        configuration = self._beliefs.configurations[index]
        if self._state.repeats and seconds_left(self._state, configuration) <= self._seen_seconds(index):
            return False  # the budget would be used up before anything new is seen
        if not self._can_transfer(run, configuration):
            return run.is_open
        return run.can_continue and (run.configuration == configuration or self._may_start)


def probe_cost(state: SearchState, beliefs: Beliefs) -> ProbeCost:
    """Of real ranks and of emulated ones, each where it would be."""
    emulated = np.array([state.cluster.emulates(c) for c in beliefs.configurations], dtype=bool)
    if not emulated.any():
        return _trained(state, beliefs)
    real, virtual = _trained(state, beliefs), _emulated(state, beliefs)
    return ProbeCost(
        per_sample=np.where(emulated, virtual.per_sample, real.per_sample),
        price=np.where(emulated, virtual.price, real.price),
        shortest_samples=np.where(emulated, virtual.shortest_samples, real.shortest_samples),
    )


def _trained(state: SearchState, beliefs: Beliefs) -> ProbeCost:
    """Of real ranks: the nodes are held while they train and score."""
    per_sample = beliefs.forecast.seconds_per_sample
    shortest = _SHORTEST_SLICE_SECONDS
    if state.job.runs_command:
        # Each probe starts the script again, so it takes at least as long as a start-up.
        shortest = max(shortest, state.slice_seconds)
    return ProbeCost(
        per_sample=per_sample * state.overhead,
        price=beliefs.price,
        shortest_samples=shortest / per_sample,
    )


def _emulated(state: SearchState, beliefs: Beliefs) -> ProbeCost:
    """Of emulated ranks: this machine is held, a second of it counting as one of the cheapest nodes.

    A probe lasts at least as long as its start-up.
    """
    emulating = fit_emulation_cost(state.probes, state.cluster)
    per_sample = np.array([emulating.seconds_per_sample(c, state.cluster) for c in beliefs.configurations])
    return ProbeCost(
        per_sample=per_sample,
        price=np.full_like(beliefs.price, beliefs.price.min()),
        shortest_samples=max(_SHORTEST_SLICE_SECONDS, state.slice_seconds) / per_sample,
    )


def expected_costs(state: SearchState, beliefs: Beliefs) -> Array:
    """Expected cost of one whole training of each candidate within the goal's limits, `(num,)`."""
    total = _within_limits(state, beliefs, beliefs.forecast.total)
    expected, reach = expected_cost(total * beliefs.price)
    return np.where(reach > _LEAST_PROBABILITY, expected, np.inf)


def _within_limits(state: SearchState, beliefs: Beliefs, cost: Array) -> Array:
    """Costs with those draws made infinite that break the goal's deadline or dollar limit."""
    goal, total = state.job.goal, beliefs.forecast.total
    limited = cost.copy()
    if goal.deadline is not None:
        limited[total > goal.deadline] = np.inf
    if goal.max_dollars is not None:
        price = np.array([state.cluster.dollars_per_second(c) for c in beliefs.configurations])
        dollars = total * price
        limited[dollars > goal.max_dollars] = np.inf
    return limited
