"""Bells wake, in order, and lose nothing they accepted."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from tuner.transport.shared_memory import Doorbell


@pytest.fixture
def bells() -> Iterator[list[Doorbell]]:
    made = [Doorbell(rank) for rank in range(2)]
    for bell in made:
        bell.connect([other.address for other in made])
    yield made
    for bell in made:
        bell.close()


def test_rings_are_heard_in_their_order(bells: list[Doorbell]) -> None:
    for number in range(5):
        assert bells[number % 2].ring(0, number)
    assert [bells[0].wait(0) for _ in range(6)] == [(0, 0), (1, 1), (0, 2), (1, 3), (0, 4), None]


def test_a_ring_wakes_who_waits(bells: list[Doorbell]) -> None:
    heard: list[tuple[int, int] | None] = []
    waiting = threading.Thread(target=lambda: heard.append(bells[0].wait(60)))
    waiting.start()
    assert bells[1].ring(0, 9)
    waiting.join()
    assert heard == [(1, 9)]


def test_what_a_full_bell_does_not_refuse_is_heard(bells: list[Doorbell]) -> None:
    num_accepted = sum(bells[1].ring(0, number) for number in range(3000))
    assert 0 < num_accepted < 3000
    for number in range(num_accepted):
        assert bells[0].wait(0) == (1, number)
    assert bells[0].wait(0) is None
    assert bells[1].ring(0, 1)


def test_a_bell_that_was_taken_down_is_not_rung(bells: list[Doorbell]) -> None:
    bells[0].close()
    assert not bells[1].ring(0, 1)
    assert not bells[1].ring(0, 2)


def test_noise_is_not_heard(bells: list[Doorbell]) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
        for noise in (b"", b"ring", b"\xff" * 12, b"\xff" * 1000):
            stranger.sendto(noise, bells[0].address)
    bells[1].ring(0, 3)
    assert bells[0].wait(0) == (1, 3)
