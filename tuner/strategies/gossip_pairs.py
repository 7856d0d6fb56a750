"""Gossip in pairs: atomic averages of two ranks, without a barrier and without deadlock (AD-PSGD)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tuner.strategies.flat import FlatParameters
from tuner.strategies.peer_rule import PeerRule, generator_state, set_generator_state
from tuner.strategies.rules import pair_move
from tuner.strategies.strategy import Links


class GossipPairs(PeerRule):
    """An active rank sends theta_i; a passive one, between its steps, moves both to their average.

    With d = (theta_j - theta_i) / 2 the passive j subtracts d and answers with it; the active i adds it once
    it arrives, on top of the steps made since: the mean of both is exact at any delay (Lian et al. 2018). A
    rank draws its role at each exchange, so that each takes part in one exchange every tau steps on average
    and every pair is as likely; nobody waits for an answer, so two that ask each other do not deadlock, and
    a slow passive only makes its answers late.

    Args:
        tau: Steps between exchanges.
    """

    exchanges_before_step = True

    def __init__(self, tau: int) -> None:
        self._tau = tau

    def meet(self, flat: FlatParameters, links: Links, rng: np.random.Generator) -> None:
        assert links.transport is not None
        self._flat, self._links, self._rng, self._transport = flat, links, rng, links.transport
        self._plain = torch.empty_like(flat.vector)
        self._asked: set[int] = set()
        self._ages: list[float] = []

    def exchange(self, step: int) -> float | None:
        if self._rng.random() < 0.5:
            others = [rank for rank in self._links.live_ranks() if rank != self._links.rank]
            if others:
                peer = int(others[int(self._rng.integers(len(others)))])
                if self._transport.ask(peer, self._flat.plain(self._plain), step):
                    self._asked.add(peer)
        ages, self._ages = self._ages, []
        return float(np.mean(ages)) if ages else None

    def attend(self, step: int) -> bool:
        while (request := self._transport.next_request()) is not None:
            self._transport.answer(request, partial(self._meet, request.vector), step)
            self._ages.append(float(max(0, step - request.tag)))
        for peer in sorted(self._asked):
            answer = self._transport.reply(peer)
            if answer is not None:
                self._asked.discard(peer)
                self._flat.vector.add_(answer.vector.to(self._flat.vector.device))
                self._ages.append(float(max(0, step - answer.tag)))
        live = set(self._links.live_ranks())
        return not self._asked & live

    def _meet(self, active: Tensor, message: Tensor) -> None:
        """Moves this rank to the average with an active one, and writes that one's move into the message."""
        plain = self._flat.plain(self._plain)
        on_host = plain.device.type == "cpu"
        move = pair_move(active.to(plain.device), plain, out=message if on_host else torch.empty_like(plain))
        self._flat.vector.sub_(move)
        if not on_host:
            message.copy_(move)

    def score_vector(self) -> Tensor:
        return self._flat.plain(self._plain)

    def state(self) -> dict[str, Any]:
        """The peer generator, and who has not answered yet: nobody, once `attend` said so."""
        return {"generator": generator_state(self._rng), "asked": sorted(self._asked)}

    def load(self, state: Mapping[str, Any], *, of_all: Sequence[Mapping[str, Any]], is_twin: bool) -> None:
        if not is_twin:
            set_generator_state(self._rng, state["generator"])
            self._asked = set(state.get("asked", ()))

    def close(self) -> None:
        """Nothing runs concurrently with the training."""
