"""What a search says while it works; whoever listens decides how to show it."""

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
            (a slice under way), `slice` (a slice ended), `warning`, or `end` (why the search stopped).
        text: One line for people.
        measurement: What the slice saw so far, for `progress` and `slice`.
        spent_seconds: Seconds charged by finished slices.
        probe_id: The probe it is about, where it is about one.
        num_slots: How many slices may be under way at once.
    """

    kind: Literal["plan", "decision", "progress", "slice", "warning", "end"]
    text: str
    measurement: Measurement | None = None
    spent_seconds: float = 0.0
    probe_id: int | None = None
    num_slots: int = 1


Listener = Callable[[SearchEvent], None]


def ignore(event: SearchEvent) -> None:
    """Listens to nothing."""
    del event
