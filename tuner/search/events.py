"""Events of a search, such as the end of a slice, and the function that shows them to the user."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from search_spaces import Configuration, traits_of
from tuner.domain.measurement import Measurement

if TYPE_CHECKING:
    # These modules import scipy, which takes long.
    from tuner.search.beliefs import Beliefs
    from tuner.search.state import SearchState


@dataclass(frozen=True, kw_only=True)
class SearchEvent:
    """An event of a search, such as a decision, a warning, or the end of a slice (a part of a training).

    Args:
        kind: `plan` (the plan of the search), `decision` (an action and its reason), `progress` (new step or
            message of a running slice), `slice` (the end of a slice), `warning`, or `end` (the end of the
            search and its cause).
        text: One line of text for the user; empty for `progress`.
        measurement: Measurement of the slice so far, for `progress` and `slice`; else None.
        spent_seconds: Charged seconds of all ended slices.
        probe_id: ID of the probe (the trial training) that the event is about; None if it is not about one.
        num_slots: Maximum number of concurrent slices.
        configuration: The configuration that a decision is about; else None.
    """

    kind: Literal["plan", "decision", "progress", "slice", "warning", "end"]
    text: str = ""
    measurement: Measurement | None = None
    spent_seconds: float = 0.0
    probe_id: int | None = None
    num_slots: int = 1
    configuration: Configuration | None = None


def clock_words(measurement: Measurement, training_seconds: float) -> str:
    """Formats training seconds, such as `65.0 s of training` or `65.0 s of training and start-up`.

    Args:
        measurement: Measurement of a slice; it tells whether start-up is included.
        training_seconds: The training seconds to format.
    """
    startup = " and start-up" if measurement.counts_startup else ""
    return f"{training_seconds:.1f} s of training{startup}"


def slice_words(measurement: Measurement) -> str:
    """Describes the end of a slice: its outcome, last score, step time, lost ranks and error."""
    words = [measurement.outcome.value]
    if measurement.curve:
        point = measurement.curve[-1]
        seconds = clock_words(measurement, point.training_seconds)
        words.append(f"score {point.value:.4g} after {point.samples} samples, {seconds}")
    if measurement.step_seconds is not None and measurement.batch_seconds is not None:
        if traits_of(measurement.configuration.strategy).barrier:
            words.append(f"{1000 * measurement.step_seconds.median:.3g} ms per step")
        else:
            # Ranks do not wait for each other, so show the time in which all ranks together process one
            # batch.
            words.append(f"{1000 * measurement.batch_seconds:.3g} ms per batch")
    if measurement.lost_ranks:
        noun = "ranks" if len(measurement.lost_ranks) > 1 else "rank"
        words.append(f"without {noun} {', '.join(map(str, measurement.lost_ranks))}")
    if measurement.error:
        words.append(measurement.error.strip().splitlines()[-1])
    return ", ".join(words)


Listener = Callable[[SearchEvent], None]


def ignore(event: SearchEvent) -> None:
    """Does nothing with an event; the default for a search whose events nobody wants to see."""
    del event


Watcher = Callable[["SearchState", "Beliefs | None"], None]
"""Function that receives the state of a search, and the forecasts if there are new ones."""


def unwatched(_state: SearchState, _beliefs: Beliefs | None) -> None:
    """Does nothing with the state of a search; the default for a search that nobody watches."""
