"""Weighs what could be done next: every look and every timing, its expected gain against its cost."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tuner.measurement import Purpose
from tuner.probes import Until
from tuner.search.beliefs import Beliefs
from tuner.search.gain import expected_cost, expected_gain, typical
from tuner.search.limits import may_start, seconds_left
from tuner.search.policy import Action, Continue, Start
from tuner.search.state import SearchState, run_of

Array = npt.NDArray[np.float64]

#: A look at a run covers this share of its predicted length; going on with the best covers more.
_LOOK_SHARE, _STRIDE_SHARE = 0.08, 0.15
_SHORTEST_SLICE_SECONDS = 1.5
#: A timing probe ends after so many training seconds even if it has steps left.
_TIMING_SECONDS = 1.5
#: What a look leaves unknown of log samples to target, at once and for each e-fold that lies ahead of it.
_UNKNOWN_AT_ONCE, _UNKNOWN_AHEAD = 0.05, 0.2
#: What a timing leaves unknown of log seconds.
_UNKNOWN_AFTER_TIMING = 0.08
#: A configuration whose chance of reaching the target is smaller is out of reach.
_LEAST_REACH = 0.02


@dataclass(frozen=True, kw_only=True)
class Option:
    """Something that could be done next.

    Args:
        net_gain: What it is expected to save beyond what it costs, in the goal's unit.
        index: The candidate it is about.
        purpose: TIMING for a timing probe, STATISTICS for a look at a run.
    """

    net_gain: float
    index: int
    purpose: Purpose


class Weighing:
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
        more = state.job.goal.trainings - 1
        cost = forecast.remaining + more * forecast.total if more else forecast.remaining
        self._cost = _within_limits(state, beliefs, cost) * beliefs.price
        self._expected, self._reach = expected_cost(self._cost)
        self._middle = typical(self._cost)
        self._length = typical(forecast.total)
        self._left = typical(forecast.remaining)
        self._runs = [run_of(state, c) for c in beliefs.configurations]
        self._startup_seconds = state.startup_seconds
        self._may_start = may_start(state)
        in_reach = np.isfinite(self._expected) & (self._reach > _LEAST_REACH)
        self._in_reach = [
            bool(near) and (run is not None or state.space.is_feasible(configuration))
            for near, run, configuration in zip(in_reach, self._runs, beliefs.configurations, strict=True)
        ]

    def incumbent(self) -> int | None:
        """The candidate with the smallest expected cost; None where none is in reach."""
        usable = [i for i in range(len(self._runs)) if self._in_reach[i] and self._may_go_on(i)]
        return min(usable, key=lambda i: float(self._expected[i]), default=None)

    def options(self, incumbent: int) -> list[Option]:
        """Every look and timing that could be carried out instead of going on with the incumbent."""
        return [*self._looks(incumbent), *self._timings(incumbent)]

    def _looks(self, incumbent: int) -> Iterator[Option]:
        forecast, price = self._beliefs.forecast, self._beliefs.price
        overhead = self._state.overhead
        for i, configuration in enumerate(self._beliefs.configurations):
            run = self._runs[i]
            if i == incumbent or not self._in_reach[i]:
                continue
            if run is None and not self._may_start:
                continue
            if run is not None and (run.configuration != configuration or not run.can_continue):
                continue
            done = run.measurement.training_seconds if run else 0.0
            look = max(_LOOK_SHARE * self._length[i], _SHORTEST_SLICE_SECONDS)
            after = min(0.95, (done + look) / max(self._length[i], 1e-9))
            known = forecast.log_samples_sd[i] ** 2
            unknown = (_UNKNOWN_AT_ONCE - _UNKNOWN_AHEAD * math.log(after)) ** 2
            resolved = known**2 / (known + unknown) + forecast.log_seconds_sd[i] ** 2
            paid = look * price[i] * overhead
            gain = self._reach[i] * expected_gain(self._expected[incumbent], self._middle[i], resolved, paid)
            spent = paid + self._startup_seconds * price[i]
            yield Option(net_gain=gain - spent, index=i, purpose=Purpose.STATISTICS)

    def _timings(self, incumbent: int) -> Iterator[Option]:
        if not self._may_start:
            return
        forecast, price = self._beliefs.forecast, self._beliefs.price
        known = self._state.timed() | self._state.failed_timings()
        best_of: dict[tuple[int, int], int] = {}
        for i, configuration in enumerate(self._beliefs.configurations):
            pair = (configuration.nodes, configuration.batch_size)
            if pair in known or not self._in_reach[i]:
                continue
            if pair not in best_of or self._expected[i] < self._expected[best_of[pair]]:
                best_of[pair] = i
        for i in best_of.values():
            variance = float(forecast.log_seconds_sd[i]) ** 2
            resolved = variance**2 / (variance + _UNKNOWN_AFTER_TIMING**2)
            gain = self._reach[i] * expected_gain(self._expected[incumbent], self._middle[i], resolved, 0.0)
            spent = (_TIMING_SECONDS + self._startup_seconds) * price[i]
            yield Option(net_gain=gain - spent, index=i, purpose=Purpose.TIMING)

    def carry_out(self, option: Option, incumbent: int) -> Action:
        """The action of an option."""
        configuration = self._beliefs.configurations[option.index]
        if option.purpose is Purpose.TIMING:
            steps = self._state.job.probe.timing_steps
            return Start(
                configuration=configuration,
                purpose=Purpose.TIMING,
                until=Until(steps=steps, training_seconds=_TIMING_SECONDS),
                reason="its seconds a step decide",
            )
        ratio = self._middle[option.index] / self._expected[incumbent]
        return self._advance(
            option.index, _LOOK_SHARE, Purpose.STATISTICS, f"may take {ratio:.2f}x of the best known"
        )

    def go_on(self, incumbent: int) -> Action:
        """The next stride of the incumbent."""
        return self._advance(incumbent, _STRIDE_SHARE, Purpose.TRAINING, "expected to arrive first")

    def _advance(self, index: int, share: float, purpose: Purpose, reason: str) -> Action:
        """The slice that takes a candidate's run further by a share of its predicted length."""
        configuration, run = self._beliefs.configurations[index], self._runs[index]
        length = float(self._length[index])
        done = 0.0
        if run is not None and run.configuration == configuration:
            done = run.measurement.training_seconds
        elif run is not None:  # carried on from other nodes: its clock is priced anew
            done = length - float(self._left[index])
        left = seconds_left(self._state, configuration.nodes)
        stride = self._state.job.probe.slice_seconds or max(share * length, _SHORTEST_SLICE_SECONDS)
        until = Until(training_seconds=done + min(stride, max(left, _SHORTEST_SLICE_SECONDS)))
        if run is not None and run.is_open and run.configuration == configuration:
            return Continue(probe_id=run.probe.probe_id, purpose=purpose, until=until, reason=reason)
        return Start(
            configuration=configuration,
            purpose=purpose,
            until=until,
            reason=reason,
            carry_from=run.probe.probe_id if run else None,
        )

    def _may_go_on(self, index: int) -> bool:
        run = self._runs[index]
        if run is None:
            return self._may_start
        if run.arrived:
            return True
        own = run.configuration == self._beliefs.configurations[index]
        return run.can_continue and (own or self._may_start)


def expected_costs(state: SearchState, beliefs: Beliefs) -> Array:
    """Expected cost of one whole training of each candidate within the goal's limits, `(num,)`."""
    total = _within_limits(state, beliefs, beliefs.forecast.total)
    expected, reach = expected_cost(total * beliefs.price)
    return np.where(reach > _LEAST_REACH, expected, np.inf)


def _within_limits(state: SearchState, beliefs: Beliefs, cost: Array) -> Array:
    """Costs with those draws made infinite that break the goal's deadline or dollar limit."""
    goal, total = state.job.goal, beliefs.forecast.total
    limited = cost.copy()
    if goal.deadline is not None:
        limited[total > goal.deadline] = np.inf
    if goal.max_dollars is not None:
        nodes = np.array([c.nodes for c in beliefs.configurations])
        dollars = total * nodes * state.cluster.dollars_per_node_hour / 3600.0
        limited[dollars > goal.max_dollars] = np.inf
    return limited
