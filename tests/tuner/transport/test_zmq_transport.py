"""Messages do what the contract says, over TCP and over Unix sockets; so does what tests use instead."""

from __future__ import annotations

import gc
import threading
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import zmq

from tests.tuner.transport.conformance import ConformanceInOneProcess
from tests.tuner.transport.many_ranks import SECRET, eventually, filled, peers, ranks
from tests.tuner.transport.process_conformance import ConformanceOfProcesses
from tuner.transport import MessageTransport, Transport
from tuner.transport.job_keys import JobKeys
from tuner.transport.messages import Arrivals, Kind, Message
from tuner.transport.rendezvous import LOOPBACK, is_loopback, own_address
from tuner.transport.transport import VectorForm
from tuner.transport.zmq_io_thread import IoThread


class MessagesInOneProcess(ConformanceInOneProcess):
    def until_asked(self, server: Transport, num_requests: int) -> None:
        assert isinstance(server, MessageTransport)
        questions = server._arrivals._questions
        eventually(lambda: questions.qsize() >= num_requests, "the question is here")


class TestUnixSocketsInOneProcess(MessagesInOneProcess):
    kind = "ipc"


class TestTcpInOneProcess(MessagesInOneProcess):
    kind = "tcp"


class TestUnixSocketsBetweenProcesses(ConformanceOfProcesses):
    kind = "ipc"


class TestTcpBetweenProcesses(ConformanceOfProcesses):
    kind = "tcp"


def test_a_vector_of_several_frames_arrives_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuner.transport.zmq_io_thread.ENCRYPTED_FRAME_BYTES", 1001)
    vector, out = torch.arange(1000.0), filled(0)
    with ranks("tcp", 2) as two:
        two[1].publish(0, vector, 1)
        eventually(lambda: two[0].fetch(1, 0, out), "it is here")
    assert torch.equal(out, vector)


def test_frames_that_are_not_one_vector_are_dropped() -> None:
    form = VectorForm(num_elements=1000, dtype=torch.float32)
    parts = Message(kind=Kind.PUSHED, rank=0, vector=filled(1)).parts(1001)
    assert len(parts) == 1 + 4
    for wrong in (parts[:-1], [*parts, parts[-1]], parts[1:]):
        assert Message.parsed([zmq.Frame(bytes(part)) for part in wrong], 0, form) is None


def test_what_was_prefetched_is_at_hand() -> None:
    with ranks("ipc", 2) as two:
        two[0].prefetch(1, 0)
        two[1].publish(0, filled(1), 1)
        eventually(lambda: two[0].moved_bytes == 4000, "it came without being fetched")
        assert two[0].fetch(1, 0, filled(0)) == 1


def test_one_fetch_is_under_way_for_a_rank_and_channel() -> None:
    with ranks("ipc", 2) as two:
        for _ in range(100):
            two[0].fetch(1, 0, filled(0))
            two[0].prefetch(1, 0)
        two[1].publish(0, filled(1), 1)
        eventually(lambda: two[0].fetch(1, 0, filled(0)), "it is here")
        two[0].push(1, filled(2), 2)
        # By now whatever else was under way would have come.
        eventually(two[1].take_pushed, "the push is here")
        assert two[0].moved_bytes == 2 * 4000


def test_a_frozen_peer_costs_bounded_memory(tmp_path: Path) -> None:
    num_elements = 200_000
    with peers("ipc", tmp_path, 2, num_elements=num_elements) as (transport, [peer]):
        assert isinstance(transport, MessageTransport)
        peer.do("publish", 1)
        peer.freeze()
        vector = filled(1, num_elements=num_elements)
        for tag in range(300):
            transport.push(1, vector, tag)
            transport.publish(0, vector, tag)
            transport.ask(1, vector, tag)
            transport.prefetch(1, 0)
        # One pushed and under way, one that waits, one asked, one published, and some in the making.
        alive = [one for one in gc.get_objects() if type(one) is torch.Tensor]
        assert sum(one.numel() == num_elements for one in alive) < 12


def test_a_status_that_was_missed_is_sent_again() -> None:
    with ranks("ipc", 2) as two:
        assert isinstance(two[0], MessageTransport)
        board = two[0]._io_thread.status_table
        two[1].post(filled(5, num_elements=24).double().numpy())
        eventually(lambda: two[0].statuses()[1, 0] == 5, "it is here")
        # As if the first message had been lost.
        board._counts[1] = 0
        board._statuses[1] = 0
        eventually(lambda: two[0].statuses()[1, 0] == 5, "it is here again")


def test_a_status_posted_just_before_the_end_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    with ranks("ipc", 2) as two:
        assert isinstance(two[1], MessageTransport)
        two[1].post(filled(5, num_elements=24).double().numpy())
        eventually(lambda: two[0].statuses()[1, 0] == 5, "it is here")
        # As if the rank ended sooner after a status than it may send the next one.
        monkeypatch.setattr(two[1]._io_thread.status_table, "_min_seconds", 30.0)
        two[1].post(filled(6, num_elements=24).double().numpy())
        two[1].close()
        eventually(lambda: two[0].statuses()[1, 0] == 6, "the last one is here")


@pytest.mark.slow
def test_a_rank_ends_even_if_zeromq_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    may_end, term = threading.Event(), zmq.Context.term

    def hang(context: zmq.Context[zmq.Socket[bytes]]) -> None:
        may_end.wait()
        term(context)

    monkeypatch.setattr(zmq.Context, "term", hang)
    with ranks("ipc", 2) as two:
        for transport in two:
            closing = threading.Thread(target=transport.close, daemon=True)
            closing.start()
            closing.join(30.0)
            assert not closing.is_alive()
        may_end.set()
    for thread in threading.enumerate():
        if thread.name.startswith("term-"):
            thread.join()


def test_a_status_posted_again_is_no_sign_of_life() -> None:
    with ranks("ipc", 2) as two:
        two[1].post(filled(5, num_elements=24).double().numpy())
        eventually(lambda: two[0].statuses()[1, 0] == 5, "it is here")
        silent = [two[0].silent_seconds()[1]]
        for _ in range(20):
            time.sleep(0.01)
            silent.append(two[0].silent_seconds()[1])
        assert silent == sorted(silent)


def test_a_failure_of_the_io_thread_is_reported_to_its_rank() -> None:
    with ranks("ipc", 2) as two:
        assert isinstance(two[0], MessageTransport)
        two[0]._io_thread.failure = OSError("out of descriptors")
        with pytest.raises(Exception, match="sends messages to other ranks has failed"):
            two[0].publish(0, filled(1), 1)


def test_the_address_is_that_of_the_way_to_the_store() -> None:
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    assert own_address(dist.PrefixStore("job", store)) == "127.0.0.1"


def test_there_is_an_address_without_a_way_to_the_store() -> None:
    address = own_address(dist.HashStore())
    assert address.count(".") == 3


@pytest.mark.parametrize(
    ("host", "inwards"),
    [("127.0.1.1", True), ("::1", True), ("localhost", True), ("10.0.0.7", False), ("node7", False)],
)
def test_a_loopback_address_is_known(host: str, inwards: bool) -> None:
    assert is_loopback(host) is inwards


@pytest.mark.parametrize("before", [True, False])
def test_an_end_that_comes_while_wake_ups_are_read_is_not_lost(
    before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = VectorForm(num_elements=1, dtype=torch.float32)
    thread = IoThread(
        rank=0,
        num_ranks=1,
        host=LOOPBACK,
        keys=JobKeys(SECRET),
        form=form,
        arrivals=Arrivals(lambda: None),
    )
    wake_up_socket = thread._wake_up_socket

    class ClosedWithin:
        """A wake-up socket: the thread is asked to end just before, or just after, the socket is read."""

        def recv(self, size: int) -> bytes:
            if before:
                thread._is_closing = True
                thread.wake()
            found = wake_up_socket.recv(size)
            if not before:
                thread._is_closing = True
                thread.wake()
            return found

    thread.wake()
    with monkeypatch.context() as patched:
        patched.setattr(thread, "_wake_up_socket", ClosedWithin())
        is_last = thread._send_outbox()
    # Either it is noticed now, or another wake-up follows by which it is.
    if not is_last:
        assert wake_up_socket.recv(1) == b"!"
        is_last = thread._send_outbox()
    assert is_last
    thread.stop()
