"""Gossip by pushing: send to a random peer, average with all that arrived (Jin et al. 2016)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tuner.strategies.flat import FlatParameters
from tuner.strategies.peer_rule import PeerRule, generator_state, set_generator_state
from tuner.strategies.rules import pushed
from tuner.strategies.strategy import Links


class GossipPush(PeerRule):
    """Step, send theta to j drawn over all ranks, itself included, average own with all that arrived.

    (theta + sum of received) / (1 + number received), the own weight being 2 where the rank drew itself. A
    message that its receiver has not taken yet is replaced by the sender's next, so that one that is slow
    finds the newest of each, and one that died costs nothing. Ranks that fell silent are not drawn.

    Args:
        tau: Steps between exchanges.
    """

    exchanges_before_step = False

    def __init__(self, tau: int) -> None:
        self._tau = tau

    def meet(self, flat: FlatParameters, links: Links, rng: np.random.Generator) -> None:
        assert links.transport is not None
        self._flat, self._links, self._rng, self._transport = flat, links, rng, links.transport
        self._plain = torch.empty_like(flat.vector)
        self._move = torch.empty_like(flat.vector)
        #: Messages that were taken for a checkpoint, by sender: they wait for the next exchange.
        self._pending: dict[int, tuple[int, Tensor]] = {}

    def exchange(self, step: int) -> float | None:
        plain = self._flat.plain(self._plain)
        live = self._links.live_ranks()
        peer = int(live[int(self._rng.integers(len(live)))])
        drew_itself = peer == self._links.rank
        if not drew_itself:
            self._transport.push(peer, plain, step)
        newest = {**self._pending, **{r.sender: (r.tag, r.vector) for r in self._transport.take_pushed()}}
        arrived, self._pending = [newest[sender] for sender in sorted(newest)], {}
        if not arrived:
            return None
        vectors = [vector.to(plain.device) for _, vector in arrived]
        self._flat.vector.add_(pushed(plain, vectors, own_weight=1 + drew_itself, out=self._move))
        return float(np.mean([max(0, step - tag) for tag, _ in arrived]))

    def attend(self, step: int) -> bool:
        return True

    def score_vector(self) -> Tensor:
        return self._flat.plain(self._plain)

    def state(self) -> dict[str, Any]:
        """The peer generator, and the messages that have arrived and wait for the next exchange."""
        self._pending |= {r.sender: (r.tag, r.vector.clone()) for r in self._transport.take_pushed()}
        return {"generator": generator_state(self._rng), "arrived": dict(self._pending)}

    def load(self, state: Mapping[str, Any], *, of_all: Sequence[Mapping[str, Any]], is_twin: bool) -> None:
        if not is_twin:
            set_generator_state(self._rng, state["generator"])
            self._pending = dict(state["arrived"])

    def close(self) -> None:
        """Nothing runs concurrently with the training."""
