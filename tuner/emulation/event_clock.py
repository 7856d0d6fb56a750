"""The clock of an emulation: it jumps from one event to the next."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple


class Event(NamedTuple):
    """Something that will happen.

    Of two at the same moment the one that was announced first comes first, so that an emulation does not
    depend on anything but its seed.

    Args:
        seconds: When, on the virtual clock.
        order: Place among all that were announced.
        kind: What.
        rank: To which rank.
        content: Whatever goes with it: numbers and tensors, so that it survives `torch.save`.
    """

    seconds: float
    order: int
    kind: str
    rank: int
    content: tuple[Any, ...]


@dataclass(kw_only=True)
class EventClock:
    """Events in order of their time.

    Args:
        seconds: Now.
    """

    seconds: float = 0.0

    def __post_init__(self) -> None:
        self._events: list[Event] = []
        self._announced = 0

    def announce(self, seconds: float, kind: str, rank: int, *content: Any) -> None:
        """Something will happen.

        Raises:
            ValueError: Its time has passed.
        """
        if seconds < self.seconds:
            raise ValueError(f"{kind} of rank {rank} would come {self.seconds - seconds:g} s too late")
        heapq.heappush(self._events, Event(seconds, self._announced, kind, rank, content))
        self._announced += 1

    def next_event(self) -> Event:
        """The next event; the clock then shows its time.

        Raises:
            IndexError: No event is scheduled.
        """
        event = heapq.heappop(self._events)
        self.seconds = event.seconds
        return event

    def state(self) -> dict[str, Any]:
        """The state to resume from."""
        return {
            "seconds": self.seconds,
            "announced": self._announced,
            "events": [tuple(event) for event in sorted(self._events, key=_moment)],
        }

    def load(self, state: dict[str, Any]) -> None:
        """Resumes from what `state` gave."""
        self.seconds, self._announced = state["seconds"], state["announced"]
        self._events = [_event(parts) for parts in state["events"]]
        heapq.heapify(self._events)


def _moment(event: Event) -> tuple[float, int]:
    return event.seconds, event.order


def _event(parts: Sequence[Any]) -> Event:
    seconds, order, kind, rank, content = parts
    return Event(seconds, order, kind, rank, tuple(content))
