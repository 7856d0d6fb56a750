"""Gossip in pairs: two ranks move to their average, without a barrier and without deadlock (AD-PSGD)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tuner.strategies.asynchronous import PeerRule
from tuner.strategies.rules import pair_move


class GossipPairs(PeerRule):
    """At an exchange, two ranks move to the average of their parameters.

    An active rank i sends a request with theta_i. A passive rank j handles it between two of its own steps:
    with d = (theta_j - theta_i) / 2, rank j subtracts d from its parameters and replies with d. Rank i adds d
    when the reply arrives, even if it has made steps in the meantime. One rank subtracts what the other adds,
    so the exchange does not change the mean of both ranks, however late the reply is (Lian et al. 2018).

    - Every tau steps, a rank is active with probability 1/2. As an active or a passive rank, it takes part in
      one exchange per tau steps on average, and all pairs of ranks are equally likely.
    - No rank waits for a reply, so two ranks that send requests to each other do not deadlock.
    """

    def start(self) -> None:
        self._asked: set[int] = set()
        self._ages: list[float] = []

    def exchange(self, step: int) -> float | None:
        if self.rng.random() < 0.5:
            others = [rank for rank in self.links.live_ranks() if rank != self.links.rank]
            if others:
                peer = self.draw(others)
                if self.transport.ask(peer, self.plain(), step):
                    self._asked.add(peer)
        ages, self._ages = self._ages, []
        return float(np.mean(ages)) if ages else None

    def attend(self, step: int) -> bool:
        while (request := self.transport.next_request()) is not None:
            self.transport.answer(request, partial(self._meet, request.vector), step)
            self._ages.append(float(max(0, step - request.tag)))
        for peer in sorted(self._asked):
            answer = self.transport.reply(peer)
            if answer is not None:
                self._asked.discard(peer)
                self.flat.vector.add_(answer.vector.to(self.flat.vector.device))
                self._ages.append(float(max(0, step - answer.tag)))
        return not self._asked & set(self.links.live_ranks())

    def _meet(self, active: Tensor, message: Tensor) -> None:
        """Moves this rank to the average with an active rank, and writes d, the change of the active rank.

        Args:
            active: Parameters of the active rank.
            message: Vector of the reply, overwritten by the change that the active rank adds.
        """
        plain = self.plain()
        on_host = plain.device.type == "cpu"
        move = pair_move(active.to(plain.device), plain, out=message if on_host else torch.empty_like(plain))
        self.flat.vector.sub_(move)
        if not on_host:
            message.copy_(move)

    def state(self) -> dict[str, Any]:
        """Returns the state of the random generator, and the ranks that have not replied yet."""
        return {"generator": dict(self.rng.bit_generator.state), "asked": sorted(self._asked)}

    def load(self, state: Mapping[str, Any], *, of_all: Sequence[Mapping[str, Any]], is_twin: bool) -> None:
        if not is_twin:
            self.rng.bit_generator.state = dict(state["generator"])
            self._asked = set(state.get("asked", ()))
