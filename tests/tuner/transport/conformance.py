"""What every transport must do; a test class of each inherits these."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from tests.tuner.transport.many_ranks import KINDS, eventually, filled, ranks
from tuner.transport import NUM_CHANNELS, STATUS_WIDTH, Received, Transport

WAIT_SECONDS = 30.0


def fetched(transport: Transport, rank: int, channel: int = 0, **options: Any) -> tuple[int, torch.Tensor]:
    """The tag and content of what a rank published, as soon as it is here."""
    out = torch.full((1000,), torch.nan)
    tag = eventually(lambda: transport.fetch(rank, channel, out, **options), f"rank {rank}'s is here")
    return tag, out


def request_of(transport: Transport) -> Received:
    request = transport.next_request(wait_seconds=WAIT_SECONDS)
    assert request is not None
    return request


def reply_of(transport: Transport, rank: int) -> Received:
    reply = transport.reply(rank, wait_seconds=WAIT_SECONDS)
    assert reply is not None
    return reply


def answer_with(transport: Transport, request: Received, value: float, tag: int = 0) -> None:
    transport.answer(request, lambda out: out.fill_(value), tag)


def things_open() -> tuple[int, int, list[Path]]:
    """Descriptors, threads, and files in memory."""
    descriptors = list(Path("/proc/self/fd").iterdir())
    return len(descriptors), threading.active_count(), sorted(Path("/dev/shm").glob("*paceline*"))


class ConformanceInOneProcess:
    """Facts that do not need the ranks to be processes."""

    kind: str

    def until_asked(self, server: Transport, num_requests: int) -> None:
        """Returns when so many questions are there and not taken; at once where they do not travel."""

    def ranks(self, num_ranks: int, **form: Any) -> AbstractContextManager[list[Transport]]:
        return ranks(self.kind, num_ranks, **form)

    @pytest.fixture
    def two(self) -> Iterator[list[Transport]]:
        with self.ranks(2) as transports:
            yield transports

    def test_what_was_published_last_is_fetched(self, two: list[Transport]) -> None:
        for tag in range(5):
            two[1].publish(0, filled(tag), tag)
        eventually(lambda: fetched(two[0], 1)[0] == 4, "the last one is here")
        assert fetched(two[0], 1)[1].eq(4).all()

    def test_nothing_is_fetched_before_it_is_published(self, two: list[Transport]) -> None:
        out = filled(7)
        assert two[0].fetch(1, 0, out) is None
        assert two[0].fetch(0, 0, out) is None
        assert out.eq(7).all()

    def test_what_is_not_newer_is_not_fetched(self, two: list[Transport]) -> None:
        two[1].publish(0, filled(3), 3)
        fetched(two[0], 1)
        out = filled(7)
        assert two[0].fetch(1, 0, out, newer_than=3) is None
        assert out.eq(7).all()
        assert two[0].fetch(1, 0, out, newer_than=2) == 3
        two[1].publish(0, filled(4), 4)
        assert fetched(two[0], 1, newer_than=3)[0] == 4

    def test_channels_are_apart(self, two: list[Transport]) -> None:
        for channel in range(NUM_CHANNELS):
            two[1].publish(channel, filled(channel), channel)
        for channel in range(NUM_CHANNELS):
            two[0].prefetch(1, channel)
        assert [fetched(two[0], 1, channel)[0] for channel in range(NUM_CHANNELS)] == [0, 1, 2]

    def test_a_rank_fetches_its_own(self, two: list[Transport]) -> None:
        two[0].publish(1, filled(2), 5)
        tag, vector = fetched(two[0], 0, 1)
        assert (tag, vector.unique().tolist()) == (5, [2.0])

    def test_a_vector_is_copied_before_it_is_changed(self, two: list[Transport]) -> None:
        vector = filled(1)
        two[1].publish(0, vector, 1)
        two[1].push(0, vector, 1)
        two[1].ask(0, vector, 1)
        vector.fill_(9)
        assert fetched(two[0], 1)[1].eq(1).all()
        assert eventually(two[0].take_pushed, "the push is here")[0].vector.eq(1).all()
        assert request_of(two[0]).vector.eq(1).all()

    def test_parameters_pass_without_autograd(self, two: list[Transport]) -> None:
        parameter = torch.nn.Parameter(filled(2))
        two[1].publish(0, parameter, 1)
        out = torch.nn.Parameter(filled(0))
        eventually(lambda: two[0].fetch(1, 0, out), "it is here")
        assert out.eq(2).all()
        assert out.grad_fn is None

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
    def test_any_floating_type_passes(self, dtype: torch.dtype) -> None:
        form = {"num_elements": 1001, "dtype": dtype}
        with self.ranks(2, **form) as two:
            two[1].publish(0, filled(1.5, **form), 1)
            out = filled(0, **form)
            eventually(lambda: two[0].fetch(1, 0, out), "it is here")
            assert out.eq(1.5).all()
            two[1].push(0, filled(2.5, **form), 1)
            pushed = eventually(two[0].take_pushed, "the push is here")[0].vector
            assert (pushed.dtype, pushed.unique().tolist()) == (dtype, [2.5])
            two[0].ask(1, filled(3.5, **form), 1)
            request = request_of(two[1])
            two[1].answer(request, lambda out: torch.add(request.vector, 1, out=out), 2)
            assert reply_of(two[0], 1).vector.unique().tolist() == [4.5]

    def test_a_vector_of_another_length_or_type_is_refused(self, two: list[Transport]) -> None:
        with pytest.raises(AssertionError, match="the vector's length"):
            two[0].publish(0, filled(1, num_elements=999), 1)
        with pytest.raises(AssertionError, match="the vector's dtype"):
            two[0].publish(0, filled(1, dtype=torch.float64), 1)

    def test_a_push_is_taken_once(self, two: list[Transport]) -> None:
        assert two[1].push(0, filled(4), 8)
        (taken,) = eventually(two[0].take_pushed, "the push is here")
        assert (taken.sender, taken.tag, taken.vector.unique().tolist()) == (1, 8, [4.0])
        assert two[0].take_pushed() == []

    def test_a_newer_push_replaces_the_one_not_taken(self, two: list[Transport]) -> None:
        for tag in range(20):
            assert two[1].push(0, filled(tag), tag)
        tags: list[int] = []

        def last_is_here() -> bool:
            taken = two[0].take_pushed()
            assert len(taken) <= 1
            tags.extend(one.tag for one in taken)
            assert all(one.vector.eq(one.tag).all() for one in taken)
            return tags[-1:] == [19]

        eventually(last_is_here, "the newest is here")
        assert tags == sorted(set(tags))

    def test_each_sender_has_its_own_slot(self) -> None:
        with self.ranks(8) as all_ranks:
            for rank in range(1, 8):
                all_ranks[rank].push(0, filled(rank), rank)
            taken: list[tuple[int, float]] = []

            def all_are_here() -> bool:
                taken.extend((one.sender, one.vector.max().item()) for one in all_ranks[0].take_pushed())
                return len(taken) == 7

            eventually(all_are_here, "all pushes are here")
            assert sorted(taken) == [(rank, float(rank)) for rank in range(1, 8)]

    def test_a_question_is_answered(self, two: list[Transport]) -> None:
        assert not two[0].is_asked(1)
        assert two[0].ask(1, filled(5), 6)
        assert two[0].is_asked(1)
        request = request_of(two[1])
        assert (request.sender, request.tag, request.vector.unique().tolist()) == (0, 6, [5.0])
        two[1].answer(request, lambda out: torch.mul(request.vector, 2, out=out), 7)
        reply = reply_of(two[0], 1)
        assert (reply.sender, reply.tag, reply.vector.unique().tolist()) == (1, 7, [10.0])
        assert not two[0].is_asked(1)
        assert two[0].reply(1) is None

    def test_questions_are_found_in_the_order_of_their_arrival(self) -> None:
        with self.ranks(9) as all_ranks:
            order = [3, 8, 1, 6, 2, 7, 5, 4]
            for num_before, asker in enumerate(order):
                assert all_ranks[asker].ask(0, filled(asker), asker)
                self.until_asked(all_ranks[0], num_before + 1)
            found = [request_of(all_ranks[0]) for _ in order]
            assert [request.sender for request in found] == order
            assert all(request.vector.eq(request.sender).all() for request in found)
            for request in reversed(found):
                answer_with(all_ranks[0], request, 10 * request.sender)
            for asker in order:
                assert reply_of(all_ranks[asker], 0).vector.eq(10 * asker).all()

    def test_there_is_one_question_at_a_time_to_a_rank(self, two: list[Transport]) -> None:
        assert two[0].ask(1, filled(1), 1)
        assert not two[0].ask(1, filled(2), 2)
        request = request_of(two[1])
        assert request.tag == 1
        assert not two[0].ask(1, filled(2), 2)
        answer_with(two[1], request, 0)
        reply_of(two[0], 1)
        assert two[0].ask(1, filled(2), 2)
        assert request_of(two[1]).tag == 2
        assert two[1].next_request() is None

    def test_a_late_answer_is_still_given(self, two: list[Transport]) -> None:
        assert two[0].reply(1) is None
        two[0].ask(1, filled(1), 1)
        assert two[0].reply(1) is None
        assert two[0].reply(1, wait_seconds=0.02) is None
        answer_with(two[1], request_of(two[1]), 3)
        assert reply_of(two[0], 1).vector.eq(3).all()

    def test_answers_of_several_ranks_do_not_hide_each_other(self) -> None:
        with self.ranks(4) as all_ranks:
            for rank in (1, 2, 3):
                all_ranks[0].ask(rank, filled(rank), rank)
            for rank in (3, 2, 1):
                answer_with(all_ranks[rank], request_of(all_ranks[rank]), rank)
            assert [reply_of(all_ranks[0], rank).vector[0].item() for rank in (1, 2, 3)] == [1, 2, 3]

    def test_a_reply_holds_while_the_next_question_is_answered(self, two: list[Transport]) -> None:
        two[0].ask(1, filled(1), 1)
        answer_with(two[1], request_of(two[1]), 1)
        reply = reply_of(two[0], 1)
        two[0].ask(1, filled(2), 2)
        answer_with(two[1], request_of(two[1]), 2)
        assert reply.vector.eq(1).all()
        assert reply_of(two[0], 1).vector.eq(2).all()

    def test_an_answer_that_could_not_be_filled_can_be_given_again(self, two: list[Transport]) -> None:
        def fail(out: torch.Tensor) -> None:
            raise KeyError("no such thing")

        two[0].ask(1, filled(1), 1)
        request = request_of(two[1])
        with pytest.raises(KeyError, match="no such thing"):
            two[1].answer(request, fail, 1)
        assert two[0].reply(1) is None
        answer_with(two[1], request, 2)
        assert reply_of(two[0], 1).vector.eq(2).all()

    def test_a_rank_asks_and_pushes_to_itself(self, two: list[Transport]) -> None:
        assert two[0].ask(0, filled(1), 1)
        assert not two[0].ask(0, filled(1), 1)
        answer_with(two[0], request_of(two[0]), 2, tag=5)
        reply = reply_of(two[0], 0)
        assert (reply.sender, reply.tag, reply.vector.unique().tolist()) == (0, 5, [2.0])
        assert two[0].push(0, filled(3), 3)
        assert two[0].take_pushed()[0].vector.eq(3).all()
        assert two[0].moved_bytes == 0

    def test_moved_bytes_are_vectors_that_went_to_or_came_from_others(self, two: list[Transport]) -> None:
        two[0].publish(0, filled(1), 1)
        assert two[0].fetch(0, 0, filled(0)) == 1
        assert two[0].moved_bytes == 0
        fetched(two[1], 0)
        assert two[1].moved_bytes == 4000
        two[1].push(0, filled(1), 1)
        assert two[1].moved_bytes == 8000
        two[1].ask(0, filled(1), 1)
        assert two[1].moved_bytes == 12000
        assert not two[1].ask(0, filled(1), 1)
        assert two[1].moved_bytes == 12000
        eventually(two[0].take_pushed, "the push is here")
        request = request_of(two[0])
        assert two[0].moved_bytes == 0
        answer_with(two[0], request, 1)
        reply_of(two[1], 0)
        assert (two[0].moved_bytes, two[1].moved_bytes) == (4000, 12000)

    def test_one_thread_serves_while_another_publishes(self, two: list[Transport]) -> None:
        num_questions = 200

        def serve() -> None:
            for _ in range(num_questions):
                request = request_of(two[1])
                two[1].answer(
                    request, lambda out, asked=request.vector: torch.add(asked, 1, out=out), request.tag
                )

        serving = threading.Thread(target=serve)
        serving.start()
        out = filled(0)
        for tag in range(num_questions):
            two[1].publish(0, filled(tag), tag)
            assert two[0].ask(1, filled(tag), tag)
            reply = reply_of(two[0], 1)
            assert (reply.tag, reply.vector.min().item(), reply.vector.max().item()) == (
                tag,
                tag + 1,
                tag + 1,
            )
            found = two[0].fetch(1, 0, out)
            assert found is None or out.eq(found).all()
        serving.join()
        two[1].publish(0, filled(777), 777)
        eventually(lambda: two[0].fetch(1, 0, out, newer_than=776), "the last one is here")

    def test_statuses_are_known_to_all(self) -> None:
        with self.ranks(8) as all_ranks:
            assert all_ranks[0].statuses().shape == (8, STATUS_WIDTH)
            assert not all_ranks[0].statuses().any()
            for rank, transport in enumerate(all_ranks):
                transport.post(np.full(STATUS_WIDTH, 1.0))
                transport.post(np.arange(STATUS_WIDTH) + 100.0 * rank)
                assert transport.statuses()[rank, 0] == 100 * rank
            wanted = np.arange(STATUS_WIDTH) + 100.0 * np.arange(8)[:, None]
            for transport in all_ranks:
                eventually(lambda one=transport: bool((one.statuses() == wanted).all()), "all are known")

    def test_who_posts_is_not_silent(self) -> None:
        with self.ranks(3) as all_ranks:
            before = all_ranks[0].silent_seconds()
            assert before.shape == (3,)
            assert before[0] == 0
            assert (before[1:] > 0).all()
            all_ranks[1].post(np.ones(STATUS_WIDTH))
            eventually(lambda: all_ranks[0].statuses()[1, 0] == 1, "the standing is here")
            after = all_ranks[0].silent_seconds()
            assert after[1] < after[2]
            assert after[0] == 0
            assert (all_ranks[0].silent_seconds()[1:] >= after[1:]).all()

    def test_others_are_not_disturbed_by_one_that_closes(self) -> None:
        with self.ranks(3) as all_ranks:
            all_ranks[2].publish(0, filled(1), 1)
            all_ranks[2].close()
            all_ranks[2].close()
            for _ in range(5):
                all_ranks[0].post(np.ones(STATUS_WIDTH))
                all_ranks[0].prefetch(2, 0)
                all_ranks[0].fetch(2, 0, filled(0))
                all_ranks[0].push(2, filled(1), 1)
                all_ranks[0].ask(2, filled(1), 1)
                assert all_ranks[0].reply(2) is None
                all_ranks[0].ask(1, filled(1), 1)
                answer_with(all_ranks[1], request_of(all_ranks[1]), 1)
                reply_of(all_ranks[0], 1)

    def test_an_answer_to_one_that_closed_goes_nowhere(self) -> None:
        with self.ranks(3) as all_ranks:
            all_ranks[2].ask(0, filled(2), 2)
            self.until_asked(all_ranks[0], 1)
            all_ranks[2].close()
            all_ranks[1].ask(0, filled(1), 1)
            answered = []
            while 1 not in answered:
                request = request_of(all_ranks[0])
                answer_with(all_ranks[0], request, 5)
                answered.append(request.sender)
            assert reply_of(all_ranks[1], 0).vector.eq(5).all()

    def test_a_rank_that_does_not_come_is_waited_for_no_longer_than_the_store_says(self) -> None:
        def come_alone() -> None:
            store = dist.HashStore()
            store.set_timeout(timedelta(seconds=0.1))
            with pytest.raises(dist.DistError, match="timeout"):
                KINDS[self.kind](store, rank=0, num_ranks=2, num_elements=10, dtype=torch.float32)

        come_alone()
        before = things_open()
        come_alone()
        assert things_open() == before

    def test_nothing_is_left_open_after_closing(self) -> None:
        def use() -> None:
            with self.ranks(3) as all_ranks:
                all_ranks[0].publish(0, filled(1), 1)
                fetched(all_ranks[1], 0)
                all_ranks[0].push(1, filled(1), 1)
                all_ranks[0].ask(1, filled(1), 1)
                request_of(all_ranks[1])

        # The first time, libraries open what they keep.
        use()
        before = things_open()
        for _ in range(3):
            use()
        assert things_open() == before
