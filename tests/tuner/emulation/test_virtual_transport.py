"""Messages of virtual ranks take their time on the links, and give what real ones would."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tuner.domain.cluster import VirtualCluster
from tuner.emulation.event_clock import EventClock
from tuner.emulation.virtual_transport import MOST_HELD, Mailbox, VirtualTransport

#: A vector keeps a link busy for 0.1 s, and a word takes 0.01 s.
CLUSTER = VirtualCluster(fixed_seconds=1.0, seconds_per_sample=0.0, latency=0.01, bytes_per_second=10.0)


class Post:
    """Ranks with a clock that goes on by hand."""

    def __init__(self, num_ranks: int = 3) -> None:
        self.clock = EventClock()
        self.mailbox = Mailbox(self.clock, CLUSTER, num_ranks, 1)
        self.ranks: list[VirtualTransport] = self.mailbox.transports()

    def until(self, seconds: float) -> None:
        """Goes on to a moment."""
        self.clock.schedule(seconds, "stop", 0)
        while (event := self.clock.next_event()).kind != "stop":
            self.mailbox.deliver(event)

    def publish(self, rank: int, value: float, tag: int) -> None:
        self.ranks[rank].publish(0, vector(value), tag)

    def fetch(self, rank: int, peer: int) -> tuple[int | None, float]:
        out = vector(-1.0)
        return self.ranks[rank].fetch(peer, 0, out), float(out)


def vector(value: float) -> Tensor:
    return torch.tensor([value])


def test_a_fetch_takes_a_word_there_and_the_vector_back() -> None:
    post = Post()
    post.publish(1, 5.0, 7)
    post.ranks[0].prefetch(1, 0)
    post.until(0.119)
    assert post.fetch(0, 1) == (None, -1.0)
    post.until(0.121)
    assert post.fetch(0, 1) == (7, 5.0)


def test_a_fetch_that_finds_nothing_newer_is_given_what_is_published_next() -> None:
    post = Post()
    post.publish(1, 5.0, 1)
    post.ranks[0].prefetch(1, 0)
    post.until(1.0)
    assert post.fetch(0, 1) == (1, 5.0)
    post.until(2.0)
    # It asked again as it fetched; meanwhile it has what it had.
    assert post.fetch(0, 1) == (1, 5.0)
    post.publish(1, 6.0, 2)
    post.until(2.12)
    assert post.fetch(0, 1) == (2, 6.0)


def test_vectors_leave_a_rank_one_after_the_other_and_reach_one_likewise() -> None:
    post = Post()
    post.ranks[0].push(1, vector(1.0), 1)
    post.ranks[0].push(2, vector(2.0), 2)
    post.until(0.115)
    assert [r.tag for r in post.ranks[1].take_pushed()] == [1]
    assert post.ranks[2].take_pushed() == []
    post.until(0.215)
    assert [r.tag for r in post.ranks[2].take_pushed()] == [2]
    post = Post()
    for sender in (0, 1):
        post.ranks[sender].push(2, vector(1.0), sender)
    post.until(0.115)
    assert [r.sender for r in post.ranks[2].take_pushed()] == [0]
    post.until(0.215)
    assert [r.sender for r in post.ranks[2].take_pushed()] == [1]


def test_of_pushes_to_one_rank_the_newest_waits_until_the_one_before_arrived() -> None:
    post = Post()
    for tag in (1, 2, 3):
        post.ranks[0].push(1, vector(float(tag)), tag)
    post.until(0.115)
    assert [r.tag for r in post.ranks[1].take_pushed()] == [1]
    # Confirmed after 0.12 s, then 0.11 s more.
    post.until(0.225)
    assert post.ranks[1].take_pushed() == []
    post.until(0.235)
    assert [r.tag for r in post.ranks[1].take_pushed()] == [3]


def test_of_many_peers_the_last_few_snapshots_are_stored() -> None:
    post = Post(MOST_HELD + 4)
    for peer in range(1, MOST_HELD + 4):
        post.publish(peer, float(peer), peer)
        post.ranks[0].prefetch(peer, 0)
        post.until(float(peer))
    assert len(post.mailbox.held) == MOST_HELD
    assert post.fetch(0, MOST_HELD + 3) == (MOST_HELD + 3, float(MOST_HELD + 3))


@pytest.mark.parametrize("seconds", [0.0, 0.05, 0.115, 0.3])
def test_it_goes_on_from_its_state(seconds: float) -> None:
    def started() -> Post:
        post = Post()
        post.publish(1, 5.0, 1)
        post.ranks[0].prefetch(1, 0)
        post.ranks[0].push(2, vector(1.0), 1)
        post.ranks[0].push(2, vector(2.0), 2)
        post.ranks[2].ask(1, vector(3.0), 3)
        post.until(seconds)
        return post

    one, other = started(), Post()
    other.mailbox.load(one.mailbox.state())
    other.clock.load(one.clock.state())
    for post in (one, other):
        post.publish(1, 6.0, 2)
        post.until(1.0)
    assert one.fetch(0, 1) == other.fetch(0, 1)
    for rank in (1, 2):
        assert [r.tag for r in one.ranks[rank].take_pushed()] == [
            r.tag for r in other.ranks[rank].take_pushed()
        ]
    request = other.ranks[1].next_request()
    assert request is not None
    assert (request.sender, request.tag) == (2, 3)
