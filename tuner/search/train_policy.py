"""A policy that does not search: it trains one given configuration to the target."""

from __future__ import annotations

from search_spaces import Configuration
from tuner.domain.measurement import Purpose
from tuner.probes import Until
from tuner.search.beliefs import seconds_ratio
from tuner.search.policy import Action, Continue, Decision, Start, Stop, StopKind, Wait
from tuner.search.runs import Run
from tuner.search.state import SearchState, run_of

#: Length of a slice, as a share of the expected training time, and minimum length of a slice in seconds.
_SLICE_SHARE, _SHORTEST_SLICE_SECONDS = 0.2, 10.0
#: Minimum length of a slice of a script, as a multiple of its start-up, which every slice repeats.
_STARTUPS = 5.0
#: Training seconds of a slice without a limit: longer than any training.
_WHOLE_SECONDS = 1e9
#: A training ends without the target after this multiple of its predicted training seconds.
VERIFY_FACTOR = 4.0


class TrainPolicy:
    """Policy that trains one configuration until it reaches the target; it resumes a run if there is one.

    The first failure ends the training. A later call of Paceline resumes it from the last checkpoint.

    Args:
        configuration: The configuration to train.
        expected_seconds: Predicted training seconds to target. Without `limit_seconds`, the training ends
            after `VERIFY_FACTOR` times this value. None if there is no prediction, or if the training should
            not be limited by it.
        limit_seconds: Training seconds after which the training ends even if it has not reached the target.
            None to use the limit from `expected_seconds`, if any.
    """

    def __init__(
        self,
        configuration: Configuration,
        *,
        expected_seconds: float | None = None,
        limit_seconds: float | None = None,
    ) -> None:
        self._configuration = configuration
        self._past_faults: int | None = None
        self._expected_seconds = expected_seconds or 0.0
        self._limit = limit_seconds
        self._limit_words = ""
        if limit_seconds is None and expected_seconds is not None:
            self._limit = VERIFY_FACTOR * expected_seconds
            self._limit_words = f", {VERIFY_FACTOR:g} times the predicted {expected_seconds:.3g} s or more"

    def decide(self, state: SearchState) -> Decision:
        """Returns the next action, without forecasts; see `Policy`."""
        if self._past_faults is None:
            self._past_faults = state.num_faults
        run = run_of(state, self._configuration)
        if state.capacity.under_way:
            return Decision(action=Wait(reason="the running slice has to end first"))
        if state.num_faults > self._past_faults:
            return Decision(action=Stop(kind=StopKind.FAULTS, reason="the training failed"))
        if run is None or not run.can_continue or (run.is_open and run.configuration == self._configuration):
            return Decision(action=self._action(state, run))
        # The run used other nodes, failed, or reached an earlier, easier target. It resumes as a new probe.
        ratio = seconds_ratio(state, self._configuration, run.configuration)
        until = self._until(state, ratio * run.measurement.training_seconds)
        words = "resumes from its checkpoint and trains to the target"
        return Decision(action=self._start(until, words, resume_from=run.probe.probe_id))

    def _start(self, until: Until, reason: str, *, resume_from: int | None = None) -> Start:
        return Start(
            configuration=self._configuration,
            purpose=Purpose.TRAINING,
            until=until,
            reason=reason,
            resume_from=resume_from,
        )

    def _until(self, state: SearchState, done: float) -> Until:
        """Returns the limits of the next slice, an uninterrupted part of the training.

        If a run cannot resume, the slice is the whole training, because a further slice would repeat it from
        the start.

        Args:
            state: State of the search.
            done: Training seconds of the run so far.
        """
        if not state.terms.resumes:
            return Until(training_seconds=_WHOLE_SECONDS if self._limit is None else self._limit)
        end = done + slice_seconds(state, self._expected_seconds)
        return Until(training_seconds=end if self._limit is None else max(min(end, self._limit), done))

    def _action(self, state: SearchState, run: Run | None) -> Action:
        done = run.measurement.training_seconds if run else 0.0
        if run is not None and run.arrived:
            return Stop(kind=StopKind.ARRIVED, reason=f"it reached the target: {self._configuration}")
        if run is not None and not run.can_continue:
            return Stop(kind=StopKind.UNREACHABLE, reason=f"the training ended: {run.probe.outcome.value}")
        if run is None and any(c.reason_against(self._configuration) for c in state.space.conditions):
            return Stop(kind=StopKind.UNREACHABLE, reason="the training ran out of memory")
        if self._limit is not None and done >= self._limit:
            return Stop(
                kind=StopKind.UNREACHABLE,
                reason=f"it has not reached the target after {done:.3g} s of training{self._limit_words}",
            )
        until = self._until(state, done)
        if run is None:
            return self._start(until, "trains to the target")
        return Continue(
            probe_id=run.probe.probe_id,
            purpose=Purpose.TRAINING,
            until=until,
            reason="continues to the target",
        )


def slice_seconds(state: SearchState, expected_seconds: float) -> float:
    """Returns for how many seconds each slice (uninterrupted part) of a training should run.

    Args:
        state: State of the search, with the start-up time of a slice.
        expected_seconds: Predicted training seconds to target.
    """
    startup = 0.0 if state.terms.reuses_ranks else state.startup_seconds
    return max(_SHORTEST_SLICE_SECONDS, _SLICE_SHARE * expected_seconds, _STARTUPS * startup)
