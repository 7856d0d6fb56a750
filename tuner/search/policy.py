"""Interface of search policies: choose the next action from the state."""

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
    """Start a new probe.

    Args:
        configuration: The configuration to probe; it must be feasible.
        purpose: Purpose of the slice.
        until: End of the slice.
        reason: The reason for the user, as one sentence.
        resume_from: ID of a probe from whose checkpoint the run starts. Its configuration may differ in nodes
            only.
    """

    configuration: Configuration
    purpose: Purpose
    until: Until
    reason: str
    resume_from: int | None = None


@dataclass(frozen=True, kw_only=True)
class Continue:
    """Resume a paused probe.

    Args:
        probe_id: ID of the probe.
        purpose: Purpose of the slice.
        until: End of the slice.
        reason: The reason for the user, as one sentence.
    """

    probe_id: int
    purpose: Purpose
    until: Until
    reason: str


@dataclass(frozen=True, kw_only=True)
class Ask:
    """Start a run with the configuration that the Optuna study's sampler suggests.

    Args:
        until: End of the slice.
        reason: The reason for the user, as one sentence.
    """

    until: Until
    reason: str


@dataclass(frozen=True, kw_only=True)
class Abandon:
    """Give up a paused probe.

    Args:
        probe_id: ID of the probe.
        reason: The reason for the user, as one sentence.
    """

    probe_id: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class Wait:
    """Start nothing more until a slice in flight has ended. At least one slice must be in flight.

    Args:
        reason: The reason for the user, as one sentence.
    """

    reason: str


class StopKind(StrEnum):
    """Why a search ends."""

    ARRIVED = "arrived"
    """The requested training, or the verification of the answer, reached the target."""
    NO_GAIN = "no_gain"
    """No further probe is expected to pay back its cost."""
    BUDGET = "budget"
    """The budget of time, dollars, node hours or probes is used up."""
    UNREACHABLE = "out_of_reach"
    """No configuration is expected to reach the target within the goal's limits."""
    FAULTS = "faults"
    """Too many probes failed."""


@dataclass(frozen=True, kw_only=True)
class Stop:
    """End the search.

    Args:
        kind: Why the search ends.
        reason: The reason for the user, as one sentence.
    """

    kind: StopKind
    reason: str


Action = Start | Continue | Ask | Abandon | Wait | Stop


@dataclass(frozen=True, kw_only=True)
class Decision:
    """An action, with the forecasts from which it was chosen.

    Args:
        action: The action.
        beliefs: The forecasts; None if nothing was measured yet or the policy has no model.
    """

    action: Action
    beliefs: Beliefs | None = None


class Policy(Protocol):
    """Decides the next action from the state alone, so that a restarted search decides the same.

    The state's capacity lists the slices in flight and the free nodes. An action must fit this capacity
    (except `Ask`, which waits until it does) and must not concern a run in flight. `Stop` also ends the
    slices in flight. But the kinds NO_GAIN and UNREACHABLE count as `Wait` until these slices have ended,
    because their results may change the decision.
    """

    def decide(self, state: SearchState) -> Decision:
        """Decides the next action. It is not called again after `Stop`."""
