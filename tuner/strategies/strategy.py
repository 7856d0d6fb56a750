"""The interface of strategies: how ranks keep the replicas of a model in agreement."""

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
        batch_size: Size of the global batch, samples.
        num_ranks: Number of ranks that share the global batch.
        num_samples: Number of samples that this rank processes, at least 1.
    """

    batch_size: int
    num_ranks: int
    num_samples: int


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """Measurements of one rank's exchange of gradients or parameters in one step.

    Args:
        sync_seconds: Seconds of waiting for other ranks that did not overlap with compute.
        exchanged_bytes: Bytes of gradients or parameters that this rank sent or fetched.
        local_squared_norm: |g_r|^2, where g_r is the mean gradient over this rank's share; None if it was not
            measured in this step.
        mean_squared_norm: |g|^2, where g is the mean gradient over the global batch, the same on all ranks;
            None if it was not measured in this step.
        staleness_steps: Age, in steps, of the parameters of other ranks that this rank mixed into its own
            (see `Measurement`); None if there were none.
        is_finite: Whether all exchanged values are finite; with a barrier the same on all ranks.
    """

    sync_seconds: float = 0.0
    exchanged_bytes: int = 0
    local_squared_norm: float | None = None
    mean_squared_norm: float | None = None
    staleness_steps: float | None = None
    is_finite: bool = True


@dataclass(frozen=True, kw_only=True)
class Links:
    """A rank's connections to the other ranks of its job.

    Args:
        rank: Number of this rank, from 0.
        num_ranks: Number of ranks of the job.
        group: Process group for collectives; None for a single rank, or a strategy without a barrier.
        transport: Sends messages that need no matching call on the other rank; None for a single rank, or a
            strategy with a barrier.
        live_ranks: Function that returns the ranks that respond, including this one, in ascending order.
        leader: Function that returns the leader: the live rank that serves the center (the common vector of
            strategies with a server) and evaluates.
        refresh: Function that updates the results of `live_ranks` and `leader`; a waiting rank calls it.
    """

    rank: int = 0
    num_ranks: int = 1
    group: ProcessGroup | None = None
    transport: Transport | None = None
    live_ranks: Callable[[], Sequence[int]] = lambda: (0,)
    leader: Callable[[], int] = lambda: 0
    refresh: Callable[[], None] = lambda: None


class Strategy(ABC):
    """Keeps one replica of the model in agreement with the replicas of other ranks.

    The training loop calls the methods in this order:

    1. `attach`, once.
    2. `load`, once, if a run resumes.
    3. In every step: `before_step`; a forward and backward pass for each micro-batch, all but the last one
       within `accumulating`; `after_backward`; the optimizer's step; `after_step`.

    Before each backward pass, the loop multiplies the mean loss of the micro-batch by `loss_weight`.

    With a barrier (see `StrategyTraits`), all ranks make the same calls in the same order.

    Without a barrier:

    - Each rank runs at its own pace.
    - Each rank calls `attend` between steps and while it is paused.
    - Only a rank that exchanges parameters with a server waits for another rank, up to an adaptive timeout.

    Attributes:
        traits: The properties that are known without running the strategy; set by
            `tuner.strategies.strategy`.
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
        """Connects the strategy to a replica of the model, which is on its device already.

        Args:
            model: The replica; its parameters are the same on all ranks.
            optimizer: The optimizer of the model's parameters.
            links: This rank's connections to the other ranks.
            rng: This rank's own random generator, for choosing peers.

        Returns:
            The module for the forward pass; it may wrap the model.
        """

    def loss_weight(self, num_samples: int, share: Share) -> float:
        """Returns the factor by which the training loop multiplies the mean loss of a micro-batch.

        By default, the weighted losses of a rank's micro-batches add up to the mean loss over the rank's
        share.

        Args:
            num_samples: Number of samples of the micro-batch.
            share: This rank's part of the global batch.
        """
        return num_samples / share.num_samples

    def before_step(self, share: Share) -> None:  # noqa: B027
        """Prepares a step in which this rank trains on `share` of the global batch."""

    def accumulating(self) -> AbstractContextManager[None]:
        """Context manager for micro-batches whose gradients must not be exchanged yet."""
        return nullcontext()

    def after_backward(self) -> None:  # noqa: B027
        """Runs what the strategy does between the backward pass and the optimizer's step.

        At this time, the gradient of the rank's whole share of the batch is ready.
        """

    @abstractmethod
    def after_step(self) -> None:
        """Runs what the strategy does after the optimizer's step, such as exchanging parameters."""

    @abstractmethod
    def scored_parameters(self) -> AbstractContextManager[None]:
        """Context manager in which the model holds the parameters to evaluate, such as the mean of all ranks.

        On exit, the model holds the parameters of the training again. All ranks must enter the context
        together.
        """

    def attend(self) -> bool:
        """Replies to requests of other ranks and applies the messages that have arrived.

        It is called between two steps and while the rank is paused.

        Returns:
            Whether this rank has received the replies to all its requests, or expects no more of them.
        """
        return True

    def own_score_vector(self) -> Tensor | None:
        """Returns this rank's contribution to the evaluated parameters, `(num_parameters,)`.

        The vector is valid until the next step. The result is None if this rank contributes nothing, because
        the strategy has a barrier (use `scored_parameters` instead) or because another rank serves the
        center.
        """
        return None

    @abstractmethod
    def scoring(self, vector: Tensor) -> AbstractContextManager[None]:
        """Context manager in which the model uses the parameters in `vector`, `(num_parameters,)`."""

    def close(self) -> None:  # noqa: B027
        """Ends threads that run concurrently with the training; called before the transport is closed."""

    @abstractmethod
    def exchanges(self) -> list[Exchange]:
        """Returns the exchanges of the steps since the last call, one for each step, oldest first."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Returns the state of this rank, besides model and optimizer, that a checkpoint must contain.

        If ranks exchange messages without a barrier, the messages that have arrived are part of the state.
        """

    @abstractmethod
    def load(
        self, state: Mapping[str, Any], *, of_all: Sequence[Mapping[str, Any]] = (), is_twin: bool = False
    ) -> None:
        """Restores the state that `state` returned when the checkpoint was saved.

        Args:
            state: The saved state of this rank.
            of_all: The saved states of all ranks that were not lost, if the states of ranks differ. One of
                them may contain state that all ranks have in common, such as the center.
            is_twin: Whether `state` is that of another rank, because this rank's state is lost. Then this
                rank keeps its own random generator, and does not apply the messages that had arrived at the
                other rank.
        """
