"""The model-driven policy: go on with the best run unless a look elsewhere is expected to pay back."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from search_spaces import Configuration
from tuner.measurement import Purpose
from tuner.probes import Until
from tuner.search.beliefs import Beliefs, believe, candidates
from tuner.search.gain import expected_cost, expected_gain, typical
from tuner.search.limits import limit_reached, may_start, seconds_left
from tuner.search.policy import Action, Continue, Decision, Start, Stop, StopKind
from tuner.search.state import Run, SearchState, run_of

Array = npt.NDArray[np.float64]

#: A look at a run covers this share of its predicted length; going on with the best covers more.
_LOOK_SHARE, _STRIDE_SHARE = 0.08, 0.15
_SHORTEST_SLICE_SECONDS = 1.5
#: A timing probe ends after so many training seconds even if it has steps left.
_TIMING_SECONDS = 1.5
#: What a look leaves unknown of log samples to target, for each e-fold that lies ahead of it.
_UNKNOWN_AFTER_LOOK = 0.2
_UNKNOWN_AFTER_TIMING = 0.08


@dataclass(frozen=True, kw_only=True)
class _Option:
    """Something that could be done next, with what it is expected to gain beyond its cost."""

    net_gain: float
    action: Action


class ModelPolicy:
    """Chooses slices by expected gain over expected cost, both from the analytic model.

    The incumbent is the configuration with the smallest expected remaining cost. For every other
    one, a slice is weighed: its price and start-up against the expected saving if it turns out
    better (one step of look-ahead; knowledge gradient, Frazier et al. 2008). Timing probes are
    weighed alike. Where nothing gains more than it costs, the incumbent goes on (one training is
    asked for) or the search ends (the answer serves more trainings).

    Args:
        seed: Of the draws, so that a restarted search decides alike.
        train: Whether the search ends by training to the target even if `goal.trainings` is above 1.
    """

    def __init__(self, *, seed: int = 0, train: bool = False) -> None:
        self._seed = seed
        self._train = train

    def decide(self, state: SearchState) -> Decision:
        """See `Policy`."""
        job = state.job
        rng = np.random.default_rng((self._seed, len(state.slices)))
        arrived = [run for run in state.runs.values() if run.arrived]
        if arrived and job.goal.trainings == 1:
            beliefs = believe(state, candidates(state, rng), rng)
            return Decision(action=_arrived(arrived[0]), beliefs=beliefs)
        stop = limit_reached(state)
        first = self._first(state) if stop is None else None
        if not state.runs:
            return Decision(action=stop or first or _nothing_feasible())
        beliefs = believe(state, candidates(state, rng), rng)
        if stop is not None:
            return Decision(action=stop, beliefs=beliefs)
        return Decision(action=first or self._best(state, beliefs), beliefs=beliefs)

    def _first(self, state: SearchState) -> Action | None:
        """The first look: the user's present settings, or the middle of the space."""
        baseline = state.job.baseline_configuration()
        tried = {p.configuration for p in state.probes if p.slices or not p.outcome.can_continue}
        if baseline is not None:
            runnable = baseline.nodes in state.cluster.node_counts and _fits(state, baseline)
            if baseline in tried or not runnable:
                baseline = None
        if baseline is not None:
            return Start(
                configuration=baseline,
                purpose=Purpose.STATISTICS,
                until=Until(training_seconds=_first_slice_seconds(state)),
                reason="the present settings come first",
            )
        if state.runs or not may_start(state):
            return None
        untried = [c for c in state.space.candidates() if c not in tried]
        if not untried:
            return None
        return Start(
            configuration=_middle(untried),
            purpose=Purpose.STATISTICS,
            until=Until(training_seconds=_first_slice_seconds(state)),
            reason="a first look at the middle of the space",
        )

    def _best(self, state: SearchState, beliefs: Beliefs) -> Action:
        cost = _limited(state, beliefs.forecast.remaining, beliefs.forecast.total, beliefs)
        expected, reach = expected_cost(cost * beliefs.price)
        usable = [i for i, c in enumerate(beliefs.configurations) if _may_go_on(state, c)]
        usable = [i for i in usable if np.isfinite(expected[i]) and reach[i] > 0.02]
        if not usable:
            return Stop(
                kind=StopKind.OUT_OF_REACH,
                reason="no configuration is expected to reach the target within the limits",
            )
        best = min(usable, key=lambda i: float(expected[i]))
        options = list(self._looks(state, beliefs, expected, reach, best))
        options += list(self._timings(state, beliefs, expected, reach, best))
        option = max(options, key=lambda o: o.net_gain, default=None)
        if option is not None and option.net_gain > 0:
            return option.action
        if state.job.goal.trainings > 1 and not self._train:
            return Stop(kind=StopKind.NO_GAIN, reason="no further probe is expected to pay back its cost")
        arrived = [run for run in state.runs.values() if run.arrived]
        if arrived and beliefs.configurations[best] in {r.configuration for r in arrived}:
            return _arrived(next(r for r in arrived if r.configuration == beliefs.configurations[best]))
        return self._advance(
            state, beliefs, best, _STRIDE_SHARE, Purpose.TRAINING, "the best known run goes on"
        )

    def _looks(
        self, state: SearchState, beliefs: Beliefs, expected: Array, reach: Array, best: int
    ) -> Iterator[_Option]:
        """One slice of every configuration but the incumbent."""
        forecast = beliefs.forecast
        weight = max(state.job.goal.trainings - 1, 0)
        best_total = typical(forecast.total[:, best] * beliefs.price[best])
        for i, configuration in enumerate(beliefs.configurations):
            run = run_of(state, configuration)
            if i == best or reach[i] <= 0.02 or not np.isfinite(expected[i]):
                continue
            if run is not None and (run.configuration != configuration or not run.can_continue):
                continue
            if run is None and (not may_start(state) or not state.space.is_feasible(configuration)):
                continue
            length = typical(forecast.total[:, i])
            done = run.measurement.training_seconds if run else 0.0
            look = max(_LOOK_SHARE * length, _SHORTEST_SLICE_SECONDS)
            after = min(0.95, (done + look) / max(length, 1e-9))
            known = forecast.log_samples_sd[i] ** 2
            unknown = (0.05 - _UNKNOWN_AFTER_LOOK * math.log(after)) ** 2
            resolved = known**2 / (known + unknown) + forecast.log_seconds_sd[i] ** 2
            price = beliefs.price[i] * state.overhead
            left = typical(forecast.remaining[:, i])
            gain = reach[i] * expected_gain(expected[best], left * beliefs.price[i], resolved, look * price)
            if weight:
                total = length * beliefs.price[i]
                gain += weight * reach[i] * expected_gain(best_total, total, resolved, 0.0)
            spent = look * price + state.startup_seconds * beliefs.price[i]
            reason = f"may be {_ratio(expected[best], left * beliefs.price[i])} of the best known"
            yield _Option(
                net_gain=gain - spent,
                action=self._advance(state, beliefs, i, _LOOK_SHARE, Purpose.STATISTICS, reason),
            )

    def _timings(
        self, state: SearchState, beliefs: Beliefs, expected: Array, reach: Array, best: int
    ) -> Iterator[_Option]:
        """A timing probe of every pair of nodes and batch size that was not timed yet."""
        if not may_start(state):
            return
        forecast = beliefs.forecast
        known = state.timed() | state.failed_timings()
        groups: dict[tuple[int, int], int] = {}
        for i, configuration in enumerate(beliefs.configurations):
            pair = (configuration.nodes, configuration.batch_size)
            if pair in known or reach[i] <= 0.02 or not state.space.is_feasible(configuration):
                continue
            if pair not in groups or expected[i] < expected[groups[pair]]:
                groups[pair] = i
        served = state.job.goal.trainings
        for i in groups.values():
            configuration = beliefs.configurations[i]
            variance = float(forecast.log_seconds_sd[i]) ** 2
            resolved = variance**2 / (variance + _UNKNOWN_AFTER_TIMING**2)
            left = typical(forecast.remaining[:, i]) * beliefs.price[i]
            gain = served * reach[i] * expected_gain(expected[best], left, resolved, 0.0)
            spent = (_TIMING_SECONDS + state.startup_seconds) * beliefs.price[i]
            yield _Option(
                net_gain=gain - spent,
                action=Start(
                    configuration=configuration,
                    purpose=Purpose.TIMING,
                    until=Until(steps=state.job.probe.timing_steps, training_seconds=_TIMING_SECONDS),
                    reason="its seconds a step decide",
                ),
            )

    def _advance(
        self,
        state: SearchState,
        beliefs: Beliefs,
        index: int,
        share: float,
        purpose: Purpose,
        reason: str,
    ) -> Action:
        """The slice that takes a configuration's run further by a share of its predicted length."""
        configuration = beliefs.configurations[index]
        run = run_of(state, configuration)
        length = typical(beliefs.forecast.total[:, index])
        done = 0.0
        if run is not None:
            done = run.measurement.training_seconds
            if run.configuration != configuration:
                done = length - typical(beliefs.forecast.remaining[:, index])
        stride = state.job.probe.slice_seconds or max(share * length, _SHORTEST_SLICE_SECONDS)
        stride = min(stride, max(seconds_left(state, configuration.nodes), _SHORTEST_SLICE_SECONDS))
        if run is None or run.configuration != configuration:
            return Start(
                configuration=configuration,
                purpose=purpose,
                until=Until(training_seconds=done + stride),
                reason=reason,
                carry_from=run.probe.probe_id if run else None,
            )
        return Continue(
            probe_id=run.probe.probe_id,
            purpose=purpose,
            until=Until(training_seconds=done + stride),
            reason=reason,
        )


def _arrived(run: Run) -> Stop:
    return Stop(kind=StopKind.ARRIVED, reason=f"a run reached the target: {run.configuration}")


def _nothing_feasible() -> Stop:
    return Stop(kind=StopKind.OUT_OF_REACH, reason="no feasible configuration is left to try")


def _fits(state: SearchState, configuration: Configuration) -> bool:
    """Whether nothing but the ranges of the space speaks against a configuration."""
    return all(c.reason_against(configuration) is None for c in state.space.conditions)


def _may_go_on(state: SearchState, configuration: Configuration) -> bool:
    run = run_of(state, configuration)
    if run is None:
        return state.space.is_feasible(configuration) and may_start(state)
    if run.arrived:
        return True
    if not run.can_continue:
        return False
    return run.configuration == configuration or may_start(state)


def _limited(state: SearchState, cost: Array, total: Array, beliefs: Beliefs) -> Array:
    """Costs with those draws made infinite that break the goal's deadline or dollar limit."""
    goal = state.job.goal
    limited = cost.copy()
    if goal.deadline is not None:
        limited[total > goal.deadline] = np.inf
    if goal.max_dollars is not None:
        nodes = np.array([c.nodes for c in beliefs.configurations])
        dollars = total * nodes * state.cluster.dollars_per_node_hour / 3600.0
        limited[dollars > goal.max_dollars] = np.inf
    return limited


def _first_slice_seconds(state: SearchState) -> float:
    if state.job.probe.slice_seconds is not None:
        return state.job.probe.slice_seconds
    time = state.job.budget.time
    return 5.0 if time is None else float(np.clip(time / 60, 2.0, 60.0))


def _middle(configurations: list[Configuration]) -> Configuration:
    """The configuration nearest to the middle, on logarithmic axes, with the fewest nodes."""
    rows = np.log([[c.batch_size, c.learning_rate] for c in configurations])
    distance = np.abs(rows - np.median(rows, axis=0)).sum(axis=1)
    nodes = np.array([c.nodes for c in configurations])
    return configurations[int(np.lexsort((distance, nodes))[0])]


def _ratio(incumbent: float, other: float) -> str:
    return f"{other / incumbent:.2f}x" if incumbent > 0 and math.isfinite(other) else "a fraction"
