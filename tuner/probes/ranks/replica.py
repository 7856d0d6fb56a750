"""One rank's replica of the model, which makes optimizer steps on its share of each global batch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from tuner.domain.data_order import SampleStream, fetch, micro_batch_sizes, shard
from tuner.domain.measurement import RankTiming, Spread
from tuner.domain.workload import Workload
from tuner.probes.training_clock import settled_from
from tuner.strategies import Exchange, Links, Moment, Share, Strategy, moment, seconds_between


class Replica:
    """One rank's model with optimizer, strategy and its part of the training data.

    Args:
        workload: Workload with loss, optimizer and learning-rate schedule.
        model: The model, on its device.
        data: The training data.
        strategy: Strategy that combines the gradients or parameters of the ranks.
        links: Connections of this rank to the other ranks.
        batch_size: Global batch size: number of samples that all ranks together process in one step.
        learning_rate: Peak learning rate, which the schedule multiplies by a factor.
        max_batch_size_per_rank: Largest micro-batch; gradients of larger shares are accumulated. None for no
            limit.
        seed: Seed of the data order and of the strategy's random choices.
        delay_seconds: Function that draws the artificial delay after a backward pass, in seconds; None for no
            delay.

    Attributes:
        step: Number of steps that this rank has made.
        samples: Number of samples that all ranks have processed, which determines the learning rate. For
            asynchronous ranks, the training loop sets it before each step.
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

    def run_chunk(self, num_steps: int, after_each: Callable[[], None]) -> None:
        """Makes several steps without waiting for the device after each, unless workload or strategy waits.

        Args:
            num_steps: Number of steps, at least 1.
            after_each: Function that is called after each step.
        """
        self._loss_total.zero_()
        self._timer.begin()
        for _ in range(num_steps):
            self._step()
            self._timer.end_step()
            after_each()

    def read_chunk(self) -> tuple[list[StepSeconds], list[Exchange], bool]:
        """Returns the results of the steps of the last `run_chunk`.

        Returns:
            1. The time of each step.
            2. The measurements of each step's communication with other ranks.
            3. Whether the training is still finite. Synchronous ranks check the exchanged values for this, so
               the result is the same on all ranks. A single or asynchronous rank checks its own losses.
        """
        exchanges = self.strategy.exchanges()
        steps = self._timer.read(exchanges)
        if self.share.num_ranks == 1 or not self.strategy.traits.barrier:
            return steps, exchanges, self.losses_are_finite()
        return steps, exchanges, all(exchange.is_finite for exchange in exchanges)

    def losses_are_finite(self) -> bool:
        """Whether this rank's losses of the last `run_chunk` were finite."""
        return math.isfinite(float(self._loss_total))

    def _step(self) -> None:
        self._set_learning_rate()
        self.strategy.before_step(self.share)
        self.optimizer.zero_grad(set_to_none=True)
        # A rank always takes the same part of each batch of the stream, even if other ranks are at another
        # batch.
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


#: Largest number of steps of one slice whose times are stored.
MOST_STEPS_STORED = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class StepSeconds:
    """Time of one step and its parts, in seconds.

    Args:
        step: Time of the whole step.
        input: Time of waiting for data, as far as it does not overlap with compute.
        sync: Time of waiting for other ranks, as far as it does not overlap with compute.
    """

    step: float
    input: float
    sync: float

    @property
    def compute(self) -> float:
        """Time of forward pass, backward pass and optimizer: the step without `input` and `sync`."""
        return max(0.0, self.step - self.input - self.sync)


class StepTimer:
    """Records timestamps during a chunk (several steps without a wait), and computes step times afterwards.

    The time of a step begins at the end of the previous step, so it includes the time between the two steps.

    Args:
        device: Device that the steps run on.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._ends: list[Moment] = []
        self._inputs: list[list[tuple[Moment, Moment]]] = []
        self._step_inputs: list[tuple[Moment, Moment]] = []

    def begin(self) -> None:
        """Starts a chunk of steps."""
        self._ends = [moment(self._device)]
        self._inputs, self._step_inputs = [], []

    @contextmanager
    def input(self) -> Iterator[None]:
        """Context manager around loading a batch and moving it to the device, to measure its time.

        It is used several times per step if gradients are accumulated. On an accelerator, only the time in
        which its stream had nothing else to do counts.
        """
        start = moment(self._device)
        yield
        self._step_inputs.append((start, moment(self._device)))

    def end_step(self) -> None:
        """Records the end of a step."""
        self._ends.append(moment(self._device))
        self._inputs.append(self._step_inputs)
        self._step_inputs = []

    def read(self, exchanges: Sequence[Exchange]) -> list[StepSeconds]:
        """Waits until the device has finished the chunk of steps; returns the time of each step.

        Args:
            exchanges: Communication of each step with other ranks, which contains the time of waiting for
                them.
        """
        return [
            StepSeconds(
                step=seconds_between(start, end),
                input=sum(seconds_between(*fetched) for fetched in inputs),
                sync=exchange.sync_seconds,
            )
            for start, end, inputs, exchange in zip(
                self._ends[:-1], self._ends[1:], self._inputs, exchanges, strict=True
            )
        ]


def rank_timing(steps: Sequence[StepSeconds], *, rank: int, batch_size: int) -> RankTiming | None:
    """Returns the distributions of a rank's step times, without the slow first steps; None without steps.

    Args:
        steps: Time of each step.
        rank: Index of the rank.
        batch_size: Samples per step of the rank.
    """
    if not steps:
        return None
    settled = steps[settled_from([step.step for step in steps]) :]
    return RankTiming(
        rank=rank,
        batch_size=batch_size,
        compute=Spread.of([step.compute for step in settled]),
        sync=Spread.of([step.sync for step in settled]),
        input=Spread.of([step.input for step in settled]),
        step=Spread.of([step.step for step in settled]),
    )
