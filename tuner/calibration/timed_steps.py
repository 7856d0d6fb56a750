"""Rank functions that time steps of the job's own workload, alternating between batch sizes."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from tuner.calibration.plan import CalibrationPlan
from tuner.domain.data_order import SampleStream, fetch
from tuner.domain.workload import Workload
from tuner.job import load_workload
from tuner.launchers import RankContext
from tuner.strategies.moments import moment, seconds_between
from tuner.transport.rendezvous import rank_device

#: Steps at a window's beginning that do not count: memory is laid out anew for another batch size.
_FIRST_STEPS = 3
#: Steps of each batch size before the first window.
_WARM_UP_STEPS = 5
#: Steps of a window at most.
_MOST_STEPS = 400


class StepLoop:
    """Makes steps as a rank of a training does, and times each.

    Args:
        workload: What is trained.
        model: What the loss is taken of, on its device.
        learning_rate: Of the optimizer.
        device: Where it runs.
        pause: Draws the delay of each step after its backward pass, as job files may ask for.
    """

    def __init__(
        self,
        workload: Workload,
        model: nn.Module,
        *,
        learning_rate: float,
        device: torch.device,
        pause: Callable[[], float] | None = None,
    ) -> None:
        self._workload, self._model, self._device, self._pause = workload, model, device, pause
        self._data = workload.training_data()
        self._stream = SampleStream(len(self._data), 0)  # type: ignore[arg-type]
        model.train()
        self._optimizer = workload.optimizer(model.parameters(), learning_rate)
        self._next = 0

    def run(self, batch_size: int, num_steps: int) -> list[float]:
        """Seconds of each of some steps, without their artificial delay."""
        moments, pauses = [moment(self._device)], []
        total = torch.zeros((), device=self._device)
        for _ in range(num_steps):
            self._optimizer.zero_grad(set_to_none=True)
            indices = self._stream.indices(self._next, batch_size).tolist()
            loss = self._workload.loss(self._model, fetch(self._data, indices, self._device))
            total += loss.detach()
            torch.autograd.backward(loss)
            pauses.append(0.0 if self._pause is None else self._pause())
            if pauses[-1]:
                time.sleep(pauses[-1])
            self._optimizer.step()
            self._next += batch_size
            moments.append(moment(self._device))
        spans = [seconds_between(start, end) for start, end in itertools.pairwise(moments)]
        return [span - pause for span, pause in zip(spans, pauses, strict=True)]


def pause_of(plan: CalibrationPlan, rank: int) -> Callable[[], float] | None:
    """The artificial delay of a rank's steps, if the job delays all ranks; None for none.

    It is no part of a step's compute, but what comes after it is slower: caches are cold, cores idle.
    """
    delays = [delay for delay in plan.job.resolved_cluster().delays if delay.ranks is None]
    if not delays:
        return None
    rng = np.random.default_rng((plan.job.seed, rank))
    return lambda: float(sum(rng.uniform(delay.low, delay.high) for delay in delays))


def own_workload(plan: CalibrationPlan, device: torch.device) -> tuple[Workload, nn.Module]:
    """The job's workload, and its model on the device."""
    torch.manual_seed(plan.job.seed)
    workload = load_workload(plan.job, plan.job_folder)
    return workload, workload.model().to(device)


def window_steps(plan: CalibrationPlan, step_seconds: float) -> int:
    """Steps that count of one window, if each computes for so long."""
    delays = [delay for delay in plan.job.resolved_cluster().delays if delay.ranks is None]
    still = sum(0.5 * (delay.low + delay.high) for delay in delays)
    wanted = round(plan.effort.window_seconds / max(step_seconds + still, 1e-9))
    return max(plan.effort.least_steps, min(wanted, _MOST_STEPS))


def time_steps(context: RankContext, payload: Mapping[str, Any]) -> dict[str, Any]:
    """Times steps of this rank alone; it asks no other rank.

    Args:
        context: The rank's place.
        payload: `CalibrationPlan.to_payload`.

    Returns:
        Bytes of the parameters, and of each round, of each batch size, seconds of its steps.
    """
    plan, device = CalibrationPlan.from_payload(payload), rank_device(context.local_rank)
    workload, model = own_workload(plan, device)
    loop = StepLoop(
        workload, model, learning_rate=plan.learning_rate, device=device, pause=pause_of(plan, context.rank)
    )
    return {
        "parameter_bytes": trainable_bytes(model),
        "rounds": timed_rounds(plan, loop.run, context),
    }


def timed_rounds(
    plan: CalibrationPlan, run: Callable[[int, int], list[float]], context: RankContext
) -> list[list[list[float]]]:
    """Seconds of steps, by round and batch size, without the first steps of each window."""
    sizes = plan.batch_sizes_per_rank
    usual = [sorted(run(size, _WARM_UP_STEPS + 3)[_WARM_UP_STEPS:])[1] for size in sizes]
    rounds = []
    for number in range(plan.effort.rounds):
        rounds.append(
            [
                run(size, _FIRST_STEPS + window_steps(plan, seconds))[_FIRST_STEPS:]
                for size, seconds in zip(sizes, usual, strict=True)
            ]
        )
        context.send({"round": number})
    return rounds


def trainable_bytes(model: nn.Module) -> int:
    """Bytes of the trainable parameters."""
    return sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
