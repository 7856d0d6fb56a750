"""One virtual rank of an emulation: a model with its optimizer, and its part of the training data."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from tuner.domain.data_order import SampleStream, fetch, shard
from tuner.domain.workload import Workload
from tuner.strategies import Share


class VirtualRank:
    """A model with its optimizer, which makes steps on its share of each global batch.

    Args:
        rank: Index of this rank.
        num_ranks: Number of ranks that share each global batch.
        workload: Workload with loss, optimizer and learning-rate schedule.
        model: Model of this rank, on its device.
        data: The training data.
        stream: Order of the samples, the same for all ranks.
        batch_size: Global batch size: number of samples that all ranks together process in one step.
        learning_rate: Peak learning rate, which the schedule multiplies by a factor.
        computes: Whether to compute gradients. If not, steps do not change the parameters.

    Attributes:
        step: Number of steps that this rank has made.
        share: Size of this rank's part of each batch.
        is_finite: Whether every loss so far was finite.
    """

    def __init__(
        self,
        *,
        rank: int,
        num_ranks: int,
        workload: Workload,
        model: nn.Module,
        data: Dataset[Any],
        stream: SampleStream,
        batch_size: int,
        learning_rate: float,
        computes: bool = True,
    ) -> None:
        self.rank, self.model = rank, model
        self._workload, self._data, self._stream = workload, data, stream
        self._offset, size = shard(batch_size, rank, num_ranks)
        self.share = Share(batch_size=batch_size, num_ranks=num_ranks, num_samples=size)
        self._computes = computes
        self.step = 0
        self.is_finite = True
        self._device = next(model.parameters()).device
        model.train()
        self.optimizer = workload.optimizer(model.parameters(), learning_rate)
        self._peak_rates = [group["lr"] for group in self.optimizer.param_groups]

    def set_rate(self, samples: int) -> None:
        """Sets the learning rate to the schedule's value after all ranks have processed `samples` samples."""
        factor = self._workload.schedule(samples)
        for group, peak in zip(self.optimizer.param_groups, self._peak_rates, strict=True):
            group["lr"] = peak * factor

    def clear_gradient(self) -> None:
        """Clears the gradients before a step."""
        self.optimizer.zero_grad(set_to_none=True)

    def add_gradient(self, offset: int, num_samples: int, weight: float) -> None:
        """Adds the gradient of some samples of the current global batch to the model's gradients.

        Args:
            offset: Index of the first of these samples within the global batch.
            num_samples: Number of samples whose gradient is added.
            weight: Factor by which the mean loss of these samples is multiplied.
        """
        if not self._computes:
            return
        start = self.step * self.share.batch_size + offset
        batch = fetch(self._data, self._stream.indices(start, num_samples).tolist(), self._device)
        loss = self._workload.loss(self.model, batch)
        torch.autograd.backward(loss if weight == 1.0 else loss * weight)
        self.is_finite = self.is_finite and math.isfinite(loss.item())

    def add_own_gradient(self) -> None:
        """Computes the gradient of this rank's share of the current global batch."""
        self.clear_gradient()
        self.add_gradient(self._offset, self.share.num_samples, 1.0)

    def make_step(self) -> None:
        """Makes one step of the optimizer with the present gradients."""
        if self._computes:
            self.optimizer.step()
        self.step += 1

    def state(self) -> dict[str, Any]:
        """Returns model, optimizer and training progress for a checkpoint; `load` restores them."""
        return {"step": self.step, "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load(self, state: dict[str, Any]) -> None:
        """Restores the state that `state` returned."""
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
