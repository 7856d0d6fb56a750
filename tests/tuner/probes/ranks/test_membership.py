"""Who is heard of and who leads, whatever becomes of the others."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from tests.tuner.transport.direct_transport import DirectTransport, Post
from tuner.probes.ranks.membership import Field, Membership
from tuner.transport.transport import VectorForm


class Silence(DirectTransport):
    """A transport whose clock the test holds."""

    silent: np.ndarray

    def silent_seconds(self) -> np.ndarray:
        return self.silent


@pytest.fixture
def memberships() -> Iterator[list[Membership]]:
    post, form = Post(3), VectorForm(num_elements=4, dtype=torch.float32)
    transports = [Silence(post, rank, form) for rank in range(3)]
    silent = np.zeros(3)
    for transport in transports:
        transport.silent = silent
    found = [Membership(transport, first_silence_seconds=60.0) for transport in transports]
    for membership in found:
        membership.post()
    yield found
    for transport in transports:
        transport.close()


def poll(memberships: list[Membership]) -> None:
    for membership in memberships:
        membership.poll()


def silence(memberships: list[Membership], rank: int, seconds: float) -> None:
    memberships[0]._transport.silent[rank] = seconds  # type: ignore[attr-defined]


def test_first_rank_leads_and_all_are_heard_of(memberships: list[Membership]) -> None:
    poll(memberships)
    assert [membership.leader() for membership in memberships] == [0, 0, 0]
    assert memberships[0].leads
    assert memberships[1].live_ranks() == (0, 1, 2)


def test_before_steps_are_known_a_rank_may_be_silent_as_long_as_a_start_takes(
    memberships: list[Membership],
) -> None:
    silence(memberships, 2, 59.0)
    poll(memberships)
    assert memberships[0].lost_ranks() == ()
    silence(memberships, 2, 61.0)
    poll(memberships)
    assert memberships[0].lost_ranks() == (2,)


def test_deadline_follows_the_steps_a_rank_was_seen_to_take(memberships: list[Membership]) -> None:
    memberships[1].post(step_median=2.0, step_deviation=0.1)
    silence(memberships, 1, 7.0)
    poll(memberships)
    assert memberships[0].lost_ranks() == ()
    memberships[1].post(step_median=0.1, step_deviation=0.01)
    poll(memberships)
    assert memberships[0].lost_ranks() == (1,)
    silence(memberships, 1, 0.0)
    poll(memberships)
    assert memberships[0].lost_ranks() == ()


def test_a_lost_rank_may_return_for_a_few_seconds(memberships: list[Membership]) -> None:
    memberships[1].post(step_median=0.01, step_deviation=0.001)
    for seconds, is_lost, may_return in [(0.5, False, False), (3.0, True, True), (6.0, True, False)]:
        silence(memberships, 1, seconds)
        poll(memberships)
        assert memberships[0].lost_ranks() == ((1,) if is_lost else ())
        assert memberships[0].may_return() is may_return


def test_a_rank_that_asked_for_a_pause_may_be_silent_while_it_lasts(memberships: list[Membership]) -> None:
    memberships[0].post(step_median=0.01, step_deviation=0.001, pause=1, pause_seconds=30.0)
    silence(memberships, 0, 20.0)
    poll(memberships[1:])
    assert memberships[1].leader() == 0
    memberships[0].post(released=1)
    poll(memberships[1:])
    assert memberships[1].leader() == 1


def test_lead_passes_to_the_next_and_stays_there_when_the_old_leader_wakes(
    memberships: list[Membership],
) -> None:
    memberships[0].post(
        step_median=0.01, evaluation=4, evaluation_samples=500, pause=2, released=1, started=1, scores=3
    )
    silence(memberships, 0, 60.0)
    poll(memberships[1:])
    assert [membership.leader() for membership in memberships[1:]] == [1, 1]
    assert memberships[1].own(Field.TERM) == 2
    # The mark is announced anew, and the rest that the old leader asked for is over.
    assert memberships[1].own(Field.EVALUATION) == 5
    assert memberships[1].own(Field.EVALUATION_SAMPLES) == 500
    assert memberships[1].own(Field.RELEASED) == 2
    assert memberships[1].own(Field.SCORES) == 3
    silence(memberships, 0, 0.0)
    poll(memberships)
    assert [membership.leader() for membership in memberships] == [1, 1, 1]


def test_a_rank_that_writes_its_part_of_a_checkpoint_may_be_silent_too(memberships: list[Membership]) -> None:
    memberships[0].post(pause=1, pause_seconds=30.0)
    memberships[2].post(step_median=0.01, paused=1)
    memberships[1].post(step_median=0.01)
    silence(memberships, 1, 20.0)
    silence(memberships, 2, 20.0)
    poll(memberships[:1])
    # Only the one that has come to rest: the other is silent for no known reason.
    assert memberships[0].lost_ranks() == (1,)


def test_whoever_takes_over_an_ended_slice_ends_too(memberships: list[Membership]) -> None:
    memberships[0].post(step_median=0.01, ended=2)
    silence(memberships, 0, 60.0)
    poll(memberships[1:])
    assert memberships[1].leads
    assert memberships[1].own(Field.ENDED) == 2


def test_a_slice_without_evaluation_points_has_none_after_a_change_of_leader(
    memberships: list[Membership],
) -> None:
    memberships[0].post(step_median=0.01, started=1)
    silence(memberships, 0, 60.0)
    poll(memberships[1:])
    assert memberships[1].leads
    assert memberships[1].own(Field.EVALUATION) == 0


def test_samples_of_a_rank_that_never_posted_are_those_it_began_with(memberships: list[Membership]) -> None:
    memberships[0].begin((100, 200, 300))
    memberships[0].post(samples=150)
    poll(memberships)
    assert memberships[0].total_samples == 650
    assert memberships[0].samples_of(2) == 300


def test_samples_of_lost_ranks_still_count(memberships: list[Membership]) -> None:
    for membership in memberships:
        membership.post(samples=100, step_median=0.01)
    silence(memberships, 2, 60.0)
    poll(memberships)
    assert memberships[0].total_samples == 300
    assert memberships[0].all_live(Field.SAMPLES, 100)


class LosesTheLast(Silence):
    """A transport by which the others get each status of this rank only when it posts the next one."""

    before: np.ndarray | None = None

    def post(self, status: np.ndarray) -> None:
        if self.before is not None:
            super().post(self.before)
        self.before = status.copy()


def test_no_rank_waits_for_one_that_has_left_even_if_its_last_status_is_lost() -> None:
    post, form = Post(3), VectorForm(num_elements=4, dtype=torch.float32)
    kinds = (Silence, LosesTheLast, Silence)
    transports = [kind(post, rank, form) for rank, kind in enumerate(kinds)]
    returned: list[int] = []

    def leave(membership: Membership) -> None:
        membership.refresh()
        for _ in membership.leave():
            time.sleep(0.001)
        returned.append(membership.rank)

    threads = []
    # The rank whose last status is lost leaves last: it knows at once that the others have noticed the end.
    for rank in (0, 2, 1):
        transports[rank].silent = np.zeros(3)
        membership = Membership(transports[rank], first_silence_seconds=60.0)
        threads.append(threading.Thread(target=leave, args=(membership,), daemon=True))
        threads[-1].start()
        time.sleep(0.01)
    for thread in threads:
        thread.join(5.0)
    assert sorted(returned) == [0, 1, 2]
