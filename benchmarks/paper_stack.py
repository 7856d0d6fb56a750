"""Asynchronous ranks of `benchmarks.paper`, whose gradients are computed for many ranks in one call.

Nothing changes a rank's parameters between the beginning and the end of its step. Where the first of the
ranks that are computing ends, the gradients of several of them are therefore computed at once, and each is
handed out when its rank ends: the same gradients as one by one but for rounding, and faster. Events,
messages, mixing and steps are those of `tuner.emulation`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.paper_network import IMAGE_SIZE, Network, Norms
from tuner.domain.data_order import SampleStream
from tuner.emulation import Emulation, Trained, emulation
from tuner.emulation.emulation import AsynchronousEmulation
from tuner.emulation.virtual_rank import VirtualRank

#: Ranks whose gradients are computed at once, at most: more leave the processor's cache.
_MOST_RANKS = 8


class EveryEpoch(SampleStream):
    """The same stream, with every epoch's order kept: ranks may be several epochs apart."""

    def _permutation(self, epoch: int) -> npt.NDArray[np.int64]:
        if epoch not in self._epochs:
            saved = dict(self._epochs)
            super()._permutation(epoch)
            self._epochs.update(saved)
        return self._epochs[epoch]


class _Stack:
    """Ranks that are computing, and gradients that are already known.

    Attributes:
        is_finite: Whether every loss so far was.
    """

    def __init__(self) -> None:
        self.is_finite = True
        self._computing: dict[int, _StackedRank] = {}
        self._known: dict[int, tuple[Tensor, float]] = {}

    def started(self, rank: _StackedRank) -> None:
        """A rank has begun its step: its parameters stay until it ends."""
        self._computing[rank.rank] = rank

    def gradient(self, rank: _StackedRank) -> tuple[Tensor, float]:
        """A rank's gradient, and its loss."""
        if rank.rank not in self._known:
            del self._computing[rank.rank]
            group = [rank, *list(self._computing.values())[: _MOST_RANKS - 1]]
            for other in group[1:]:
                del self._computing[other.rank]
            self._compute(group)
        return self._known.pop(rank.rank)

    def _compute(self, group: list[_StackedRank]) -> None:
        network = group[0].network
        indices = np.concatenate([rank.next_indices() for rank in group]).tolist()
        images, labels = group[0].data.__getitems__(indices)
        with torch.no_grad():
            vectors = torch.stack([rank.network.vector for rank in group])
        with torch.enable_grad():
            vectors.requires_grad_()
            by_rank = images.view(len(group), -1, IMAGE_SIZE, IMAGE_SIZE)
            logits = network.logits(vectors, by_rank, Norms()).flatten(0, 1)
            each = functional.cross_entropy(logits, labels, reduction="none")
            losses = each.view(len(group), -1).mean(dim=1)
            (gradients,) = torch.autograd.grad(losses.sum(), vectors)
        for rank, gradient, loss in zip(group, gradients, losses.tolist(), strict=True):
            self._known[rank.rank] = (gradient, loss)


class _StackedRank(VirtualRank):
    """A rank that takes its gradient from a stack."""

    def __init__(self, stack: _Stack, **settings: Any) -> None:
        super().__init__(**settings)
        self._stack = stack
        self.data = settings["data"]
        assert isinstance(self.model, Network)
        self.network = self.model

    def next_indices(self) -> npt.NDArray[np.int64]:
        """Of the samples of its present step."""
        return self._stream.indices(self.step * self.share.batch_size + self._offset, self.share.num_samples)

    def add_own_gradient(self) -> None:
        gradient, loss = self._stack.gradient(self)
        self._stack.is_finite = self._stack.is_finite and math.isfinite(loss)
        self.network.vector.grad = gradient


class StackedEmulation(AsynchronousEmulation):
    """Ranks without a barrier, of equal shares."""

    def __init__(self, trained: Trained) -> None:
        configuration = trained.configuration
        assert configuration.batch_size % trained.num_ranks == 0, "ranks are stacked where shares are equal"
        self._stack = _Stack()
        super().__init__(trained)

    @property
    def is_finite(self) -> bool:
        """Whether every loss so far was finite: one word for all ranks, who are too many to ask each time."""
        return self._stack.is_finite

    def _rank(self, rank: int, num_ranks: int) -> VirtualRank:
        trained = self.trained
        if rank == 0:
            self._stream = EveryEpoch(len(trained.data), trained.seed)  # type: ignore[arg-type]
        return _StackedRank(
            self._stack,
            rank=rank,
            num_ranks=num_ranks,
            workload=trained.workload,
            model=trained.make_model(),
            data=trained.data,
            stream=self._stream,
            batch_size=trained.configuration.batch_size,
            learning_rate=trained.configuration.learning_rate,
        )

    def _compute(self, rank: VirtualRank) -> None:
        super()._compute(rank)
        assert isinstance(rank, _StackedRank)
        self._stack.started(rank)


def stacked_emulation(trained: Trained) -> Emulation:
    """The emulation of a configuration's strategy, stacked where ranks do not wait for each other."""
    if trained.configuration.strategy == "all_reduce" or not trained.computes:
        return emulation(trained)
    return StackedEmulation(trained)
