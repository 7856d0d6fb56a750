"""Gossip by pulling: average with what a random peer published last (Jin et al. 2016)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tuner.strategies.flat import FlatParameters
from tuner.strategies.peer_rule import PARAMETERS_CHANNEL, PeerRule, generator_state, set_generator_state
from tuner.strategies.rules import pulled
from tuner.strategies.strategy import Links


class GossipPull(PeerRule):
    """Publish theta, draw j over all ranks, itself included, theta <- (theta + theta_j) / 2.

    theta_j is what j published at its own last exchange, so nobody is waited for, and j does nothing.
    The next peer is drawn one exchange ahead, so that its parameters can travel while a step computes.
    Ranks that fell silent are not drawn: their parameters would pull everybody back.

    Args:
        tau: Steps between exchanges.
    """

    exchanges_before_step = True

    def __init__(self, tau: int) -> None:
        self._tau = tau

    def meet(self, flat: FlatParameters, links: Links, rng: np.random.Generator) -> None:
        assert links.transport is not None
        self._flat, self._links, self._rng, self._transport = flat, links, rng, links.transport
        self._other = torch.empty_like(flat.vector, device="cpu")
        self._plain = torch.empty_like(flat.vector)
        self._next, self._is_coming = self._draw(), False
        self._transport.publish(PARAMETERS_CHANNEL, flat.plain(self._plain), 0)

    def exchange(self, step: int) -> float | None:
        plain = self._flat.plain(self._plain)
        self._transport.publish(PARAMETERS_CHANNEL, plain, step)
        peer, self._next, self._is_coming = self._next, self._draw(), False
        tag = None
        if peer != self._links.rank:
            tag = self._transport.fetch(peer, PARAMETERS_CHANNEL, self._other)
        if self._tau == 1:
            self._prefetch()
        if tag is None:
            return None
        other = self._other.to(plain.device)
        self._flat.vector.add_(pulled(plain, other, out=other))
        return float(max(0, step - tag))

    def attend(self, step: int) -> bool:
        if (step + 1) % self._tau == 0:
            self._prefetch()
        return True

    def score_vector(self) -> Tensor:
        return self._flat.plain(self._plain)

    def state(self) -> dict[str, Any]:
        """The peer generator, the next peer, and what others may pull until the next exchange."""
        tag = self._transport.fetch(self._links.rank, PARAMETERS_CHANNEL, self._other)
        return {
            "generator": generator_state(self._rng),
            "next": self._next,
            "published": self._other.clone(),
            "tag": tag,
        }

    def load(self, state: Mapping[str, Any], *, of_all: Sequence[Mapping[str, Any]], is_twin: bool) -> None:
        if not is_twin:
            set_generator_state(self._rng, state["generator"])
            self._next = state["next"]
        self._transport.publish(PARAMETERS_CHANNEL, state["published"], state["tag"])

    def close(self) -> None:
        """Nothing runs concurrently with the training."""

    def _prefetch(self) -> None:
        """One step ahead of the exchange, once."""
        if not self._is_coming and self._next != self._links.rank:
            self._transport.prefetch(self._next, PARAMETERS_CHANNEL)
        self._is_coming = True

    def _draw(self) -> int:
        live = self._links.live_ranks()
        return int(live[int(self._rng.integers(len(live)))])
