"""Ranks of a strategy in one process, driven step by step in a fixed order: nothing is left to chance."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from search_spaces import AxisValue
from tests.tuner.transport.direct_transport import direct_transports
from tuner.strategies import Exchange, Links, Share, Strategy, strategy
from tuner.transport import MessageTransport, Transport

LEARNING_RATE = 0.1


class Point(nn.Module):
    """A model that is nothing but its parameters, in two pieces."""

    def __init__(self, num_parameters: int) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.zeros(num_parameters - 2))
        self.second = nn.Parameter(torch.zeros(2))


class Rank:
    """One rank: model, optimizer, strategy, and noise for gradients.

    Args:
        name: Of the strategy.
        knobs: Its knobs.
        transport: To the others; None for one that is alone.
        rank: Its place.
        num_ranks: All of them.
        num_parameters: Of the model.
        optimizer: Keywords of `torch.optim.SGD` besides the rate.
    """

    def __init__(
        self,
        name: str,
        knobs: Mapping[str, AxisValue],
        transport: Transport | None,
        rank: int,
        num_ranks: int,
        num_parameters: int,
        optimizer: Mapping[str, Any],
    ) -> None:
        self.rank, self.num_ranks = rank, num_ranks
        self.model = Point(num_parameters)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=LEARNING_RATE, **optimizer)
        self.strategy: Strategy = strategy(name, knobs)
        links = Links(
            rank=rank, num_ranks=num_ranks, transport=transport, live_ranks=lambda: range(num_ranks)
        )
        self.strategy.attach(self.model, self.optimizer, links, np.random.default_rng((7, rank)))
        self.steps = 0

    @property
    def theta(self) -> Tensor:
        """Parameters as the optimizer keeps them."""
        return torch.cat([p.detach().flatten() for p in self.model.parameters()])

    def step(self) -> Exchange:
        """One step on noise that depends on rank and step alone."""
        generator = torch.Generator().manual_seed(1000 * self.steps + self.rank)
        share = Share(batch_size=8 * self.num_ranks, num_ranks=self.num_ranks, num_samples=8)
        self.strategy.before_step(share)
        for parameter in self.model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        self.strategy.after_backward()
        self.optimizer.step()
        self.strategy.after_step()
        self.steps += 1
        (exchange,) = self.strategy.exchanges()
        return exchange

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of it."""
        return {
            "model": {name: value.clone() for name, value in self.model.state_dict().items()},
            "optimizer": copy.deepcopy(self.optimizer.state_dict()),
            "strategy": copy.deepcopy(self.strategy.state()),
            "steps": self.steps,
        }

    def load(self, state: Mapping[str, Any], of_all: Sequence[Mapping[str, Any]] = ()) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.strategy.load(state["strategy"], of_all=of_all)
        self.steps = state["steps"]


@contextmanager
def ranks_of(
    name: str,
    num_ranks: int,
    *,
    num_parameters: int = 50,
    optimizer: Mapping[str, Any] | None = None,
    by_messages: bool = False,
    **knobs: AxisValue,
) -> Iterator[list[Rank]]:
    """Ranks of a strategy, with transports between them: messages take time, or all arrives at once."""
    transports: list[Any] = [None]
    if num_ranks > 1 and not by_messages:
        transports = list(direct_transports(num_ranks, num_parameters))
    elif num_ranks > 1:
        store = dist.HashStore()

        def opened(rank: int) -> Transport:
            return MessageTransport(
                store,
                rank=rank,
                num_ranks=num_ranks,
                num_elements=num_parameters,
                dtype=torch.float32,
                secret="of the test",
                one_host=True,
            )

        with ThreadPoolExecutor(num_ranks) as pool:
            transports = list(pool.map(opened, range(num_ranks)))
    ranks = [
        Rank(name, knobs, transport, rank, num_ranks, num_parameters, optimizer or {})
        for rank, transport in enumerate(transports)
    ]
    try:
        yield ranks
    finally:
        for rank, transport in zip(ranks, transports, strict=True):
            rank.strategy.close()
            if transport is not None:
                transport.close()


def settle(ranks: list[Rank]) -> None:
    """Lets everything that is under way arrive."""
    for _ in range(100):
        # Every rank attends, also where an earlier one is not settled.
        settled = [rank.strategy.attend() for rank in ranks]
        if all(settled):
            return
    raise AssertionError("something stays under way")


def rounds(ranks: list[Rank], count: int) -> list[list[Exchange]]:
    """Makes so many steps of every rank, one rank after the other."""
    return [[rank.step() for rank in ranks] for _ in range(count)]
