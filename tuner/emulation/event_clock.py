"""The virtual clock of an emulation: a queue of scheduled events. Time jumps from each event to the next."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple


class Event(NamedTuple):
    """A scheduled event.

    Events of the same time are processed in the order in which they were scheduled. The result of an
    emulation therefore depends only on its seed.

    Args:
        seconds: Time of the event on the virtual clock.
        order: Number of events that were scheduled before this one.
        kind: Kind of event, such as `ends` for the end of a step.
        rank: Index of the rank that the event concerns.
        content: Further data of the event, such as the vector of a message: numbers and tensors, which
            `torch.save` can store.
    """

    seconds: float
    order: int
    kind: str
    rank: int
    content: tuple[Any, ...]


@dataclass(kw_only=True)
class EventClock:
    """A virtual clock with its queue of events.

    Args:
        seconds: Current time, in seconds.
    """

    seconds: float = 0.0

    def __post_init__(self) -> None:
        self._events: list[Event] = []
        self._announced = 0

    def schedule(self, seconds: float, kind: str, rank: int, *content: Any) -> None:
        """Schedules an event.

        Args:
            seconds: Time of the event on the virtual clock.
            kind: Kind of event, such as `ends` for the end of a step.
            rank: Index of the rank that the event concerns.
            content: Further data of the event (see `Event.content`).

        Raises:
            ValueError: The time is in the past.
        """
        if seconds < self.seconds:
            raise ValueError(
                f"event {kind!r} of rank {rank} cannot be scheduled {self.seconds - seconds:g} s in the past"
            )
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
        """Returns the time and the scheduled events, for a checkpoint; `load` restores them."""
        return {
            "seconds": self.seconds,
            "announced": self._announced,
            "events": [tuple(event) for event in sorted(self._events, key=_moment)],
        }

    def load(self, state: dict[str, Any]) -> None:
        """Restores the time and the scheduled events that `state` returned."""
        self.seconds, self._announced = state["seconds"], state["announced"]
        self._events = [_event(parts) for parts in state["events"]]
        heapq.heapify(self._events)


def _moment(event: Event) -> tuple[float, int]:
    return event.seconds, event.order


def _event(parts: Sequence[Any]) -> Event:
    seconds, order, kind, rank, content = parts
    return Event(seconds, order, kind, rank, tuple(content))
