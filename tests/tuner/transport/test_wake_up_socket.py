"""Bells wake, in order, and lose nothing they accepted."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from tuner.transport.shared_memory import WakeUpSocket


@pytest.fixture
def wake_up_sockets() -> Iterator[list[WakeUpSocket]]:
    made = [WakeUpSocket(rank) for rank in range(2)]
    for wake_up_socket in made:
        wake_up_socket.connect([other.address for other in made])
    yield made
    for wake_up_socket in made:
        wake_up_socket.close()


def test_rings_are_heard_in_their_order(wake_up_sockets: list[WakeUpSocket]) -> None:
    for number in range(5):
        assert wake_up_sockets[number % 2].ring(0, number)
    assert [wake_up_sockets[0].wait(0) for _ in range(6)] == [(0, 0), (1, 1), (0, 2), (1, 3), (0, 4), None]


def test_a_ring_wakes_who_waits(wake_up_sockets: list[WakeUpSocket]) -> None:
    heard: list[tuple[int, int] | None] = []
    waiting = threading.Thread(target=lambda: heard.append(wake_up_sockets[0].wait(60)))
    waiting.start()
    assert wake_up_sockets[1].ring(0, 9)
    waiting.join()
    assert heard == [(1, 9)]


def test_what_a_full_socket_does_not_refuse_arrives(wake_up_sockets: list[WakeUpSocket]) -> None:
    num_accepted = sum(wake_up_sockets[1].ring(0, number) for number in range(3000))
    assert 0 < num_accepted < 3000
    for number in range(num_accepted):
        assert wake_up_sockets[0].wait(0) == (1, number)
    assert wake_up_sockets[0].wait(0) is None
    assert wake_up_sockets[1].ring(0, 1)


def test_a_closed_wake_up_socket_is_not_used(wake_up_sockets: list[WakeUpSocket]) -> None:
    wake_up_sockets[0].close()
    assert not wake_up_sockets[1].ring(0, 1)
    assert not wake_up_sockets[1].ring(0, 2)


def test_noise_is_not_heard(wake_up_sockets: list[WakeUpSocket]) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
        for noise in (b"", b"ring", b"\xff" * 12, b"\xff" * 1000):
            stranger.sendto(noise, wake_up_sockets[0].address)
    wake_up_sockets[1].ring(0, 3)
    assert wake_up_sockets[0].wait(0) == (1, 3)
