"""Rank functions that time messages between two ranks: a question and its answer, both vectors."""

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

#: Longer than any message takes, seconds.
_LONGEST_SECONDS = 30.0
#: Questions of each size that come before those that count.
_FIRST = 3


def time_messages(context: RankContext, payload: Mapping[str, Any]) -> dict[str, Any]:
    """Times questions with their answers from rank 0 to rank 1, sizes in alternation.

    Args:
        context: The rank's place, of two.
        payload: `plan` (`CalibrationPlan.to_payload`), `sizes`, bytes, and `one_host`: whether the ranks are
            on one host.

    Returns:
        By round, size and exchange, seconds of rank 0; of rank 1 nothing.
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
    """Seconds of some questions, of the rank that asks; the other one answers as many."""
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
            raise RuntimeError(f"no answer from rank 1 within {_LONGEST_SECONDS:g} s")
        seconds.append(time.perf_counter() - began)
    return seconds


def _requests(transport: Transport, count: int) -> Iterator[Received]:
    for _ in range(count):
        request = transport.next_request(wait_seconds=_LONGEST_SECONDS)
        if request is None:
            raise RuntimeError(f"no question from rank 0 within {_LONGEST_SECONDS:g} s")
        yield request


def _returning(question: Tensor, message: Tensor) -> None:
    message.copy_(question)
