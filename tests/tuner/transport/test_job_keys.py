"""Nobody but the ranks of a job gets a message through to them, or an address into what they read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
import torch
import torch.distributed as dist
import zmq

from tests.tuner.transport.many_ranks import KINDS, SECRET, eventually, filled, ranks
from tuner.domain.errors import TunerError
from tuner.transport import MessageTransport, Transport
from tuner.transport.job_keys import JobKeys
from tuner.transport.messages import Kind, Message

#: A stranger on this host: connects to argv[1] as rank 1, under another user's number if argv[2] is one.
STRANGER = """
import os, sys, time
import zmq
if sys.argv[2]:
    os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))
posing = zmq.Context().socket(zmq.DEALER)
posing.identity = b"1"
posing.connect(sys.argv[1])
posing.send_multipart([bytes.fromhex(sys.argv[3]), bytes(4000)])
print("sent", flush=True)
time.sleep(60)
"""


def push_of_rank_1() -> list[bytes]:
    """The frames of a push that rank 1 might send to rank 0."""
    return [
        bytes(part) for part in Message(kind=Kind.PUSHED, rank=0, number=9, vector=filled(1e6)).parts(4000)
    ]


def endpoint_of(transport: Transport) -> str:
    assert isinstance(transport, MessageTransport)
    return transport._io_thread.endpoint


def has_refused(transport: Transport) -> bool:
    assert isinstance(transport, MessageTransport)
    return transport._io_thread._has_refused


@contextmanager
def posing_as_rank_1(endpoint: str, keys: JobKeys | None) -> Iterator[zmq.Socket[bytes]]:
    context = zmq.Context()
    posing = context.socket(zmq.DEALER)
    posing.identity, posing.linger = b"1", 0
    if keys is None:
        posing.connect(endpoint)
    else:
        keys.connect(posing, endpoint)
    try:
        yield posing
    finally:
        posing.close()
        context.term()


@pytest.mark.parametrize("keys", [None, JobKeys("of another job")], ids=["no key", "another job"])
def test_a_stranger_on_the_network_is_refused_and_reported_once(
    keys: JobKeys | None, capfd: pytest.CaptureFixture[str]
) -> None:
    with ranks("tcp", 2) as two:
        for _ in range(3):
            with posing_as_rank_1(endpoint_of(two[0]), keys) as posing:
                # A connection that is refused before the message is sent leaves nobody to send it to.
                with suppress(zmq.Again):
                    posing.send_multipart(push_of_rank_1(), zmq.NOBLOCK)
                eventually(lambda: has_refused(two[0]), "the refusal is reported")
        two[1].push(0, filled(2), 7)
        pushed = eventually(two[0].take_pushed, "the push of the true rank 1")
        assert [push.tag for push in pushed] == [7]
    printed = capfd.readouterr().err
    assert printed.count("refused a process") == 1
    assert f"rank 0 refused a process that connected to {endpoint_of(two[0])}" in printed


def test_a_process_with_the_secret_of_the_job_is_heard() -> None:
    """So the other tests show that the keys refuse a stranger, and not a mistake of the stranger."""
    with ranks("tcp", 3) as three:
        three[1].close()
        with posing_as_rank_1(endpoint_of(three[0]), JobKeys(SECRET)) as posing:
            posing.send_multipart(push_of_rank_1())
            pushed = eventually(three[0].take_pushed, "the push is here")
    assert [push.sender for push in pushed] == [1]


@pytest.mark.skipif(sys.platform != "linux" or os.getuid() != 0, reason="needs root, to become another user")
def test_another_user_of_the_host_cannot_connect_to_a_unix_socket() -> None:
    with ranks("ipc", 2) as two:
        head = push_of_rank_1()[0].hex()
        stranger = subprocess.Popen(
            [sys.executable, "-c", STRANGER, endpoint_of(two[0]), "65534", head], stdout=subprocess.PIPE
        )
        try:
            assert stranger.stdout is not None
            assert stranger.stdout.readline() == b"sent\n"
            eventually(lambda: has_refused(two[0]), "the refusal is reported")
            assert two[0].take_pushed() == []
        finally:
            stranger.kill()
            stranger.communicate()


@pytest.mark.parametrize("value", ["", '["tcp://127.0.0.1:1", "tcp://127.0.0.1:2"]', "of rank 0"])
def test_an_address_that_a_stranger_wrote_into_the_store_is_an_error(value: str) -> None:
    """Whoever can write into the store may write without the secret, or copy what another rank wrote."""
    store = dist.HashStore()
    card = json.dumps(["tcp://127.0.0.1:1", "tcp://127.0.0.1:2"])
    signed = JobKeys(SECRET).signed(0, card) if value == "of rank 0" else value
    store.set("paceline/messages/addresses/1", signed)
    with pytest.raises(TunerError, match="address of rank 1 that this rank did not sign"):
        KINDS["tcp"](store, rank=0, num_ranks=2, num_elements=10, dtype=torch.float32)


def test_what_a_rank_signed_is_read_as_it_was() -> None:
    keys = JobKeys(SECRET)
    assert keys.verified(3, keys.signed(3, "text: é")) == "text: é"


def test_there_are_no_keys_without_a_secret() -> None:
    with pytest.raises(ValueError, match="must not be empty"):
        JobKeys("")
