"""The interface of strategies: how ranks synchronize the replicas of a model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
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
        num_ranks: Ranks that share the batch.
        num_samples: Samples of this rank, at least 1.
    """

    batch_size: int
    num_ranks: int
    num_samples: int


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """What one rank exchanged in one step.

    Args:
        sync_seconds: Seconds of waiting for other ranks that compute did not hide.
        exchanged_bytes: Bytes of gradients or parameters that this rank sent or fetched.
        local_squared_norm: |g_r|^2, where g_r is the mean gradient over this rank's share; None if it was
            not measured in this step.
        mean_squared_norm: |g|^2 of the gradient over the global batch, the same on all ranks; None if it
            was not measured in this step.
        staleness_steps: Age in steps of what was mixed in (see `Measurement`); None if nothing was.
        is_finite: Whether what was exchanged is finite; with a barrier the same on all ranks.
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
        num_ranks: Number of all ranks.
        group: The group for collectives; None for a single rank, or a strategy without a barrier.
        transport: For messages that need no matching call; None for a single rank, or with a barrier.
        live_ranks: Returns the ranks that respond, including this one, in ascending order.
        leader: Returns the live rank that serves the center and evaluates.
        refresh: Updates `live_ranks` and `leader`, for a rank that waits.
    """

    rank: int = 0
    num_ranks: int = 1
    group: ProcessGroup | None = None
    transport: Transport | None = None
    live_ranks: Callable[[], Sequence[int]] = lambda: (0,)
    leader: Callable[[], int] = lambda: 0
    refresh: Callable[[], None] = lambda: None


class Strategy(ABC):
    """Synchronizes one replica with the others.

    The training loop calls `attach` once, and `load` if a run resumes. In every step it calls `before_step`,
    then a forward and backward pass for each micro-batch (all but the last within `accumulating`), then
    `after_backward`, the optimizer's step, and `after_step`. It multiplies the loss of a micro-batch, a mean
    over its samples, by `loss_weight` before the backward pass.

    With a barrier (see `StrategyTraits`) all ranks make the same calls in the same order. Without one, each
    rank runs at its own pace and calls `attend` between steps and while paused. No call waits for other
    ranks except for the server, and that only up to an adaptive timeout.

    Attributes:
        traits: The properties known without running the strategy; set by `tuner.strategies.strategy`.
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
        """Takes over a replica that is already on its device.

        Args:
            model: The same on all ranks.
            optimizer: The optimizer of the model's parameters.
            links: What connects this rank to the others.
            rng: This rank's own generator, for drawing peers.

        Returns:
            The module for the forward pass; it may wrap the model.
        """

    def loss_weight(self, num_samples: int, share: Share) -> float:
        """The factor on the mean loss of a micro-batch of `num_samples`; here, the mean over the share."""
        return num_samples / share.num_samples

    def before_step(self, share: Share) -> None:  # noqa: B027
        """Called before a step on this share of the global batch."""

    def accumulating(self) -> AbstractContextManager[None]:
        """The context of micro-batches whose gradients must not be exchanged yet."""
        return nullcontext()

    def after_backward(self) -> None:  # noqa: B027
        """Called when the gradient of the whole share is ready, before the optimizer's step."""

    @abstractmethod
    def after_step(self) -> None:
        """Called after the optimizer's step."""

    @abstractmethod
    def scored_parameters(self) -> AbstractContextManager[None]:
        """A context in which the model has the parameters to evaluate; all ranks enter it together."""

    def attend(self) -> bool:
        """Answers requests of other ranks and applies what has arrived, between two steps or while paused.

        Returns:
            Whether nothing that this rank started is still in flight.
        """
        return True

    def own_score_vector(self) -> Tensor | None:
        """What this rank adds to the evaluated parameters, `(num_parameters,)`, valid until the next step.

        None if it adds nothing: with a barrier (use `scored_parameters`), or if another rank serves the
        center.
        """
        return None

    @abstractmethod
    def scoring(self, vector: Tensor) -> AbstractContextManager[None]:
        """A context in which the model has these parameters, `(num_parameters,)`, instead of its own."""

    def close(self) -> None:  # noqa: B027
        """Ends what runs concurrently with the training; called before the transport is closed."""

    @abstractmethod
    def exchanges(self) -> list[Exchange]:
        """The exchanges of the steps since the last call, oldest first, one for each step."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """The state of this rank, besides model and optimizer, that a checkpoint must contain.

        If ranks differ, messages that have arrived are part of it.
        """

    @abstractmethod
    def load(
        self, state: Mapping[str, Any], *, of_all: Sequence[Mapping[str, Any]] = (), is_twin: bool = False
    ) -> None:
        """Resumes from what `state` returned.

        Args:
            state: The state of this rank.
            of_all: The states of all known ranks, if ranks differ; one of them may hold a common part.
            is_twin: Whether `state` is another rank's, since this rank's is lost. Then this rank keeps its
                own random draws, and does not apply the messages that arrived at the other rank.
        """
