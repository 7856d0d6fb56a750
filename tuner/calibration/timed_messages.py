"""Function that two ranks run during a calibration: it times a request with a vector until the reply."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tuner.calibration.plan import CalibrationPlan
from tuner.launchers import RankContext
from tuner.transport import MessageTransport, Received, Transport
from tuner.transport.rendezvous import PrefixStore, meeting_store

#: How long a rank waits for a message before it fails, seconds.
_LONGEST_SECONDS = 30.0
_CHECK_NETWORK = "check that the nodes can open TCP connections to each other"
#: Number of requests of each size before the timed ones.
_FIRST = 3


def time_messages(context: RankContext, payload: Mapping[str, Any]) -> dict[str, Any]:
    """Times requests from rank 0 to rank 1 until their reply arrives, with alternating sizes.

    Args:
        context: Rank context of the launcher; there must be two ranks.
        payload: `plan` (result of `CalibrationPlan.to_payload`), `sizes` (sizes of the vectors, in bytes) and
            `one_host` (whether both ranks are on one host).

    Returns:
        `rounds`: seconds on rank 0, indexed by round, size and repetition; empty on rank 1.
    """
    plan, sizes = CalibrationPlan.from_payload(payload["plan"]), payload["sizes"]
    store = meeting_store(context.init_method, rank=context.rank, num_ranks=context.num_ranks)
    with ExitStack() as stack:
        transports = []
        for size in sizes:
            transport = MessageTransport(
                PrefixStore(f"calibration/{size}", store),
                rank=context.rank,
                num_ranks=context.num_ranks,
                num_elements=size // 4,
                dtype=torch.float32,
                secret=context.secret,
                one_host=payload["one_host"],
            )
            transports.append(stack.enter_context(closing(transport)))
        vectors = [torch.zeros(size // 4) for size in sizes]
        for transport, vector in zip(transports, vectors, strict=True):
            _exchange(context.rank, transport, vector, _FIRST, plan.effort.pause_seconds)
        rounds = []
        for number in range(plan.effort.rounds):
            rounds.append(
                [
                    _exchange(
                        context.rank, transport, vector, plan.effort.exchanges, plan.effort.pause_seconds
                    )
                    for transport, vector in zip(transports, vectors, strict=True)
                ]
            )
            context.send({"round": number})
    return {"rounds": rounds if context.rank == 0 else []}


def _exchange(
    rank: int, transport: Transport, vector: Tensor, count: int, pause_seconds: float
) -> list[float]:
    """Sends requests from rank 0 to rank 1, one after the other, and waits for each reply.

    Args:
        rank: This rank: 0 sends the requests, 1 replies to them.
        transport: Connects the two ranks.
        vector: Vector to send with each request.
        count: Number of requests.
        pause_seconds: Pause before each request.

    Returns:
        Seconds from each request to its reply, on rank 0; empty on rank 1.
    """
    if rank != 0:
        for request in _requests(transport, count):
            transport.answer(request, partial(_returning, request.vector), request.tag)
        return []
    seconds = []
    for number in range(count):
        time.sleep(pause_seconds)
        began = time.perf_counter()
        transport.ask(1, vector, number)
        if transport.reply(1, wait_seconds=_LONGEST_SECONDS) is None:
            raise RuntimeError(
                f"rank 0 received no reply from rank 1 within {_LONGEST_SECONDS:g} s; {_CHECK_NETWORK}"
            )
        seconds.append(time.perf_counter() - began)
    return seconds


def _requests(transport: Transport, count: int) -> Iterator[Received]:
    for _ in range(count):
        request = transport.next_request(wait_seconds=_LONGEST_SECONDS)
        if request is None:
            raise RuntimeError(
                f"rank 1 received no request from rank 0 within {_LONGEST_SECONDS:g} s; {_CHECK_NETWORK}"
            )
        yield request


def _returning(question: Tensor, message: Tensor) -> None:
    message.copy_(question)
