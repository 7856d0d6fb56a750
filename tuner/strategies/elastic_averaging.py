"""Elastic averaging: each rank and the center are drawn towards each other (Zhang et al. 2015)."""

from __future__ import annotations

import torch
from torch import Tensor

from tuner.strategies.center import CenterRule
from tuner.strategies.rules import elastic_force, moving_rate


class ElasticAveraging(CenterRule):
    """Before the step: u = a (theta - c), theta -= u, c += u, with a = beta / p; the center c is evaluated.

    A rank waits for its turn at the server up to an adaptive timeout. It applies an answer that comes later
    when it arrives: what the center gained, the rank gives.

    Args:
        tau: Steps between two exchanges.
        beta: a p, by how much one exchange of every rank moves the center in total.
    """

    def __init__(self, tau: int, beta: float) -> None:
        super().__init__(tau)
        self._beta = beta

    def start(self) -> None:
        self._rate = moving_rate(self._beta, self.links.num_ranks)
        self._force = torch.empty_like(self.flat.vector, device="cpu")
        super().start()

    def exchange(self, step: int) -> float | None:
        leader, own = self.links.leader(), self.links.rank
        plain = self.plain()
        if leader == own:
            since = self._server.exchange(own, plain.to("cpu"), self._force)
            self._move(self._force, plain)
            return float(since)
        self._server.forget()
        if not self.transport.ask(leader, plain, step) or (answer := self._client.answer(leader)) is None:
            return None
        self._move(answer.vector, plain)
        return float(answer.tag)

    def serve(self, center: Tensor, asked: Tensor, out: Tensor) -> None:
        center.add_(elastic_force(asked, center, self._rate, out))

    def apply(self, answer: Tensor) -> None:
        self._move(answer, self.plain())

    def _move(self, force: Tensor, plain: Tensor) -> None:
        """theta -= u. The center was theta - u / a before the exchange, and u more after it."""
        with self._server.undisturbed():
            self._known.copy_(plain).sub_(force, alpha=1.0 / self._rate - 1.0)
        self.flat.vector.sub_(force.to(self.flat.vector.device))
