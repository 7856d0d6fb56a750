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
        configuration: What to probe; feasible.
        purpose: Why.
        until: Where the slice ends.
        reason: One sentence for people.
        resume_from: A probe whose checkpoint the run starts from: it differs in nodes only.
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
        probe_id: The probe.
        purpose: Why this slice runs.
        until: Where the slice ends.
        reason: One sentence for people.
    """

    probe_id: int
    purpose: Purpose
    until: Until
    reason: str


@dataclass(frozen=True, kw_only=True)
class Ask:
    """Start the run that the Optuna study's own sampler suggests.

    Args:
        until: Where the slice ends.
        reason: One sentence for people.
    """

    until: Until
    reason: str


@dataclass(frozen=True, kw_only=True)
class Abandon:
    """Give a paused probe up.

    Args:
        probe_id: The probe.
        reason: One sentence for people.
    """

    probe_id: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class Wait:
    """Start nothing more until a slice in flight has ended; there is one.

    Args:
        reason: One sentence for people.
    """

    reason: str


class StopKind(StrEnum):
    """Why a search ends."""

    ARRIVED = "arrived"
    """As many trainings as requested reached the target, or one did and verified the answer."""
    NO_GAIN = "no_gain"
    """No further probe is expected to pay back its cost."""
    BUDGET = "budget"
    """Time, dollars or probes are used up."""
    UNREACHABLE = "out_of_reach"
    """No configuration is expected to reach the target within the goal's limits."""
    FAULTS = "faults"
    """Too many probes failed."""


@dataclass(frozen=True, kw_only=True)
class Stop:
    """End the search.

    Args:
        kind: Why.
        reason: One sentence for people.
    """

    kind: StopKind
    reason: str


Action = Start | Continue | Ask | Abandon | Wait | Stop


@dataclass(frozen=True, kw_only=True)
class Decision:
    """An action with what was believed when it was chosen.

    Args:
        action: What to do.
        beliefs: What was believed; None where nothing had been measured, or the policy has no model.
    """

    action: Action
    beliefs: Beliefs | None = None


class Policy(Protocol):
    """Decides what to do next from the state alone, so that a restarted search decides alike.

    The state's capacity lists the slices in flight and what is free. An action fits that capacity (what is
    asked of Optuna waits until it does), and is of no run in flight. `Stop` ends the slices in flight, too,
    unless they could still change it: NO_GAIN and OUT_OF_REACH count as `Wait` until then.
    """

    def decide(self, state: SearchState) -> Decision:
        """The next action; `Stop` once, and then the search is over."""
