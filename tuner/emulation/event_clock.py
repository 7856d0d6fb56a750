"""The virtual clock of an emulation: a queue of scheduled events; time jumps from one to the next."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple


class Event(NamedTuple):
    """A scheduled event.

    Events of the same time happen in the order in which they were scheduled, so that an emulation depends on
    its seed alone.

    Args:
        seconds: When it happens, on the virtual clock.
        order: How many events were scheduled before it.
        kind: What happens.
        rank: The rank that it happens to.
        content: Its data: numbers and tensors, so that `torch.save` can store it.
    """

    seconds: float
    order: int
    kind: str
    rank: int
    content: tuple[Any, ...]


@dataclass(kw_only=True)
class EventClock:
    """The current time, and the events to come.

    Args:
        seconds: The current time.
    """

    seconds: float = 0.0

    def __post_init__(self) -> None:
        self._events: list[Event] = []
        self._announced = 0

    def schedule(self, seconds: float, kind: str, rank: int, *content: Any) -> None:
        """Schedules an event.

        Raises:
            ValueError: The time is in the past.
        """
        if seconds < self.seconds:
            raise ValueError(f"{kind} of rank {rank} would come {self.seconds - seconds:g} s too late")
        heapq.heappush(self._events, Event(seconds, self._announced, kind, rank, content))
        self._announced += 1

    def next_event(self) -> Event:
        """Removes and returns the next event, and sets the clock to its time.

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
