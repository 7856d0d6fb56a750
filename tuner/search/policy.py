"""Interface of search policies, which choose the next action from the state of a search."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from search_spaces import Configuration
from tuner.domain.measurement import Purpose
from tuner.probes import Until
from tuner.search.beliefs import Beliefs
from tuner.search.state import SearchState


@dataclass(frozen=True, kw_only=True)
class Start:
    """Action of a search policy: start training a configuration, with a first slice.

    A slice is an uninterrupted part of a training. A probe is such a training with all its slices.

    Args:
        configuration: The configuration to train; it must be feasible.
        purpose: Why the slice runs: to time steps, to learn about the configuration, or to reach the target.
        until: Limits that end the slice, such as a number of samples.
        reason: Why the policy chose this action, as one sentence for the user.
        resume_from: ID of an earlier probe. The new run starts from the last checkpoint of that probe, whose
            configuration may differ from the new one only in the number of nodes. If None, the run starts
            from the untrained model.
    """

    configuration: Configuration
    purpose: Purpose
    until: Until
    reason: str
    resume_from: int | None = None


@dataclass(frozen=True, kw_only=True)
class Continue:
    """Action of a search policy: run the next slice of a paused probe.

    A probe is a trial training; a slice is an uninterrupted part of it.

    Args:
        probe_id: ID of the paused probe.
        purpose: Why the slice runs: to time steps, to learn about the configuration, or to reach the target.
        until: Limits that end the slice, such as a number of samples.
        reason: Why the policy chose this action, as one sentence for the user.
    """

    probe_id: int
    purpose: Purpose
    until: Until
    reason: str


@dataclass(frozen=True, kw_only=True)
class Ask:
    """Action of a search policy: train the configuration that the sampler of the Optuna study suggests.

    Args:
        until: Limits that end the first slice (uninterrupted part) of the training.
        reason: Why the policy chose this action, as one sentence for the user.
    """

    until: Until
    reason: str


@dataclass(frozen=True, kw_only=True)
class Abandon:
    """Action of a search policy: end a paused probe (trial training) that cannot become the best.

    It is not resumed later.

    Args:
        probe_id: ID of the paused probe.
        reason: Why the policy chose this action, as one sentence for the user.
    """

    probe_id: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class Wait:
    """Action of a search policy: start nothing until one of the running slices has ended.

    A slice is an uninterrupted part of a training. At least one slice must be running.

    Args:
        reason: Why the policy chose this action, as one sentence for the user.
    """

    reason: str


class StopKind(StrEnum):
    """The reason for which a search ended."""

    ARRIVED = "arrived"
    """The requested training, or the training that verifies the recommendation, reached the target."""
    NO_GAIN = "no_gain"
    """No further probe is expected to save as much as it costs."""
    BUDGET = "budget"
    """The budget of time, dollars, node hours or probes is used up."""
    UNREACHABLE = "out_of_reach"
    """No configuration is expected to reach the target within the goal's limits."""
    FAULTS = "faults"
    """Too many probes failed."""
    INTERRUPTED = "interrupted"
    """The user interrupted the search."""


@dataclass(frozen=True, kw_only=True)
class Stop:
    """Action of a search policy: end the search.

    Args:
        kind: The cause of the end.
        reason: The cause in words, as one sentence for the user.
    """

    kind: StopKind
    reason: str


Action = Start | Continue | Ask | Abandon | Wait | Stop


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The choice of a search policy, with the forecasts on which it is based.

    Args:
        action: The chosen action.
        beliefs: Forecasts of the time to target of all candidates. None if there are not enough scores for a
            forecast yet, or if the policy has no model.
    """

    action: Action
    beliefs: Beliefs | None = None


class Policy(Protocol):
    """Interface of a search policy, which decides what to train next.

    - A slice is an uninterrupted part of a training. The actions start slices, wait, or end the search.
    - A decision depends only on the state of the search. So a search that is restarted makes the same
      decision.
    - `SearchState.capacity` lists the running slices and limits the number of slices and nodes in use. A
      `Start` or `Continue` must fit these limits. `Ask` may exceed the limit on nodes, because the search
      delays the suggested configuration until enough nodes are free.
    - An action must not concern a run that has a running slice.
    - `Stop` also ends the running slices. But a `Stop` of kind NO_GAIN or UNREACHABLE is treated as `Wait`
      while slices are running, because their results may change the decision.
    """

    def decide(self, state: SearchState) -> Decision:
        """Returns the next action. The search does not call this method again after the final `Stop`."""
