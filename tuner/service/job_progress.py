"""Follows the search of a submitted job: its events, its progress, and what it has used so far."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from search_spaces import Configuration
from tuner.domain.job_progress import BudgetPart, Finish, Incumbent, Interval, JobProgress, SliceProgress
from tuner.domain.job_queue import Usage
from tuner.domain.ledger import ProbeRecord
from tuner.domain.measurement import Measurement
from tuner.search.beliefs import Beliefs
from tuner.search.events import SearchEvent
from tuner.search.prediction_log import LEVELS
from tuner.search.state import SearchState, run_of
from tuner.search.stopping import SECONDS_PER_HOUR, seconds_left


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """Prediction of the time to target of one configuration.

    Args:
        seconds: Training seconds from start to target: 5%, 50% and 95% quantiles; infinite where the target
            is not reached.
        probability: Probability that the target is reached.
    """

    seconds: tuple[float, float, float]
    probability: float


@dataclass(frozen=True, kw_only=True)
class _Forecast:
    """The incumbent of one decision, and what is needed to predict the end of the search."""

    incumbent: Incumbent
    finish: Finish | None


class ProgressWatch:
    """Collects the newest state of a search. The search runs in one thread, and a second one reads.

    Args:
        clock: Returns the time in seconds since the Unix epoch.
        attempt: Number of the attempt of the worker at the job.
        is_real: Whether the seconds of the job are real; those of a recorded job are not.
    """

    def __init__(
        self, clock: Callable[[], float] = time.time, *, attempt: int = 1, is_real: bool = True
    ) -> None:
        self._clock = clock
        self._attempt = attempt
        self._trainings: dict[int, Usage] = {}
        #: Whether the seconds of the job are real; those of a recorded job are not.
        self.is_real = is_real
        self._text = ""
        #: Whether the search has ended, so that no further probe starts.
        self.has_ended = False
        self._state: SearchState | None = None
        self._forecast: _Forecast | None = None
        self._beliefs: Beliefs | None = None
        self._shown: dict[int, Measurement] = {}
        #: Time of the last sign of life of the search.
        self.alive_at = clock()

    def listen(self, event: SearchEvent) -> None:
        """Notes an event of the search."""
        self.alive_at = self._clock()
        if event.kind == "progress":
            if event.measurement is not None and event.probe_id is not None:
                self._shown[event.probe_id] = event.measurement
            return
        if event.kind == "slice" and event.probe_id is not None:
            self._shown.pop(event.probe_id, None)
        self.has_ended = event.kind == "end" or (self.has_ended and event.kind != "decision")
        self._text = event.text

    def watch(self, state: SearchState, beliefs: Beliefs | None) -> None:
        """Notes the state of the search, and the forecasts of a decision."""
        self.alive_at = self._clock()
        self._state = state
        if beliefs is not None:
            self._beliefs = beliefs
            self._forecast = _forecast(state, beliefs, self._clock() if self.is_real else None)

    def watch_training(self, state: SearchState, _beliefs: Beliefs | None) -> None:
        """Notes the state of a training that confirms the recommendation, in a study of its own."""
        self.alive_at = self._clock()
        if state.probes:
            self._trainings[state.probes[0].study_id] = usage_of(state)

    def progress(self) -> JobProgress:
        """Returns the progress of the job."""
        now = self._clock()
        found = JobProgress(updated_at=now, attempt=self._attempt, text=self._text, slices=[])
        state, forecast = self._state, self._forecast
        if state is None:
            return found
        found["num_probes"] = len(state.probes)
        found["slices"] = [
            _slice_progress(
                self._shown.get(active.probe_id),
                SliceProgress(
                    probe=active.probe_id,
                    configuration=dict(active.configuration.as_dict()),
                    purpose=active.purpose.value,
                    started_at=now - active.elapsed_seconds,
                    step=0,
                    samples=0,
                    training_seconds=0.0,
                    score=None,
                    waiting="",
                ),
            )
            for active in state.capacity.under_way
        ]
        found["budget"] = _budget(state)
        if forecast is not None:
            found["incumbent"] = forecast.incumbent
            if forecast.finish is not None:
                found["finish"] = forecast.finish
        return found

    def outlook(self, configuration: Configuration) -> Outlook | None:
        """Returns the predicted time to target of a configuration; None before there are forecasts of it."""
        if self._beliefs is None:
            return None
        return outlook_of(self._beliefs, configuration)

    def scores(self, probe_id: int) -> list[float]:
        """Returns all scores of a probe so far, in order of samples processed."""
        measurements = [m for p in self._probes() if p.probe_id == probe_id for m in p.slices]
        shown = self._shown.get(probe_id)
        points = {p.samples: p.value for m in [*measurements, *([shown] if shown else [])] for p in m.curve}
        return [points[samples] for samples in sorted(points)]

    def _probes(self) -> Sequence[ProbeRecord]:
        return () if self._state is None else self._state.probes

    def usage(self) -> Usage | None:
        """Returns what the search has used so far, with running slices; None before its first decision."""
        return None if self._state is None else total_of([usage_of(self._state), *self._trainings.values()])


def total_of(parts: Sequence[Usage]) -> Usage:
    """Returns the sum of several usages."""
    return Usage(
        seconds=sum(part.seconds for part in parts),
        node_hours=sum(part.node_hours for part in parts),
        dollars=sum(part.dollars for part in parts),
    )


def usage_of(state: SearchState) -> Usage:
    """Returns what a search has used so far, with running slices."""
    return Usage(
        seconds=state.elapsed_seconds,
        node_hours=state.node_seconds() / SECONDS_PER_HOUR,
        dollars=state.dollars(),
    )


def _slice_progress(measured: Measurement | None, found: SliceProgress) -> SliceProgress:
    if measured is not None:
        found["step"] = measured.step
        found["samples"] = measured.samples
        found["training_seconds"] = measured.training_seconds
        found["score"] = _finite(measured.curve[-1].value) if measured.curve else None
        found["waiting"] = measured.waiting
    return found


def _budget(state: SearchState) -> list[BudgetPart]:
    budget = state.job.budget
    used = {
        "time": (state.elapsed_seconds, budget.time),
        "dollars": (state.dollars(), budget.dollars),
        "node_hours": (state.node_seconds() / SECONDS_PER_HOUR, budget.node_hours),
        "probes": (float(len(state.probes)), budget.probes),
    }
    return [
        BudgetPart(name=name, used=amount, limit=float(limit), share=amount / limit if limit else 1.0)
        for name, (amount, limit) in used.items()
        if limit is not None
    ]


def outlook_of(beliefs: Beliefs, configuration: Configuration) -> Outlook | None:
    """Returns the predicted time to target of a configuration; None if it is no candidate."""
    if configuration not in beliefs.configurations:
        return None
    index = beliefs.configurations.index(configuration)
    low, median, high = (float(beliefs.forecast.quantile(level)[index]) for level in LEVELS)
    reach = float(beliefs.forecast.probability_of_reaching()[index])
    return Outlook(seconds=(low, median, high), probability=reach)


def _forecast(state: SearchState, beliefs: Beliefs, now: float | None) -> _Forecast | None:
    """Returns the incumbent and the predicted end of the search; None before a score was measured.

    Args:
        state: State of the search.
        beliefs: The forecasts of a decision.
        now: Seconds since the Unix epoch; None for a job whose seconds are not real.
    """
    configuration = beliefs.recommended
    outlook = None if configuration is None or not state.has_scores else outlook_of(beliefs, configuration)
    if configuration is None or outlook is None:
        return None
    (low, median, high), reach = outlook.seconds, outlook.probability
    run = run_of(state, configuration)
    measured = None if run is None else run.seconds_to_target
    if measured is not None:
        low, median, high, reach = measured, measured, measured, 1.0
    price = state.cluster.dollars_per_second(configuration)
    incumbent = Incumbent(
        configuration=dict(configuration.as_dict()),
        seconds=_interval(low, median, high),
        dollars=_interval(price * low, price * median, price * high),
        probability_of_reaching=_finite(reach) or 0.0,
        is_measured=measured is not None,
    )
    if now is None:
        return _Forecast(incumbent=incumbent, finish=None)
    left = seconds_left(state, configuration)
    if state.further_trainings > 0:
        return _Forecast(incumbent=incumbent, finish=Finish(low=None, median=None, high=_finite(now + left)))
    trained = 0.0 if run is None else run.measurement.training_seconds
    ends = [
        min(max(seconds - trained, 0.0) * state.overhead + state.slice_seconds, left)
        for seconds in (low, median if reach >= 0.5 else math.inf, high if reach >= 0.95 else math.inf)
    ]
    if measured is not None:
        if state.capacity.under_way:
            # Other probes go on, such as those of --explore, at most until the budget is used up.
            return _Forecast(
                incumbent=incumbent, finish=Finish(low=None, median=None, high=_finite(now + left))
            )
        ends = [0.0, 0.0, 0.0]
    first, middle, last = (_finite(now + seconds) for seconds in ends)
    return _Forecast(incumbent=incumbent, finish=Finish(low=first, median=middle, high=last))


def _interval(low: float, median: float, high: float) -> Interval:
    return Interval(low=_finite(low), median=_finite(median), high=_finite(high))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
