"""Step times as Paceline takes them, against a bare loop between two events of the device.

Windows of the two loops alternate on the same model, batches and device. What Paceline records is the sum of
its steps; the bare loop is clocked by one pair of CUDA events, or by the host's clock on the CPU. A window of
Paceline's is held against the host's clock too, with the device waited for at both ends: kernels that still
run when Python has moved on must not be missing from its steps.
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from benchmarks.device_checks.findings import Findings
from search_spaces import Configuration
from tuner.domain.data_order import SampleStream, fetch
from tuner.domain.workload import AdamWSettings, Workload
from tuner.probes.ranks.replica import Replica, rank_timing
from tuner.probes.training_clock import TrainingClock
from tuner.strategies import Links, strategy
from tuner.workloads.char_lm import CharLM
from tuner.workloads.digits import Digits

#: On shared cores two equal loops differ by more than 3%.
_MOST_DIFFERENCE = {"cuda": 0.03, "cpu": 0.25}


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is timed.

    Args:
        name: Of the figures.
        workload: The workload.
        batch_size: Samples of a step.
        num_steps: Steps of a window.
        is_held: Whether a limit holds; where steps are shorter than what Python does around them, none does.
    """

    name: str
    workload: Workload
    batch_size: int
    num_steps: int
    is_held: bool


def cases(device: str) -> list[Case]:
    """A transformer that fills the device and a small network that does not."""
    if device == "cpu":
        large = CharLM(width=64, depth=2, heads=4, context=64)
        sizes = (32, 12)
    else:
        large = CharLM(width=768, depth=6, heads=12, context=256)
        sizes = (32, 25)
    small = Digits(network="cnn", width=32)
    large.optimizer_settings = AdamWSettings()
    return [
        Case(name="char_lm", workload=large, batch_size=sizes[0], num_steps=sizes[1], is_held=True),
        Case(name="digits", workload=small, batch_size=128, num_steps=sizes[1], is_held=False),
    ]


class BareLoop:
    """Fetches, computes and steps, with nothing around it."""

    def __init__(self, case: Case, model: torch.nn.Module) -> None:
        self._workload, self._model = case.workload, model.train()
        self._device = next(model.parameters()).device
        self._data = case.workload.training_data()
        self._stream = SampleStream(len(self._data), 0)  # type: ignore[arg-type]
        self._optimizer = case.workload.optimizer(model.parameters(), 1e-4)
        self._batch_size, self._step = case.batch_size, 0

    def run(self, num_steps: int) -> float:
        """Seconds a step."""
        clock = _Events(self._device)
        for _ in range(num_steps):
            indices = self._stream.indices(self._step * self._batch_size, self._batch_size).tolist()
            batch = fetch(self._data, indices, self._device)
            self._optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(self._workload.loss(self._model, batch))
            self._optimizer.step()
            self._step += 1
        return clock.seconds() / num_steps


class _Events:
    """Seconds since it was made, by two CUDA events; by the host's clock on the CPU."""

    def __init__(self, device: torch.device) -> None:
        self._is_cpu = device.type == "cpu"
        if not self._is_cpu:
            self._start: Any = torch.cuda.Event(enable_timing=True)
            self._start.record()
        self._began = time.perf_counter()

    def seconds(self) -> float:
        if self._is_cpu:
            return time.perf_counter() - self._began
        end: Any = torch.cuda.Event(enable_timing=True)
        end.record()
        end.synchronize()
        return float(self._start.elapsed_time(end)) / 1000


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def replica_of(case: Case, model: torch.nn.Module) -> Replica:
    """Paceline's own loop over the same model and data, on one rank."""
    axes: dict[str, Any] = {"nodes": 1, "batch_size": case.batch_size, "learning_rate": 1e-4}
    configuration = Configuration({**axes, "strategy": "all_reduce"})
    return Replica(
        workload=case.workload,
        model=model,
        data=case.workload.training_data(),
        strategy=strategy("all_reduce", configuration),
        links=Links(rank=0, num_ranks=1),
        batch_size=case.batch_size,
        learning_rate=1e-4,
        max_batch_size_per_rank=None,
        seed=0,
    )


def check(found: Findings) -> None:
    """Both networks; then what the clock makes of a cold start."""
    device = torch.device(found.device)
    torch.set_num_threads(1)
    # Convolutions are tried out at their first call: that must not count as training.
    torch.backends.cudnn.benchmark = True
    for case in cases(found.device):
        torch.manual_seed(0)
        _against_bare_loop(found, case, case.workload.model().to(device), device)
    _cold_start(found, device)


def _cold_start(found: Findings, device: torch.device) -> None:
    """The first steps of a model, compiled on a GPU: the clock leaves out what is slow only once."""
    workload = CharLM(width=64 if found.is_cpu else 256, depth=2, heads=4, context=64)
    num_steps = 16 if found.is_cpu else 60
    case = Case(name="cold_start", workload=workload, batch_size=48, num_steps=num_steps, is_held=True)
    replica = replica_of(case, workload.model().to(device))
    if not found.is_cpu:
        replica.model.compile()
    try:
        replica.run_chunk(num_steps, lambda: None)
        found.note("cold_start_is_compiled", not found.is_cpu)
    except Exception as error:  # no compiler on this machine: the start is a cold one all the same
        found.note("cold_start_is_compiled", f"{type(error).__name__}: {str(error)[:200]}")
        replica = replica_of(case, workload.model().to(device))
        replica.run_chunk(num_steps, lambda: None)
    steps = [step.step for step in replica.read_chunk()[0]]
    clock = TrainingClock()
    for seconds in steps:
        clock.add(seconds)
    settled = median(steps[num_steps // 2 :])
    found.note("cold_start_first_step_over_settled", steps[0] / settled)
    found.note("cold_start_all_steps_over_settled", sum(steps) / (num_steps * settled))
    ratio = clock.seconds / (num_steps * settled)
    # Python's own pauses stay in the clock: those are the run's.
    least, most = (0.5, 2.0) if found.is_cpu else (0.8, 1.2)
    found.require("cold_start_clock_over_settled", ratio, at_least=least, at_most=most)


def _against_bare_loop(found: Findings, case: Case, model: torch.nn.Module, device: torch.device) -> None:
    bare, replica = BareLoop(case, copy.deepcopy(model)), replica_of(case, model)
    bare.run(5)
    replica.run_chunk(5, lambda: None)
    replica.read_chunk()
    bare_seconds, own_seconds, of_wall, recorded = [], [], [], []
    for _ in range(5):
        bare_seconds.append(bare.run(case.num_steps))
        _wait(device)
        began = time.perf_counter()
        replica.run_chunk(case.num_steps, lambda: None)
        steps, _, _ = replica.read_chunk()
        _wait(device)
        wall = time.perf_counter() - began
        recorded.extend(steps)
        total = sum(step.step for step in steps)
        own_seconds.append(total / case.num_steps)
        of_wall.append(total / wall)
    ratio = median(own / plain for own, plain in zip(own_seconds, bare_seconds, strict=True))
    found.note(f"{case.name}_bare_milliseconds", 1000 * median(bare_seconds))
    found.note(f"{case.name}_step_milliseconds", 1000 * median(own_seconds))
    timing = rank_timing(recorded, rank=0, batch_size=case.batch_size)
    assert timing is not None
    found.note(f"{case.name}_input_share", timing.input.median / timing.step.median)
    difference = _MOST_DIFFERENCE[found.device]
    if not case.is_held:
        found.note(f"{case.name}_step_over_bare", ratio)
        found.note(f"{case.name}_steps_over_wall", median(of_wall))
        return
    found.require(f"{case.name}_step_over_bare", ratio, at_least=1 - difference, at_most=1 + difference)
    found.require(
        f"{case.name}_steps_over_wall", median(of_wall), at_least=1 - difference, at_most=1 + difference
    )
    if not found.is_cpu:
        # The host is ahead of the device: it must not be told that the device waited for data.
        found.require(
            f"{case.name}_input_over_step", timing.input.median / timing.step.median, at_least=0, at_most=0.1
        )
