"""A policy that uses the rest of the budget, after the answer, to make predictions more certain."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from search_spaces import Configuration
from tuner.domain.measurement import Purpose
from tuner.job import BudgetSection
from tuner.probes import Until
from tuner.search.beliefs import Beliefs
from tuner.search.policy import Action, Decision, Policy, Start, Stop, StopKind, Wait
from tuner.search.state import SearchState
from tuner.search.stopping import limit_reached, may_start, seconds_left

#: A probe that explores ends after this multiple of the shortest predicted time to target, and after this
#: share of the remaining budget.
_LIMIT_FACTOR, _LIMIT_SHARE = 10.0, 0.25
#: Longer times to target than this multiple of the shortest one count as equal.
_LONGEST_FACTOR = 100.0
#: Standard deviation of the logarithm of the times to target of equal trainings.
_NOISE_SD = 0.3
_REASON = (
    "the answer is known; this probe is expected to make predictions of other configurations most certain"
)


class ExploringPolicy:
    """Searches with another policy; once it has its answer, probes explore until the budget is used up.

    A probe starts with the configuration that is expected to reduce the variance of all predictions most.
    The other policy is asked before each probe. It continues if a measurement has changed the answer.

    Args:
        policy: The policy that searches for the answer.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def decide(self, state: SearchState) -> Decision:
        """Returns the next action and the forecasts on which it is based; see `Policy`."""
        decision = self._policy.decide(state)
        if not isinstance(decision.action, Stop):
            return decision
        used = limit_reached(state)
        if used is not None and used.kind is StopKind.BUDGET:
            return self._end(state, decision)
        if not _is_answered(decision) or decision.beliefs is None or not may_start(state):
            return decision
        return replace(decision, action=_explore(state, decision.beliefs) or decision.action)

    def _end(self, state: SearchState, decision: Decision) -> Decision:
        """Returns the end of the search: the answer, if there was one before the budget was used up."""
        unlimited = state.job.model_copy(update={"budget": BudgetSection()})
        answer = self._policy.decide(replace(state, job=unlimited))
        return answer if _is_answered(answer) else decision


def _is_answered(decision: Decision) -> bool:
    """Whether the search ends because it has its answer."""
    action = decision.action
    return isinstance(action, Stop) and action.kind in (StopKind.ARRIVED, StopKind.NO_GAIN)


def _explore(state: SearchState, beliefs: Beliefs) -> Action | None:
    """Returns the start of a probe that explores; None if no configuration is left to try."""
    tried = {probe.configuration for probe in state.probes}
    shortest = float(np.min(beliefs.forecast.quantile(0.5)))
    for configuration in most_informative(beliefs, _LIMIT_FACTOR * shortest):
        # What is left pays for the start-up and the evaluations, too.
        left = _LIMIT_SHARE * seconds_left(state, configuration) - state.startup_seconds
        limit = min(_LIMIT_FACTOR * shortest, left / state.overhead)
        if configuration in tried or not state.space.is_runnable(configuration):
            continue
        if not math.isfinite(limit) or limit <= 0.0:
            continue
        if not state.fits(configuration):
            return Wait(reason="no nodes are free for a probe that explores")
        until = Until(training_seconds=limit)
        return Start(configuration=configuration, purpose=Purpose.STATISTICS, until=until, reason=_REASON)
    return None


def most_informative(beliefs: Beliefs, limit_seconds: float) -> list[Configuration]:
    """Orders the candidates by how much a training would reduce the variance of all predictions.

    The variance is that of the logarithm of the time to target, averaged over all candidates. A training of
    candidate i reduces that of candidate j by C_ij^2 / (C_ii + noise), where C is the covariance of the
    posterior samples (Cohn, "Neural network exploration using optimal experiment design", 1996). The
    reduction is multiplied by the expected share of the training that the limit allows.

    Args:
        beliefs: Forecasts of all candidates.
        limit_seconds: Training seconds after which a training would end.

    Returns:
        The candidates, most informative first.
    """
    total = beliefs.forecast.total
    longest = _LONGEST_FACTOR * float(np.min(beliefs.forecast.quantile(0.5)))
    logs = np.log(np.minimum(total, longest))
    logs -= logs.mean(axis=0)
    covariance = logs.T @ logs / len(logs)
    reduction = np.mean(covariance**2, axis=0) / (np.diag(covariance) + _NOISE_SD**2)
    gains = reduction * np.mean(np.minimum(1.0, limit_seconds / total), axis=0)
    return [beliefs.configurations[i] for i in np.argsort(-gains, kind="stable")]
