"""The contract of rules by which ranks exchange parameters with each other, without a barrier."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from tuner.strategies.flat import FlatParameters
from tuner.strategies.strategy import Links

#: The channel in which ranks publish their parameters to peers.
PARAMETERS_CHANNEL = 0


class PeerRule(ABC):
    """What one rank does at an exchange.

    It changes `flat.vector` by adding to it, so that Nesterov's look-ahead and steps made while a
    message travelled are preserved.

    Attributes:
        exchanges_before_step: Whether an exchange comes before the step, on the parameters that the step
            starts from; else after it.
    """

    exchanges_before_step: bool

    @abstractmethod
    def meet(self, flat: FlatParameters, links: Links, rng: np.random.Generator) -> None:
        """Takes charge of a rank's parameters, equal on all ranks; `links.transport` is there."""

    @abstractmethod
    def exchange(self, step: int) -> float | None:
        """Exchanges, `step` steps after the run began; called every tau steps.

        Returns:
            Age in steps of what was mixed in; None if nothing was.
        """

    @abstractmethod
    def attend(self, step: int) -> bool:
        """Answers what came from others and takes what is on its way.

        Returns:
            Whether nothing that this rank started is still in flight.
        """

    @abstractmethod
    def score_vector(self) -> Tensor | None:
        """What this rank adds to the evaluated parameters; None if it adds nothing."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold of this rank besides its parameters; survives `torch.save`."""

    @abstractmethod
    def load(self, state: Mapping[str, Any], *, of_all: Sequence[Mapping[str, Any]], is_twin: bool) -> None:
        """Resumes from what `state` gave; parameters have been loaded before. See `Strategy.load`."""

    @abstractmethod
    def close(self) -> None:
        """Ends what runs concurrently with the training."""


def generator_state(rng: np.random.Generator) -> dict[str, Any]:
    """A generator's state as plain data."""
    return dict(rng.bit_generator.state)


def set_generator_state(rng: np.random.Generator, state: Mapping[str, Any]) -> None:
    """Brings back what `generator_state` gave."""
    rng.bit_generator.state = dict(state)
