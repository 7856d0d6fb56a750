"""What every transport must do when ranks are stopped and killed; a test class of each inherits these."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.tuner.transport.conformance import answer_with, request_of
from tests.tuner.transport.many_ranks import Peer, eventually, filled, peers
from tuner.transport import Transport

#: Long enough that many copies are under way at random moments.
NUM_ELEMENTS = 200_000
HAMMERING_SECONDS = 1.0


class Watcher:
    """Fetches again and again, and checks that it gets whole vectors that never grow older."""

    def __init__(self, transport: Transport, rank: int) -> None:
        self.transport = transport
        self.rank = rank
        self.out = filled(0, num_elements=NUM_ELEMENTS)
        self.tags: list[int] = []

    def probe(self) -> bool:
        tag = self.transport.fetch(self.rank, 0, self.out)
        if tag is None:
            return False
        assert self.out.min().item() == self.out.max().item() == tag
        assert tag >= (self.tags or [0])[-1]
        self.tags.append(tag)
        return True

    def check_for(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.probe()


class ConformanceOfProcesses:
    """Facts that need processes, which may be stopped and killed."""

    kind: str

    def peers(
        self, folder: Path, num_ranks: int, **form: Any
    ) -> AbstractContextManager[tuple[Transport, list[Peer]]]:
        return peers(self.kind, folder, num_ranks, **form)

    def test_what_is_fetched_is_never_a_mixture(self, tmp_path: Path) -> None:
        with self.peers(tmp_path, 2, num_elements=NUM_ELEMENTS) as (transport, [writer]):
            writer.start("publish_without_end")
            watcher = Watcher(transport, 1)
            watcher.check_for(HAMMERING_SECONDS)
            eventually(lambda: watcher.probe() and len(set(watcher.tags)) > 10, "ten were fetched")

    def test_what_is_pushed_is_never_a_mixture(self, tmp_path: Path) -> None:
        with self.peers(tmp_path, 2, num_elements=NUM_ELEMENTS) as (transport, [writer]):
            writer.start("push_without_end")
            tags: list[int] = []

            def many_came() -> bool:
                for taken in transport.take_pushed():
                    assert taken.vector.min().item() == taken.vector.max().item() == taken.tag
                    assert taken.tag > (tags or [-1])[-1]
                    tags.append(taken.tag)
                return len(tags) >= 50

            eventually(many_came, "fifty pushes were taken")

    def test_a_writer_stopped_at_any_moment_leaves_a_whole_vector(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(5)
        with self.peers(tmp_path, 2, num_elements=NUM_ELEMENTS) as (transport, [writer]):
            writer.start("publish_without_end")
            watcher = Watcher(transport, 1)
            eventually(watcher.probe, "the first is here")
            for _ in range(20):
                watcher.check_for(rng.uniform(0, 0.02))
                writer.freeze()
                for _ in range(3):
                    assert watcher.probe()
                writer.thaw()

    @pytest.mark.parametrize("seed", range(3))
    def test_a_writer_killed_at_any_moment_leaves_a_whole_vector(self, tmp_path: Path, seed: int) -> None:
        rng = np.random.default_rng(seed)
        with self.peers(tmp_path, 2, num_elements=NUM_ELEMENTS) as (transport, [writer]):
            writer.start("publish_without_end")
            watcher = Watcher(transport, 1)
            eventually(watcher.probe, "the first is here")
            watcher.check_for(rng.uniform(0, 0.05))
            writer.kill()
            for _ in range(3):
                assert watcher.probe()

    @pytest.mark.parametrize("fate", ["freeze", "kill"])
    def test_a_frozen_or_dead_rank_stops_nobody(self, tmp_path: Path, fate: str) -> None:
        with self.peers(tmp_path, 3) as (transport, [sick, healthy]):
            healthy.start("serve", 50)
            sick.do("publish", 4)
            out = filled(0)
            eventually(lambda: transport.fetch(1, 0, out), "the sick one's is here")
            getattr(sick, fate)()
            for number in range(50):
                transport.post(np.full(24, float(number)))
                transport.push(1, filled(1), number)
                transport.ask(1, filled(1), number)
                assert transport.reply(1) is None
                assert transport.fetch(1, 0, out) == 4
                assert transport.ask(2, filled(number), number)
                reply = transport.reply(2, wait_seconds=30)
                assert reply is not None
                assert (reply.tag, reply.vector[0].item()) == (number + 1, number + 1)
            healthy.result()
            healthy.do("post", 3.0)
            eventually(lambda: transport.statuses()[2, 0] == 3, "the healthy one's standing is here")
            silent = transport.silent_seconds()
            assert silent[2] < silent[1]

    @pytest.mark.parametrize("fate", ["freeze", "kill"])
    def test_a_question_of_a_frozen_or_dead_rank_is_harmless(self, tmp_path: Path, fate: str) -> None:
        with self.peers(tmp_path, 3) as (transport, [sick, healthy]):
            assert sick.do("ask", 0, 7)
            request = request_of(transport)
            getattr(sick, fate)()
            answer_with(transport, request, 8, tag=8)
            assert healthy.do("ask", 0, 1)
            healthy.start("reply", 0)
            answer_with(transport, request_of(transport), 2, tag=2)
            assert healthy.result() == [2, 2, 2]
            if fate == "freeze":
                sick.thaw()
                assert sick.do("reply", 0) == [8, 8, 8]

    def test_a_frozen_rank_answers_when_it_thaws(self, tmp_path: Path) -> None:
        with self.peers(tmp_path, 2) as (transport, [server]):
            server.freeze()
            assert transport.ask(1, filled(3), 3)
            assert transport.reply(1, wait_seconds=0.05) is None
            assert transport.is_asked(1)
            server.thaw()
            server.start("serve", 1)
            reply = transport.reply(1, wait_seconds=30)
            assert reply is not None
            assert (reply.tag, reply.vector.unique().tolist()) == (4, [4.0])

    def test_a_frozen_rank_finds_the_newest_push_when_it_thaws(self, tmp_path: Path) -> None:
        with self.peers(tmp_path, 2, num_elements=NUM_ELEMENTS) as (transport, [receiver]):
            receiver.freeze()
            for tag in range(100):
                assert transport.push(1, filled(tag, num_elements=NUM_ELEMENTS), tag)
            receiver.thaw()
            assert receiver.do("take_until", 99)[-1] == 99

    def test_processes_that_are_killed_leave_no_file(self, tmp_path: Path) -> None:
        places = [Path("/dev/shm"), Path("/tmp")]

        def ours() -> list[str]:
            return [str(path) for place in places for path in place.glob("paceline-*")]

        before = ours()
        with self.peers(tmp_path, 3) as (_, all_peers):
            for peer in all_peers:
                peer.do("publish", 1)
                peer.kill()
        assert ours() == before

    def test_a_rank_busy_with_other_things_is_fetched_from(self, tmp_path: Path) -> None:
        with self.peers(tmp_path, 2) as (transport, [busy]):
            busy.do("publish", 1)
            busy.start("compute_until_stopped")
            out = torch.zeros(1000)
            eventually(lambda: transport.fetch(1, 0, out), "it is here")
            assert out.eq(1).all()
