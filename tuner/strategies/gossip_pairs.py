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
    """An active rank i sends theta_i; a passive rank j moves both to their average between its steps.

    With d = (theta_j - theta_i) / 2, j subtracts d and answers with it; i adds d when it arrives, on top of
    the steps made since. So the mean of both is exact at any delay (Lian et al. 2018). A rank draws its role
    at each exchange, so it takes part in one exchange every tau steps on average, and every pair is equally
    likely. No rank waits for an answer, so two that ask each other do not deadlock.
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
        """Moves this rank to the average with an active one, and writes that rank's move into the message."""
        plain = self.plain()
        on_host = plain.device.type == "cpu"
        move = pair_move(active.to(plain.device), plain, out=message if on_host else torch.empty_like(plain))
        self.flat.vector.sub_(move)
        if not on_host:
            message.copy_(move)

    def state(self) -> dict[str, Any]:
        """The generator of peers, and the ranks that have not answered yet."""
        return {"generator": dict(self.rng.bit_generator.state), "asked": sorted(self._asked)}

    def load(self, state: Mapping[str, Any], *, of_all: Sequence[Mapping[str, Any]], is_twin: bool) -> None:
        if not is_twin:
            self.rng.bit_generator.state = dict(state["generator"])
            self._asked = set(state.get("asked", ()))
