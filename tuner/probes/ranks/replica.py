"""One rank's replica of the model: makes steps on its share of each batch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from tuner.domain.data_order import SampleStream, fetch, micro_batch_sizes, shard
from tuner.domain.workload import Workload
from tuner.probes.ranks.step_timer import StepSeconds, StepTimer
from tuner.strategies import Exchange, Links, Share, Strategy


class Replica:
    """A model with optimizer and strategy, and its place in the stream of samples.

    Args:
        workload: What is trained.
        model: The model, on its device.
        data: The training data.
        strategy: Keeps it in step with the others.
        links: What connects this rank to the others.
        batch_size: Samples of a step over all ranks.
        learning_rate: Peak rate; the workload's schedule multiplies it.
        max_batch_size_per_rank: Above it a share is accumulated over micro-batches.
        seed: Of the data order and the strategy's draws.
        delay_seconds: Draws how long a step is delayed after its backward pass; None for not at all.

    Attributes:
        step: Steps this rank has made.
        samples: Samples seen by all ranks, which the schedule follows. Where ranks do not go in step, whoever
            runs them keeps it up to date.
    """

    def __init__(
        self,
        *,
        workload: Workload,
        model: nn.Module,
        data: Dataset[Any],
        strategy: Strategy,
        links: Links,
        batch_size: int,
        learning_rate: float,
        max_batch_size_per_rank: int | None,
        seed: int,
        delay_seconds: Callable[[], float] | None = None,
    ) -> None:
        self.workload, self.model, self.data, self.strategy = workload, model, data, strategy
        self.batch_size = batch_size
        self.device = next(model.parameters()).device
        self.step = 0
        self.samples = 0
        self._offset, size = shard(batch_size, links.rank, links.num_ranks)
        self.share = Share(batch_size=batch_size, num_ranks=links.num_ranks, num_samples=size)
        self._delay_seconds = delay_seconds
        self._micro_batches = micro_batch_sizes(size, max_batch_size_per_rank)
        self._stream = SampleStream(len(data), seed)  # type: ignore[arg-type]
        model.train()
        self.optimizer = workload.optimizer(model.parameters(), learning_rate)
        self._peak_rates = [group["lr"] for group in self.optimizer.param_groups]
        rng = np.random.default_rng((seed, links.rank, 1))
        self._module = strategy.attach(model, self.optimizer, links, rng)
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
            self._step()
            self._timer.end_step()
            after_each()

    def read_stride(self) -> tuple[list[StepSeconds], list[Exchange], bool]:
        """The steps of the last stride, their exchanges, and whether training is still finite.

        With a barrier, what says so is equal on all ranks: what they exchanged. A rank that is alone, or
        goes at its own pace, asks its own losses.
        """
        exchanges = self.strategy.exchanges()
        steps = self._timer.read(exchanges)
        if self.share.num_ranks == 1 or not self.strategy.traits.barrier:
            return steps, exchanges, self.losses_are_finite()
        return steps, exchanges, all(exchange.is_finite for exchange in exchanges)

    def losses_are_finite(self) -> bool:
        """Whether this rank's losses of the last stride were finite."""
        return math.isfinite(float(self._loss_total))

    def _step(self) -> None:
        self._set_learning_rate()
        self.strategy.before_step(self.share)
        self.optimizer.zero_grad(set_to_none=True)
        # Each rank keeps its place in every batch of the stream, whatever batch the others are at.
        start = self.step * self.batch_size + self._offset
        for size in self._micro_batches[:-1]:
            with self.strategy.accumulating():
                self._forward_and_backward(start, size)
            start += size
        self._forward_and_backward(start, self._micro_batches[-1])
        self.strategy.after_backward()
        if self._delay_seconds is not None:
            time.sleep(self._delay_seconds())
        self.optimizer.step()
        self.strategy.after_step()
        self.step += 1
        self.samples += self.batch_size

    def _forward_and_backward(self, start: int, size: int) -> None:
        with self._timer.input():
            batch = fetch(self.data, self._stream.indices(start, size).tolist(), self.device)
        loss = self.workload.loss(self._module, batch)
        self._loss_total += loss.detach()
        torch.autograd.backward(loss * self.strategy.loss_weight(size, self.share))

    def _set_learning_rate(self) -> None:
        factor = self.workload.schedule(self.samples)
        for group, peak in zip(self.optimizer.param_groups, self._peak_rates, strict=True):
            group["lr"] = peak * factor
