"""Elastic averaging: each rank and the center are drawn towards each other (Zhang et al. 2015)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tuner.strategies.center import CenterClient, CenterServer
from tuner.strategies.flat import FlatParameters
from tuner.strategies.peer_rule import PeerRule
from tuner.strategies.rules import elastic_force, moving_rate
from tuner.strategies.strategy import Links


class ElasticAveraging(PeerRule):
    """u = a (theta - c), theta -= u, c += u, with a = beta / p; before the step, the center is scored.

    A rank waits for its turn at the server, but no longer than median + k MAD of its turns so far; an
    answer that comes later is applied when it comes, so that what the center gained the rank gives.

    Args:
        beta: a p, how much all ranks in total move the center in one exchange of each.
    """

    exchanges_before_step = True

    def __init__(self, beta: float) -> None:
        self._beta = beta

    def meet(self, flat: FlatParameters, links: Links, rng: np.random.Generator) -> None:
        assert links.transport is not None
        self._flat, self._links = flat, links
        self._rate = moving_rate(self._beta, links.num_ranks)
        self._plain = torch.empty_like(flat.vector)
        self._force = torch.empty_like(flat.vector, device="cpu")
        #: The center as this rank last saw it.
        self._known = flat.plain(self._plain).detach().to("cpu", copy=True)
        self._client = CenterClient(links)
        self._server = CenterServer(links, self._serve, self._known.clone)
        self._server.start()

    def exchange(self, step: int) -> float | None:
        leader, own = self._links.leader(), self._links.rank
        plain = self._flat.plain(self._plain)
        if leader == own:
            since = self._server.exchange(own, plain.to("cpu"), self._force)
            self._apply(self._force, plain)
            return float(since)
        self._server.forget()
        if not self._client.ask(leader, plain, step) or (answer := self._client.answer(leader)) is None:
            return None
        self._apply(answer.vector, plain)
        return float(answer.tag)

    def attend(self, step: int) -> bool:
        self._server.check()
        for answer in self._client.late_answers():
            self._apply(answer.vector, self._flat.plain(self._plain))
        return self._client.is_settled()

    def score_vector(self) -> Tensor | None:
        return self._server.held()

    def state(self) -> dict[str, Any]:
        return {"known": self._known.clone(), "center": self._server.held()}

    def load(self, state: Mapping[str, Any], *, of_all: Sequence[Mapping[str, Any]], is_twin: bool) -> None:
        self._known.copy_(state["known"])
        self._server.load([other["center"] for other in of_all])

    def close(self) -> None:
        self._server.close()

    def _serve(self, center: Tensor, asked: Tensor, out: Tensor) -> None:
        center.add_(elastic_force(asked, center, self._rate, out))

    def _apply(self, force: Tensor, plain: Tensor) -> None:
        """theta -= u; the center before it was theta - u / a, after it u more."""
        with self._server.undisturbed():
            self._known.copy_(plain).sub_(force, alpha=1.0 / self._rate - 1.0)
        self._flat.vector.sub_(force.to(self._flat.vector.device))
