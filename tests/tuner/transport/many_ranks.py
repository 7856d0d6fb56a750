"""Ranks for the tests of transports: several in one process, each with its own transport, or in processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from tuner.transport import MessageTransport, Transport
from tuner.transport.rendezvous import LOOPBACK

SECRET = "of the test"
KINDS = {
    "ipc": partial(MessageTransport, secret=SECRET, one_host=True),
    "tcp": partial(MessageTransport, secret=SECRET, host=LOOPBACK),
}
TIMEOUT_SECONDS = 60.0

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["torch", "torch.distributed", "zmq"])


def filled(value: float, *, num_elements: int = 1000, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.full((num_elements,), float(value), dtype=dtype)


def eventually(probe: Callable[[], Any], what: str) -> Any:
    """What `probe` gives as soon as that is something; a 0 is."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while True:
        found = probe()
        if found if isinstance(found, bool | np.bool_ | list) else found is not None:
            return found
        assert time.monotonic() < deadline, f"waited {TIMEOUT_SECONDS:g} s in vain until {what}"
        time.sleep(0.001)


def all_opened(
    kind: str, num_ranks: int, *, num_elements: int = 1000, dtype: torch.dtype = torch.float32
) -> list[Transport]:
    """Opens a job's transports, all in this process."""
    store = dist.HashStore()

    def opened(rank: int) -> Transport:
        return KINDS[kind](store, rank=rank, num_ranks=num_ranks, num_elements=num_elements, dtype=dtype)

    with ThreadPoolExecutor(num_ranks) as pool:
        return list(pool.map(opened, range(num_ranks)))


@contextmanager
def ranks(kind: str, num_ranks: int, **form: Any) -> Iterator[list[Transport]]:
    transports = all_opened(kind, num_ranks, **form)
    try:
        yield transports
    finally:
        for transport in transports:
            transport.close()


class Peer:
    """A rank in a process of its own, which does what it is told; frozen or killed at any moment."""

    def __init__(self, kind: str, path: Path, rank: int, num_ranks: int, num_elements: int) -> None:
        self.line, other = CONTEXT.Pipe()
        arguments = (other, kind, str(path), rank, num_ranks, num_elements)
        self.process = CONTEXT.Process(target=_obey, args=arguments, daemon=True)
        self.process.start()
        other.close()

    def start(self, deed: str, *arguments: Any) -> None:
        """Tells it to do one thing, and does not wait."""
        self.line.send((deed, *arguments))

    def result(self) -> Any:
        assert self.line.poll(TIMEOUT_SECONDS), "the peer does not answer"
        return self.line.recv()

    def do(self, deed: str, *arguments: Any) -> Any:
        self.start(deed, *arguments)
        return self.result()

    def freeze(self) -> None:
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()
        self.process.join(TIMEOUT_SECONDS)
        self.line.close()


@contextmanager
def peers(
    kind: str, folder: Path, num_ranks: int, *, num_elements: int = 1000
) -> Iterator[tuple[Transport, list[Peer]]]:
    """Rank 0 here, the others in processes of their own."""
    path = folder / "store"
    others = [Peer(kind, path, rank, num_ranks, num_elements) for rank in range(1, num_ranks)]
    transport = None
    try:
        transport = _joined(kind, str(path), 0, num_ranks, num_elements)
        yield transport, others
    finally:
        for other in others:
            other.kill()
        if transport is not None:
            transport.close()


def _joined(kind: str, path: str, rank: int, num_ranks: int, num_elements: int) -> Transport:
    store = dist.FileStore(path, num_ranks)
    return KINDS[kind](store, rank=rank, num_ranks=num_ranks, num_elements=num_elements, dtype=torch.float32)


def _obey(line: Connection, kind: str, path: str, rank: int, num_ranks: int, num_elements: int) -> None:
    torch.set_num_threads(1)
    try:
        deeds = Deeds(line, _joined(kind, path, rank, num_ranks, num_elements), num_elements)
        while True:
            deed, *arguments = line.recv()
            line.send(getattr(deeds, deed)(*arguments))
    except EOFError:
        # The test is over.
        sys.exit(0)


class Deeds:
    """What peers can be told to do."""

    def __init__(self, line: Connection, transport: Transport, num_elements: int) -> None:
        self.line = line
        self.transport = transport
        self.num_elements = num_elements

    def filled(self, value: float) -> torch.Tensor:
        return filled(value, num_elements=self.num_elements)

    def publish(self, value: int) -> None:
        self.transport.publish(0, self.filled(value), value)

    def publish_without_end(self) -> None:
        """Published vectors are filled with their tags; 0, 1, 2, ... until told something else."""
        vector = self.filled(0)
        tag = 0
        while not self.line.poll():
            self.transport.publish(0, vector.fill_(tag), tag)
            tag += 1

    def push_without_end(self) -> None:
        vector = self.filled(0)
        tag = 0
        while not self.line.poll():
            self.transport.push(0, vector.fill_(tag), tag)
            tag += 1

    def take_until(self, tag: int) -> list[int]:
        """The tags of what was pushed here, up to one."""
        tags: list[int] = []
        while tags[-1:] != [tag]:
            tags.extend(taken.tag for taken in self.transport.take_pushed())
            time.sleep(0.001)
        return tags

    def compute_until_stopped(self) -> None:
        matrix = torch.eye(100)
        while not self.line.poll():
            matrix = matrix @ matrix

    def ask(self, rank: int, value: int) -> bool:
        return self.transport.ask(rank, self.filled(value), value)

    def reply(self, rank: int) -> list[float] | None:
        found = self.transport.reply(rank, wait_seconds=TIMEOUT_SECONDS)
        return None if found is None else [found.vector.min().item(), found.vector.max().item(), found.tag]

    def serve(self, num_requests: int) -> None:
        """Answers with one more than it is asked."""
        for _ in range(num_requests):
            request = self.transport.next_request(wait_seconds=TIMEOUT_SECONDS)
            assert request is not None
            self.transport.answer(
                request, lambda out, asked=request.vector: torch.add(asked, 1, out=out), request.tag + 1
            )

    def post(self, value: float) -> None:
        self.transport.post(filled(value, num_elements=24).double().numpy())

    def close(self) -> None:
        self.transport.close()
