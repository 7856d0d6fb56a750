"""A parameter server that applies updates as they come (Downpour, Dean et al. 2012)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tuner.strategies.center import CenterClient, CenterServer
from tuner.strategies.flat import FlatParameters
from tuner.strategies.peer_rule import PeerRule
from tuner.strategies.rules import accumulated
from tuner.strategies.strategy import Links


class ParameterServer(PeerRule):
    """Every tau steps: push what the steps changed, take the server's parameters.

    Each rank's update is added as it comes, made from parameters that are about p - 1 updates old.
    Waiting for the server is bounded as in `ElasticAveraging`; an answer that comes late is added on top of
    the steps made since.
    """

    exchanges_before_step = False

    def meet(self, flat: FlatParameters, links: Links, rng: np.random.Generator) -> None:
        assert links.transport is not None
        self._flat, self._links = flat, links
        self._plain = torch.empty_like(flat.vector)
        self._update = torch.empty_like(flat.vector, device="cpu")
        self._answer = torch.empty_like(flat.vector, device="cpu")
        #: What the next update counts from: the server's parameters as last taken, or what was last pushed.
        self._taken = flat.plain(self._plain).detach().to("cpu", copy=True)
        self._client = CenterClient(links)
        self._server = CenterServer(links, _serve, self._taken.clone)
        self._server.start()

    def exchange(self, step: int) -> float | None:
        leader, own = self._links.leader(), self._links.rank
        if leader != own and not self._client.may_ask(leader):
            return None
        plain = self._flat.plain(self._plain).to("cpu")
        accumulated(plain, self._taken, self._update)
        if leader == own:
            self._server.prepare()
            self._taken.copy_(plain)
            since = self._server.exchange(own, self._update, self._answer)
            self._take(self._answer)
            return float(since)
        self._server.forget()
        if not self._client.ask(leader, self._update, step):
            return None
        with self._server.undisturbed():
            self._taken.copy_(plain)
        answer = self._client.answer(leader)
        if answer is None:
            return None
        self._take(answer.vector)
        return float(answer.tag)

    def attend(self, step: int) -> bool:
        self._server.check()
        for answer in self._client.late_answers():
            self._take(answer.vector)
        return self._client.is_settled()

    def score_vector(self) -> Tensor | None:
        return self._server.held()

    def state(self) -> dict[str, Any]:
        return {"taken": self._taken.clone(), "center": self._server.held()}

    def load(self, state: Mapping[str, Any], *, of_all: Sequence[Mapping[str, Any]], is_twin: bool) -> None:
        self._taken.copy_(state["taken"])
        self._server.load([other["center"] for other in of_all])

    def close(self) -> None:
        self._server.close()

    def _take(self, center: Tensor) -> None:
        """Goes over to the server's parameters, keeping the steps made since the update was pushed."""
        torch.sub(center, self._taken, out=self._update)
        self._flat.vector.add_(self._update.to(self._flat.vector.device))
        with self._server.undisturbed():
            self._taken.add_(self._update)


def _serve(center: Tensor, asked: Tensor, out: Tensor) -> None:
    out.copy_(center.add_(asked))
