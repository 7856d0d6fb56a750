"""Whether gradients of many ranks are cheaper in one call than one by one: `torch.func.vmap` against a loop.

    python -m benchmarks.emulation_batched --json

Several replicas, each with its own parameters and samples. The loop computes the gradient of one after the
other, as the emulation does; the batched call stacks their parameters, maps the workload's loss over them and
hands each its own gradient. Both fetch the same samples, and windows of both alternate on one thread. `gain`
is the loop's time over the batched call's, the median over windows. No update is made: it
is the same in both.
"""

from __future__ import annotations

import copy
import json
import time
import warnings
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, stack_module_state, vmap

from benchmarks.emulation import workloads
from tuner.domain.data_order import SampleStream, fetch
from tuner.domain.workload import Workload

_DEVICE = torch.device("cpu")


class _Loss(nn.Module):
    """A model whose output is its loss, so that it can be called with other parameters."""

    def __init__(self, workload: Workload, model: nn.Module) -> None:
        super().__init__()
        self.model, self._workload = model, workload

    def forward(self, batch: Any) -> Tensor:
        return self._workload.loss(self.model, batch)


class Replicas:
    """Several models of one workload.

    Args:
        workload: What is trained.
        count: How many.
        share: Samples of each one's step.
    """

    def __init__(self, workload: Workload, count: int, share: int) -> None:
        torch.manual_seed(0)
        model = workload.model().train()
        self._losses = [_Loss(workload, copy.deepcopy(model)) for _ in range(count)]
        self._data = workload.training_data()
        self._stream = SampleStream(len(self._data), 0)  # type: ignore[arg-type]
        self._share, self._step = share, 0
        skeleton = copy.deepcopy(self._losses[0]).to("meta")

        def loss(parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor], batch: Any) -> Tensor:
            found: Tensor = functional_call(skeleton, (parameters, buffers), (batch,))
            return found

        self._batched = vmap(grad_and_value(loss), randomness="different")

    def one_by_one(self) -> None:
        """A gradient of each replica."""
        for place, loss in enumerate(self._losses):
            loss.zero_grad(set_to_none=True)
            start = (self._step * len(self._losses) + place) * self._share
            found = loss(self._fetched(start, self._share))
            torch.autograd.backward(found)
            found.item()
        self._step += 1

    def at_once(self) -> None:
        """The same gradients, in one call."""
        count = len(self._losses)
        whole = self._fetched(self._step * count * self._share, count * self._share)
        batch = _first_samples(whole, count)
        with torch.no_grad():
            parameters, buffers = stack_module_state(self._losses)  # type: ignore[arg-type]
            gradients, losses = self._batched(parameters, buffers, batch)
            losses.tolist()
            for place, loss in enumerate(self._losses):
                for name, parameter in loss.named_parameters():
                    parameter.grad = gradients[name][place]
        self._step += 1

    def gradients(self) -> list[Tensor]:
        """What the last call found, a vector a replica."""
        return [torch.cat([p.grad.flatten() for p in loss.parameters()]) for loss in self._losses]  # type: ignore[union-attr]

    def again(self) -> None:
        """The next call takes the samples of the first."""
        self._step = 0

    def _fetched(self, start: int, count: int) -> Any:
        return fetch(self._data, self._stream.indices(start, count).tolist(), _DEVICE)


def _first_samples(batch: Any, count: int) -> Any:
    if isinstance(batch, Tensor):
        return batch.view(count, -1, *batch.shape[1:])
    return type(batch)(_first_samples(part, count) for part in batch)


def measure(
    workload: Workload, count: int, share: int, windows: int, window_seconds: float
) -> dict[str, Any]:
    """One line of the table; `difference` is of gradients, relative to their norm, at equal parameters."""
    replicas = Replicas(workload, count, share)
    replicas.one_by_one()
    expected = replicas.gradients()
    replicas.again()
    replicas.at_once()
    difference = max(
        float((found - own).norm() / own.norm())
        for found, own in zip(replicas.gradients(), expected, strict=True)
    )
    gains, loops, calls = [], [], []
    for _ in range(windows):
        seconds = [_seconds_a_call(ways, window_seconds) for ways in (replicas.one_by_one, replicas.at_once)]
        loops.append(seconds[0] / count)
        calls.append(seconds[1] / count)
        gains.append(seconds[0] / seconds[1])
    return {
        "loop_microseconds": round(1e6 * float(np.median(loops)), 1),
        "batched_microseconds": round(1e6 * float(np.median(calls)), 1),
        "gain": round(float(np.median(gains)), 2),
        "gain_smallest": round(min(gains), 2),
        "gain_largest": round(max(gains), 2),
        "difference": difference,
    }


def _seconds_a_call(call: Any, window_seconds: float) -> float:
    call()
    began, count = time.thread_time(), 0
    while (spent := time.thread_time() - began) < window_seconds or count < 2:
        call()
        count += 1
    return spent / count


def line_of(row: Mapping[str, Any]) -> str:
    """One row in words."""
    place = f"{row['workload']:14} {row['samples_a_rank']:>3} a rank, {row['ranks_at_once']:>3} at once: "
    if "refused" in row:
        return f"{place}{row['refused']}"
    return (
        f"{place}loop {row['loop_microseconds']:>8.0f} us, batched {row['batched_microseconds']:>8.0f} us: "
        f"{row['gain']:.2f}x ({row['gain_smallest']:.2f} to {row['gain_largest']:.2f}), "
        f"apart by {row['difference']:.1e}"
    )


def main(
    shares: Annotated[str, typer.Option(help="Samples a rank.")] = "2,4,8,16",
    counts: Annotated[str, typer.Option(help="Ranks in one call.")] = "8,32",
    names: Annotated[str | None, typer.Option("--workloads", help="Some of the workloads.")] = None,
    windows: Annotated[int, typer.Option(min=1, help="Alternations.")] = 5,
    window_seconds: Annotated[float, typer.Option(help="Length of one, of this thread's time.")] = 0.3,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print what one call for many ranks gains over a loop."""
    torch.set_num_threads(1)
    # Attention falls back to a loop over ranks; what that costs is what is measured.
    warnings.filterwarnings("ignore", message="There is a performance drop")
    rows = []
    for name, workload in workloads(*(names.split(",") if names else ())).items():
        for share in map(int, shares.split(",")):
            for count in map(int, counts.split(",")):
                row = {"workload": name, "ranks_at_once": count, "samples_a_rank": share}
                try:
                    row |= measure(workload, count, share, windows, window_seconds)
                except RuntimeError as error:
                    # Not every network can be mapped: one that asks for a memory layout cannot.
                    row["refused"] = str(error).splitlines()[0]
                rows.append(row)
                if not as_json:
                    print(line_of(row), flush=True)
    if as_json:
        print("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]")


if __name__ == "__main__":
    typer.run(main)
