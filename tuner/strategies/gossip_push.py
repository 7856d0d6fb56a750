"""Gossip by pushing: send parameters to a random peer, average with all received (Jin et al. 2016)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tuner.strategies.asynchronous import PeerRule
from tuner.strategies.rules import pushed


class GossipPush(PeerRule):
    """After a step, a rank sends its parameters to a random peer, and averages with those it received.

    - At an exchange, the rank sends theta to a peer, chosen at random from all live ranks including itself.
    - The rank then sets theta to the average of theta and all parameter vectors that it has received since
      its last exchange. Theta counts twice if the rank chose itself as the peer.
    - If a receiver has not read a sender's message yet, a newer message of the same sender replaces it. A
      slow rank therefore only reads the newest message of each sender, and a dead rank delays no other rank.
    """

    exchanges_before_step = False

    def start(self) -> None:
        self._move = torch.empty_like(self.flat.vector)
        #: Maps a sender to the tag and vector of its message, for messages that were read to save a
        #: checkpoint. The next exchange applies them.
        self._pending: dict[int, tuple[int, Tensor]] = {}

    def exchange(self, step: int) -> float | None:
        plain = self.plain()
        peer = self.draw(self.links.live_ranks())
        drew_itself = peer == self.links.rank
        if not drew_itself:
            self.transport.push(peer, plain, step)
        newest = {**self._pending, **{r.sender: (r.tag, r.vector) for r in self.transport.take_pushed()}}
        arrived, self._pending = [newest[sender] for sender in sorted(newest)], {}
        if not arrived:
            return None
        vectors = [vector.to(plain.device) for _, vector in arrived]
        self.flat.vector.add_(pushed(plain, vectors, own_weight=1 + drew_itself, out=self._move))
        return float(np.mean([max(0, step - tag) for tag, _ in arrived]))

    def state(self) -> dict[str, Any]:
        """Returns the state of the random generator, and the messages that the next exchange will apply."""
        self._pending |= {r.sender: (r.tag, r.vector.clone()) for r in self.transport.take_pushed()}
        return {"generator": dict(self.rng.bit_generator.state), "arrived": dict(self._pending)}

    def load(self, state: Mapping[str, Any], *, of_all: Sequence[Mapping[str, Any]], is_twin: bool) -> None:
        if not is_twin:
            self.rng.bit_generator.state = dict(state["generator"])
            self._pending = dict(state["arrived"])
