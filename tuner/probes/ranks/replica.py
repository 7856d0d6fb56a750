"""One rank's replica of the model: makes steps on its share of each batch."""

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
    """A model with optimizer and strategy, and its place in the stream of samples.

    Args:
        workload: What is trained.
        model: The model, on its device.
        data: The training data.
        strategy: Synchronizes it with the others.
        links: What connects this rank to the others.
        batch_size: Samples of a step over all ranks.
        learning_rate: Peak rate; the workload's schedule multiplies it.
        max_batch_size_per_rank: Above it a share is accumulated over micro-batches.
        seed: Of the data order and the strategy's draws.
        delay_seconds: Draws how long a step is delayed after its backward pass; None for not at all.

    Attributes:
        step: Steps this rank has made.
        samples: Samples seen by all ranks, which the schedule follows. If ranks are asynchronous, the
            training loop keeps it up to date.
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

    def read_chunk(self) -> tuple[list[StepSeconds], list[Exchange], bool]:
        """The steps of the last chunk, their exchanges, and whether training is still finite.

        Synchronous ranks decide by what they exchanged, which is equal on all of them. A rank that is alone
        or asynchronous decides by its own losses.
        """
        exchanges = self.strategy.exchanges()
        steps = self._timer.read(exchanges)
        if self.share.num_ranks == 1 or not self.strategy.traits.barrier:
            return steps, exchanges, self.losses_are_finite()
        return steps, exchanges, all(exchange.is_finite for exchange in exchanges)

    def losses_are_finite(self) -> bool:
        """Whether this rank's losses of the last chunk were finite."""
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


#: Steps of one slice that enter its spreads; more say nothing new and would only take memory.
MOST_STEPS_STORED = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class StepSeconds:
    """Where one step's time went.

    Args:
        step: The whole step.
        input: Waiting for data that compute did not hide.
        sync: Waiting for other ranks that compute did not hide.
    """

    step: float
    input: float
    sync: float

    @property
    def compute(self) -> float:
        """The remaining time: forward, backward, optimizer."""
        return max(0.0, self.step - self.input - self.sync)


class StepTimer:
    """Records timestamps while a step chunk runs, and reads them when it is over.

    A step lasts from the end of the one before, so that nothing between two steps goes unclocked.

    Args:
        device: What the steps run on.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._ends: list[Moment] = []
        self._inputs: list[list[tuple[Moment, Moment]]] = []
        self._step_inputs: list[tuple[Moment, Moment]] = []

    def begin(self) -> None:
        """Starts a step chunk."""
        self._ends = [moment(self._device)]
        self._inputs, self._step_inputs = [], []

    @contextmanager
    def input(self) -> Iterator[None]:
        """Within it the step's data are fetched and moved to the device; several times where it accumulates.

        An accelerator may still compute meanwhile, and a copy of pageable memory waits for it: only the time
        for which its stream had nothing else to do counts as input.
        """
        start = moment(self._device)
        yield
        self._step_inputs.append((start, moment(self._device)))

    def end_step(self) -> None:
        """Ends a step."""
        self._ends.append(moment(self._device))
        self._inputs.append(self._step_inputs)
        self._step_inputs = []

    def read(self, exchanges: Sequence[Exchange]) -> list[StepSeconds]:
        """The steps of the chunk, with the exchange of each; waits until the device has done them."""
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
    """The spreads of a rank's step times without its warm-up; None if it made no step."""
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
