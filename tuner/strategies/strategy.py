"""The contract of strategies: how the replicas of a model are kept in step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from search_spaces import StrategyTraits
from tuner.transport import Transport

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


@dataclass(frozen=True, kw_only=True)
class Share:
    """A rank's part of the global batch.

    Args:
        batch_size: Samples of the global batch.
        num_ranks: Ranks it is divided over.
        num_samples: Samples that fall to this rank, at least 1.
    """

    batch_size: int
    num_ranks: int
    num_samples: int


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """What one step exchanged.

    Args:
        sync_seconds: Waiting for other ranks that compute did not hide.
        exchanged_bytes: Bytes of gradients or parameters this rank put in or fetched.
        local_squared_norm: |g_r|^2, g_r being the mean gradient over this rank's share; None where
            the strategy does not exchange gradients.
        mean_squared_norm: |g|^2 of the gradient over the global batch, equal on all ranks; None
            where no rank knows it.
        staleness_steps: Age of what was mixed in, in steps (see `Measurement`); None if nothing was.
        is_finite: Whether what was exchanged is finite; with a barrier equal on all ranks.
    """

    sync_seconds: float = 0.0
    exchanged_bytes: int = 0
    local_squared_norm: float | None = None
    mean_squared_norm: float | None = None
    staleness_steps: float | None = None
    is_finite: bool = True


@dataclass(frozen=True, kw_only=True)
class Links:
    """What connects a rank to the others.

    Args:
        rank: This rank.
        num_ranks: All ranks.
        group: All ranks, for collectives; None where there is one rank, or the strategy has no barrier.
        transport: For messages without matching calls; None where there is one rank, or a barrier.
        live_ranks: Ranks that respond, this one among them, ascending.
        leader: The live rank that serves the center and evaluates.
        refresh: Brings both up to date, for a rank that waits.
    """

    rank: int = 0
    num_ranks: int = 1
    group: ProcessGroup | None = None
    transport: Transport | None = None
    live_ranks: Callable[[], Sequence[int]] = lambda: (0,)
    leader: Callable[[], int] = lambda: 0
    refresh: Callable[[], None] = lambda: None


class Strategy(ABC):
    """Keeps one replica in step with the others.

    The caller that trains calls, in this order: `attach` once; `load` if a run resumes; then in every
    step `before_step`, a forward and backward pass over each micro-batch (all but the last within
    `accumulating`), `after_backward`, the optimizer's step, `after_step`. A micro-batch's loss, a mean
    over its samples, is multiplied by `loss_weight` before the backward pass.

    With a barrier (see its traits) all ranks make the same calls in the same order. Without one each
    runs at its own pace; between steps, and while paused, a rank calls `attend`, and no call waits for
    others except for its server, and that no longer than servers have taken so far.

    Attributes:
        traits: What is known of the strategy without running it.
    """

    traits: StrategyTraits

    @abstractmethod
    def attach(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        links: Links,
        rng: np.random.Generator,
    ) -> nn.Module:
        """Takes charge of a replica, already on its device.

        Args:
            model: Equal on all ranks.
            optimizer: Of the model's parameters.
            links: What connects this rank to the others.
            rng: This rank's own, for its choice of peers.

        Returns:
            The module to run forward with; it may wrap the model.
        """

    @abstractmethod
    def loss_weight(self, num_samples: int, share: Share) -> float:
        """The factor on the mean loss over a micro-batch of `num_samples` of this share."""

    @abstractmethod
    def before_step(self, share: Share) -> None:
        """Begins a step on this share of the global batch."""

    @abstractmethod
    def accumulating(self) -> AbstractContextManager[None]:
        """The context of micro-batches whose gradients must not be exchanged yet."""

    @abstractmethod
    def after_backward(self) -> None:
        """Called once the gradient of the whole share is ready, before the optimizer's step."""

    @abstractmethod
    def after_step(self) -> None:
        """Called after the optimizer's step."""

    @abstractmethod
    def scored_parameters(self) -> AbstractContextManager[None]:
        """Within it, on every rank, the model has the parameters to evaluate; afterwards, those it trains.

        All ranks enter it together.
        """

    @abstractmethod
    def attend(self) -> bool:
        """Answers what other ranks asked, and takes what arrived, between two steps or while paused.

        Returns:
            Whether nothing that this rank started is still in flight.
        """

    @abstractmethod
    def own_score_vector(self) -> Tensor | None:
        """What this rank adds to the evaluated parameters, one vector of all trainable ones.

        None if it adds nothing: with a barrier (use `scored_parameters`), or if another rank holds
        the center. It is valid until the next step.
        """

    @abstractmethod
    def scoring(self, vector: Tensor) -> AbstractContextManager[None]:
        """Within it the model has these parameters; afterwards, those it trains."""

    @abstractmethod
    def close(self) -> None:
        """Ends what runs concurrently with the training, before the transport is closed."""

    @abstractmethod
    def exchanges(self) -> list[Exchange]:
        """The exchanges of the steps since the last call, oldest first."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold of this rank besides model and optimizer.

        Where ranks differ, messages that have arrived are part of it.
        """

    @abstractmethod
    def load(
        self, state: Mapping[str, Any], *, of_all: Sequence[Mapping[str, Any]] = (), is_twin: bool = False
    ) -> None:
        """Resumes from what `state` gave.

        Args:
            state: Of this rank.
            of_all: Of all known ranks, if ranks differ; includes what one of them held for all.
            is_twin: Whether it is another rank's state, since this one's is lost: random draws stay this
                rank's own, and messages that arrived there do not arrive twice.
        """
