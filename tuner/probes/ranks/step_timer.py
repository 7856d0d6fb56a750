"""Times steps and their parts without making the device wait."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from tuner.domain.measurement import RankTiming, Spread
from tuner.probes.training_clock import settled_from
from tuner.strategies import Exchange, Moment, moment, seconds_between

#: Steps of one slice that enter its spreads; more say nothing new and would only take memory.
MOST_STEPS_KEPT = 10_000


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
        """The rest: forward, backward, optimizer."""
        return max(0.0, self.step - self.input - self.sync)


class StepTimer:
    """Takes moments while a stride of steps runs, and reads them when it is over.

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
        """Begins a stride."""
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
        """The steps of the stride, with the exchange of each; waits until the device has done them."""
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
    """The spreads of a rank's steps, warm-up left out; None where no step was made."""
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
