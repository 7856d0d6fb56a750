"""Copies of all ranks at one mark: their exact mean is what is scored, without anybody waiting."""

from __future__ import annotations

import torch
from torch import Tensor

from tuner.probes.ranks.membership import Field, Party
from tuner.strategies import Strategy
from tuner.transport import Transport

#: The channel in which ranks publish their copies.
COPIES_CHANNEL = 1


class Copies:
    """Makes this rank's copy at a mark, and gathers those of all.

    Args:
        strategy: Says what a rank adds to what is scored.
        transport: Carries the copies.
        party: Says at which mark everybody is.
    """

    def __init__(self, strategy: Strategy, transport: Transport, party: Party) -> None:
        self._strategy, self._transport, self._party = strategy, transport, party
        self._center: Tensor | None = None

    def is_due(self) -> bool:
        """Whether the next mark has been reached and this rank has no copy for it yet."""
        party = self._party
        mark = party.of_leader(Field.MARK)
        is_new = mark > 0 and party.own(Field.COPIED) < mark
        return bool(is_new and party.total_samples >= party.of_leader(Field.MARK_SAMPLES))

    def make(self) -> None:
        """Makes this rank's copy for the next mark."""
        mark = int(self._party.of_leader(Field.MARK))
        vector = self._strategy.own_score_vector()
        if self._strategy.traits.scored == "center":
            self._center = vector
        elif vector is not None:
            self._transport.publish(COPIES_CHANNEL, vector, mark)
        self._party.post(copied=mark)

    def are_complete(self) -> bool:
        """Whether every rank whose copy is wanted, and that is heard of, has made it; for the leader."""
        mark = self._party.own(Field.MARK)
        if self._strategy.traits.scored == "center":
            return self._party.own(Field.COPIED) >= mark
        return self._party.all_live(Field.COPIED, mark)

    def gathered(self, like: Tensor) -> Tensor | None:
        """What is to be scored at the mark: the centre, or the mean of all copies of it, on a device.

        Args:
            like: A vector of the kind and device wanted.

        Returns:
            None while copies are still on their way.
        """
        if self._strategy.traits.scored == "center":
            return self._center
        mark = int(self._party.own(Field.MARK))
        copy = torch.empty_like(like, device="cpu")
        total = torch.zeros_like(copy, dtype=torch.float64 if copy.dtype == torch.float64 else torch.float32)
        count = 0
        for rank in self._party.live_ranks():
            if self._party.of(rank, Field.COPIED) < mark:
                continue
            if self._transport.fetch(rank, COPIES_CHANNEL, copy) != mark:
                return None
            total += copy
            count += 1
        return (total / count).to(like.dtype).to(like.device) if count else None
