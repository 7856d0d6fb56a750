"""One rank's replica of the model: makes steps on its share of each batch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from tuner.probes.batches import SampleStream, fetch, micro_batch_sizes, shard
from tuner.probes.step_timer import StepSeconds, StepTimer
from tuner.strategies import Exchange, Share, Strategy
from tuner.workload import Workload

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


class Replica:
    """A model with optimizer and strategy, and its place in the stream of samples.

    Args:
        workload: What is trained.
        model: The model, on its device.
        data: The training data.
        strategy: Keeps it in step with the others.
        group: All ranks; None where there is one.
        rank: This rank.
        num_ranks: All ranks.
        batch_size: Samples of a step over all ranks.
        learning_rate: Peak rate; the workload's schedule multiplies it.
        max_batch_size_per_rank: Above it a share is accumulated over micro-batches.
        seed: Of the data order and the strategy's draws.
    """

    def __init__(
        self,
        *,
        workload: Workload,
        model: nn.Module,
        data: Dataset[Any],
        strategy: Strategy,
        group: ProcessGroup | None,
        rank: int,
        num_ranks: int,
        batch_size: int,
        learning_rate: float,
        max_batch_size_per_rank: int | None,
        seed: int,
    ) -> None:
        self.workload, self.model, self.data, self.strategy = workload, model, data, strategy
        self.batch_size = batch_size
        self.device = next(model.parameters()).device
        self.step = 0
        self.samples = 0
        self._offset, size = shard(batch_size, rank, num_ranks)
        self.share = Share(batch_size=batch_size, num_ranks=num_ranks, num_samples=size)
        self._micro_batches = micro_batch_sizes(size, max_batch_size_per_rank)
        self._stream = SampleStream(len(data), seed)  # type: ignore[arg-type]
        model.train()
        self.optimizer = workload.optimizer(model.parameters(), learning_rate)
        self._peak_rates = [group["lr"] for group in self.optimizer.param_groups]
        rng = np.random.default_rng((seed, rank, 1))
        self._module = strategy.attach(model, self.optimizer, group, rng)
        self._timer = StepTimer(self.device)
        self._loss_total = torch.zeros((), device=self.device)

    def run_stride(self, num_steps: int, after_each: Callable[[], None]) -> None:
        """Makes some steps; nothing in it waits for the device but what the workload itself does.

        Args:
            num_steps: How many, at least 1.
            after_each: Called after each step.
        """
        self._loss_total.zero_()
        self._timer.begin()
        for _ in range(num_steps):
            input_seconds = self._step()
            self._timer.end_step(input_seconds)
            after_each()

    def read_stride(self) -> tuple[list[StepSeconds], list[Exchange], bool]:
        """The steps of the last stride, their exchanges, and whether training is still finite.

        What says so is equal on all ranks: the reduced gradient's norm, which a single rank's
        non-finite gradient makes non-finite everywhere; one rank alone asks its own losses.
        """
        exchanges = self.strategy.exchanges()
        steps = self._timer.read(exchanges)
        if self.share.num_ranks == 1:
            return steps, exchanges, self.losses_are_finite()
        known = [e.mean_squared_norm for e in exchanges if e.mean_squared_norm is not None]
        return steps, exchanges, all(math.isfinite(norm) for norm in known)

    def losses_are_finite(self) -> bool:
        """Whether this rank's losses of the last stride were finite."""
        return math.isfinite(float(self._loss_total))

    def _step(self) -> float:
        self._set_learning_rate()
        self.strategy.before_step(self.share)
        self.optimizer.zero_grad(set_to_none=True)
        input_seconds = 0.0
        start = self.samples + self._offset
        for size in self._micro_batches[:-1]:
            with self.strategy.accumulating():
                input_seconds += self._forward_and_backward(start, size)
            start += size
        input_seconds += self._forward_and_backward(start, self._micro_batches[-1])
        self.strategy.after_backward()
        self.optimizer.step()
        self.strategy.after_step()
        self.step += 1
        self.samples += self.batch_size
        return input_seconds

    def _forward_and_backward(self, start: int, size: int) -> float:
        began = time.perf_counter()
        batch = fetch(self.data, self._stream.indices(start, size).tolist(), self.device)
        input_seconds = time.perf_counter() - began
        loss = self.workload.loss(self._module, batch)
        self._loss_total += loss.detach()
        torch.autograd.backward(loss * self.strategy.loss_weight(size, self.share))
        return input_seconds

    def _set_learning_rate(self) -> None:
        factor = self.workload.schedule(self.samples)
        for group, peak in zip(self.optimizer.param_groups, self._peak_rates, strict=True):
            group["lr"] = peak * factor
