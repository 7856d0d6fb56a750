"""What one replayed search did: what it had spent when it recommended what, and what it foresaw."""

from __future__ import annotations

from dataclasses import dataclass

from search_spaces import Configuration


@dataclass(frozen=True, kw_only=True)
class Moment:
    """One decision.

    Args:
        spent: Charged before it, in the goal's unit.
        recommended: What it would have recommended then; None where it knew of nothing.
        suggestion_seconds: How long deciding took.
        regret_bound: With 90% probability nothing costs less than the recommended one over this factor; None
            where the search states none.
    """

    spent: float
    recommended: Configuration | None
    suggestion_seconds: float | None = None
    regret_bound: float | None = None


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What was believed of a configuration that had not arrived: training seconds to the target.

    Args:
        configuration: The configuration.
        lower: 5% quantile.
        median: 50% quantile.
        upper: 95% quantile; infinite where its run ended without arriving.
        spent: Charged before it was made, in the goal's unit.
        after_first_score: Whether the search had read a score by then.
        reaches: Probability that the configuration reaches the target at all; None where none was stated.
    """

    configuration: Configuration
    lower: float
    median: float
    upper: float
    spent: float = 0.0
    after_first_score: bool = True
    reaches: float | None = None


@dataclass(frozen=True, kw_only=True)
class Trace:
    """One search from its first decision to its end.

    Args:
        moments: Its decisions, and its end, in order of what was spent; at least one.
        predictions: What it believed at some of them.
        arrived_at: Charged until its first run arrived, in the goal's unit; None where none did.
        stop: Why the search stopped (a `StopKind`); None where its limit ended it.
    """

    moments: tuple[Moment, ...]
    predictions: tuple[Prediction, ...] = ()
    arrived_at: float | None = None
    stop: str | None = None

    @property
    def end(self) -> Moment:
        """Where it stood when it ended."""
        return self.moments[-1]
