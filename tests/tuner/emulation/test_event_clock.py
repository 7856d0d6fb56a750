from __future__ import annotations

import pytest

from tuner.emulation.event_clock import EventClock


def kinds(clock: EventClock, count: int) -> list[tuple[float, str, int]]:
    return [(event.seconds, event.kind, event.rank) for event in (clock.next_event() for _ in range(count))]


def test_events_come_in_order_of_their_time() -> None:
    clock = EventClock()
    clock.schedule(2.0, "b", 0)
    clock.schedule(1.0, "a", 1)
    assert kinds(clock, 2) == [(1.0, "a", 1), (2.0, "b", 0)]
    assert clock.seconds == 2.0


def test_of_two_at_one_moment_the_first_announced_comes_first() -> None:
    clock = EventClock()
    for rank in (3, 1, 2):
        clock.schedule(1.0, "ends", rank)
    assert [rank for _, _, rank in kinds(clock, 3)] == [3, 1, 2]


def test_what_has_passed_cannot_be_announced() -> None:
    clock = EventClock(seconds=5.0)
    with pytest.raises(ValueError, match=r"event 'ends' of rank 2 cannot be scheduled 1 s in the past"):
        clock.schedule(4.0, "ends", 2)


def test_it_goes_on_from_its_state() -> None:
    clock, again = EventClock(), EventClock()
    for rank, seconds in enumerate((3.0, 1.0, 1.0, 2.0)):
        clock.schedule(seconds, "ends", rank, rank * 10)
    clock.next_event()
    again.load(clock.state())
    assert again.seconds == 1.0
    assert [again.next_event() for _ in range(3)] == [clock.next_event() for _ in range(3)]
