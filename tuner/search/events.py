"""Events of a search; the listener decides how to show them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from tuner.domain.measurement import Measurement


@dataclass(frozen=True, kw_only=True)
class SearchEvent:
    """One thing that happened.

    Args:
        kind: `plan` (what the run is going to do), `decision` (what comes next and why), `progress`
            (a slice in flight), `slice` (a slice ended), `warning`, or `end` (why the search stopped).
        text: One line for people; empty for `progress`.
        measurement: What the slice saw so far, for `progress` and `slice`.
        spent_seconds: Seconds charged by finished slices.
        probe_id: The probe it is about, where it is about one.
        num_slots: Maximum number of concurrent slices.
    """

    kind: Literal["plan", "decision", "progress", "slice", "warning", "end"]
    text: str = ""
    measurement: Measurement | None = None
    spent_seconds: float = 0.0
    probe_id: int | None = None
    num_slots: int = 1


def clock_words(measurement: Measurement, training_seconds: float) -> str:
    """A time on a run's training clock, with what the clock counts.

    Args:
        measurement: Of the slice.
        training_seconds: The time.
    """
    startup = " and start-up" if measurement.counts_startup else ""
    return f"{training_seconds:.1f} s of training{startup}"


Listener = Callable[[SearchEvent], None]


def ignore(event: SearchEvent) -> None:
    """Ignores events."""
    del event
