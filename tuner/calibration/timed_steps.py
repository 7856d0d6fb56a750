"""Functions that ranks run during a calibration: they time training steps with alternating batch sizes."""

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
from tuner.strategies.flat import trainable_bytes
from tuner.strategies.moments import moment, seconds_between
from tuner.transport.rendezvous import rank_device

#: Number of steps at the beginning of a window that are not timed: after a change of batch size, memory is
#: allocated anew. A window is a series of consecutive steps with one batch size.
_FIRST_STEPS = 3
#: Number of steps of each batch size before the first window.
_WARM_UP_STEPS = 5
#: Largest number of steps of a window.
_MOST_STEPS = 400


class StepLoop:
    """Makes optimizer steps like a rank in a training, and times each step.

    Args:
        workload: Workload with data, loss and optimizer.
        model: Model of the workload, on the device.
        learning_rate: Learning rate of the optimizer.
        device: Device to compute on.
        pause: Function that draws the artificial delay after a backward pass, in seconds; None for no delay.
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
        """Makes steps of one batch size; returns the seconds of each step without its artificial delay."""
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
    """Returns a function that draws the artificial delay of a step; None unless the job delays all ranks.

    The delay itself is not timed, but it makes the computation after it slower, because caches are cold and
    cores idle.
    """
    delays = [delay for delay in plan.job.resolved_cluster().delays if delay.ranks is None]
    if not delays:
        return None
    rng = np.random.default_rng((plan.job.seed, rank))
    return lambda: float(sum(rng.uniform(delay.low, delay.high) for delay in delays))


def own_workload(plan: CalibrationPlan, device: torch.device) -> tuple[Workload, nn.Module]:
    """Returns the job's workload, and a new model of it on the device."""
    torch.manual_seed(plan.job.seed)
    workload = load_workload(plan.job, plan.job_folder)
    return workload, workload.model().to(device)


def window_steps(plan: CalibrationPlan, step_seconds: float) -> int:
    """Returns how many steps of one batch size are timed in a row (a window).

    Args:
        plan: The plan of the calibration, which states the approximate duration of a window.
        step_seconds: Seconds of one step, without its artificial delay.
    """
    delays = [delay for delay in plan.job.resolved_cluster().delays if delay.ranks is None]
    still = sum(0.5 * (delay.low + delay.high) for delay in delays)
    wanted = round(plan.effort.window_seconds / max(step_seconds + still, 1e-9))
    return max(plan.effort.least_steps, min(wanted, _MOST_STEPS))


def time_steps(context: RankContext, payload: Mapping[str, Any]) -> dict[str, Any]:
    """Times steps of this rank without communication.

    Args:
        context: Rank context of the launcher.
        payload: Result of `CalibrationPlan.to_payload`.

    Returns:
        `parameter_bytes`: size of the trainable parameters; `rounds`: seconds, indexed by round, batch size
        and step.
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
    """Times steps in windows, which are series of consecutive steps with one batch size.

    The batch size alternates from window to window.

    Args:
        plan: The plan of the calibration.
        run: Function of batch size and number of steps that makes these steps and returns their seconds.
        context: Rank context, to which the end of each round is reported.

    Returns:
        Seconds, indexed by round, batch size and step, without the first steps of each window.
    """
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
