"""Gossip by pulling: average with the newest parameters of a random peer (Jin et al. 2016)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from tuner.strategies.asynchronous import PARAMETERS_CHANNEL, PeerRule
from tuner.strategies.rules import pulled


class GossipPull(PeerRule):
    """Before a step, a rank averages its parameters with those that a random peer published last.

    At an exchange, the rank publishes theta, chooses a peer j at random from all live ranks, and sets theta
    to (theta + theta_j) / 2. Rank j published theta_j at its own last exchange, so no rank waits for another
    rank. The next peer is chosen one exchange ahead, so that its parameters can be fetched while a step
    computes.
    """

    def start(self) -> None:
        self._other = torch.empty_like(self.flat.vector, device="cpu")
        self._next, self._is_coming = self.draw(self.links.live_ranks()), False
        self.transport.publish(PARAMETERS_CHANNEL, self.plain(), 0)

    def exchange(self, step: int) -> float | None:
        plain = self.plain()
        self.transport.publish(PARAMETERS_CHANNEL, plain, step)
        peer, self._next, self._is_coming = self._next, self.draw(self.links.live_ranks()), False
        tag = None
        if peer != self.links.rank:
            tag = self.transport.fetch(peer, PARAMETERS_CHANNEL, self._other)
        if self.tau == 1:
            self._prefetch()
        if tag is None:
            return None
        other = self._other.to(plain.device)
        self.flat.vector.add_(pulled(plain, other, out=other))
        return float(max(0, step - tag))

    def attend(self, step: int) -> bool:
        if (step + 1) % self.tau == 0:
            self._prefetch()
        return True

    def state(self) -> dict[str, Any]:
        """Returns the state of the random generator, the next peer, and this rank's published parameters."""
        tag = self.transport.fetch(self.links.rank, PARAMETERS_CHANNEL, self._other)
        return {
            "generator": dict(self.rng.bit_generator.state),
            "next": self._next,
            "published": self._other.clone(),
            "tag": tag,
        }

    def load(self, state: Mapping[str, Any], *, of_all: Sequence[Mapping[str, Any]], is_twin: bool) -> None:
        if not is_twin:
            self.rng.bit_generator.state = dict(state["generator"])
            self._next = state["next"]
        self.transport.publish(PARAMETERS_CHANNEL, state["published"], state["tag"])

    def _prefetch(self) -> None:
        """Requests the parameters of the next peer in advance, so they arrive before the next exchange."""
        if not self._is_coming and self._next != self.links.rank:
            self.transport.prefetch(self._next, PARAMETERS_CHANNEL)
        self._is_coming = True
