"""A parameter server that applies updates in order of arrival (Downpour, Dean et al. 2012)."""

from __future__ import annotations

import torch
from torch import Tensor

from tuner.strategies.center import CenterRule
from tuner.strategies.rules import accumulated


class ParameterServer(CenterRule):
    """After tau steps, a rank sends the change of its parameters and continues with the server's parameters.

    With p ranks, the server applies about p - 1 updates of other ranks between two updates of one rank. An
    update was therefore computed from parameters that are about p - 1 updates old. A rank waits for the
    server's reply up to an adaptive timeout. If the reply is later, the rank continues with the server's
    parameters plus the steps that it made in the meantime.
    """

    exchanges_before_step = False

    def start(self) -> None:
        self._update = torch.empty_like(self.flat.vector, device="cpu")
        self._answer = torch.empty_like(self._update)
        # The next update is the change of the parameters since `_known`, which are those last received or
        # sent.
        super().start()

    def exchange(self, step: int) -> float | None:
        leader, own = self.links.leader(), self.links.rank
        if leader != own and self.transport.is_asked(leader):
            return None
        plain = self.plain().to("cpu")
        accumulated(plain, self._known, self._update)
        if leader == own:
            self._server.prepare()
            self._known.copy_(plain)
            since = self._server.exchange(own, self._update, self._answer)
            self.apply(self._answer)
            return float(since)
        self._server.forget()
        if not self.transport.ask(leader, self._update, step):
            return None
        with self._server.undisturbed():
            self._known.copy_(plain)
        answer = self._client.answer(leader)
        if answer is None:
            return None
        self.apply(answer.vector)
        return float(answer.tag)

    def serve(self, center: Tensor, asked: Tensor, out: Tensor) -> None:
        out.copy_(center.add_(asked))

    def apply(self, answer: Tensor) -> None:
        """Continues with the server's parameters, plus the steps made since the update was sent."""
        torch.sub(answer, self._known, out=self._update)
        self.flat.vector.add_(self._update.to(self.flat.vector.device))
        with self._server.undisturbed():
            self._known.add_(self._update)
