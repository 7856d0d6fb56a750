"""Elastic averaging: each rank and the center move towards each other (Zhang et al. 2015)."""

from __future__ import annotations

import torch
from torch import Tensor

from tuner.strategies.center import CenterRule
from tuner.strategies.rules import elastic_force, moving_rate


class ElasticAveraging(CenterRule):
    """Before a step, the parameters of a rank and of the server (the center) move towards each other.

    theta is the rank's parameters. c is the center, a vector that a server stores and that evaluations use.
    An exchange computes u = a (theta - c) with a = beta / p, subtracts u from theta and adds u to c.

    A rank waits for the server's reply, which contains u, up to an adaptive timeout. If the reply is later,
    the rank subtracts u when it arrives, because the server has added u to the center already.

    Args:
        tau: Steps between two exchanges with the server.
        beta: Share of the difference by which the center moves in total when each of the p ranks exchanges
            once; a = beta / p.
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
        """Subtracts u from the rank's parameters, and computes the center after the exchange.

        The center was theta - u / a before the exchange; the exchange added u.
        """
        with self._server.undisturbed():
            self._known.copy_(plain).sub_(force, alpha=1.0 / self._rate - 1.0)
        self.flat.vector.sub_(force.to(self.flat.vector.device))
