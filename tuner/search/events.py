"""Events of a search, sent to a listener that shows them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from tuner.domain.measurement import Measurement


@dataclass(frozen=True, kw_only=True)
class SearchEvent:
    """An event of a search.

    Args:
        kind: `plan` (what the run will do), `decision` (the next action and its reason), `progress` (of a
            slice in flight), `slice` (a slice ended), `warning`, or `end` (why the search stopped).
        text: Text for the user, one line; empty for `progress`.
        measurement: Measurement of the slice so far, for `progress` and `slice`.
        spent_seconds: Charged seconds of ended slices.
        probe_id: ID of the probe, if the event is about one.
        num_slots: Maximum number of concurrent slices.
    """

    kind: Literal["plan", "decision", "progress", "slice", "warning", "end"]
    text: str = ""
    measurement: Measurement | None = None
    spent_seconds: float = 0.0
    probe_id: int | None = None
    num_slots: int = 1


def clock_words(measurement: Measurement, training_seconds: float) -> str:
    """Formats training seconds, and says whether they include start-up.

    Args:
        measurement: Measurement of the slice.
        training_seconds: The training seconds.
    """
    startup = " and start-up" if measurement.counts_startup else ""
    return f"{training_seconds:.1f} s of training{startup}"


Listener = Callable[[SearchEvent], None]


def ignore(event: SearchEvent) -> None:
    """A listener that ignores all events."""
    del event
