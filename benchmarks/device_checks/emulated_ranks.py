"""128 emulated ranks on the device and on the CPU: how fast, and whether they tell the same.

The virtual clock draws from the seed alone, so that seconds, bytes and staleness must be equal. Gradients
differ by rounding, so that losses and disagreement between ranks must be close.
"""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from benchmarks.device_checks.findings import Findings
from search_spaces import Configuration
from tuner.domain.cluster import VirtualCluster
from tuner.domain.workload import SGDSettings
from tuner.emulation import Emulation, Trained, emulation
from tuner.workloads.digits import Digits
from tuner.workloads.images import LabelledImages, image_loss

NUM_RANKS = 128
_SHARE = 8
_CLUSTER = VirtualCluster(
    fixed_seconds=2e-3, seconds_per_sample=1e-4, jitter=0.1, latency=5e-5, bytes_per_second=1.25e9
)
_STRATEGIES = ("all_reduce", "gossip_push", "elastic_averaging")


@dataclass(frozen=True, kw_only=True)
class EmulatedRun:
    """What an emulated run said.

    Args:
        rank_steps_a_second: Of the machine.
        seconds: Virtual.
        moved_bytes: By all ranks.
        staleness: Mean, in steps; -1 where nothing was mixed.
        loss: On the validation data, of what is scored.
        disagreement: Mean squared distance of ranks to their mean; 0 where all are one.
    """

    rank_steps_a_second: float
    seconds: float
    moved_bytes: int
    staleness: float
    loss: float
    disagreement: float


def check(found: Findings) -> None:
    """Some strategies, each on both devices from the same seed."""
    torch.set_num_threads(1)
    steps = 4 if found.is_cpu else 12
    for strategy in _STRATEGIES:
        here = _run(strategy, found.device, steps)
        there = _run(strategy, "cpu", steps)
        found.note(f"{strategy}_rank_steps_a_second", here.rank_steps_a_second)
        found.note(f"{strategy}_rank_steps_a_second_on_cpu", there.rank_steps_a_second)
        exact = ("seconds", "moved_bytes", "staleness")
        differing = [name for name in exact if getattr(here, name) != getattr(there, name)]
        found.expect(f"{strategy}_has_equal_times_bytes_and_staleness", not differing, ", ".join(differing))
        found.note(f"{strategy}_loss", here.loss)
        found.require(f"{strategy}_loss_apart", abs(here.loss / there.loss - 1), at_most=0.01)
        if there.disagreement > 0:
            difference = abs(here.disagreement / there.disagreement - 1)
            found.require(f"{strategy}_disagreement_apart", difference, at_most=0.05)


def _run(strategy: str, device: str, steps: int) -> EmulatedRun:
    """So many steps of every rank."""
    torch.manual_seed(0)
    workload = Digits(network="mlp", width=32)
    workload.optimizer_settings = SGDSettings(momentum=0.9)
    # Made on the CPU, so that both begin with the same parameters.
    model = workload.model().to(device)
    axes: dict[str, Any] = {"nodes": NUM_RANKS, "batch_size": _SHARE * NUM_RANKS, "learning_rate": 0.02}
    if strategy == "elastic_averaging":
        axes["tau"] = 3
    run = emulation(
        Trained(
            workload=workload,
            make_model=lambda: copy.deepcopy(model),
            data=workload.training_data(),
            configuration=Configuration({**axes, "strategy": strategy}),
            num_ranks=NUM_RANKS,
            cluster=_CLUSTER,
            seed=0,
        )
    )
    # The first step of all ranks also allocates and loads kernels.
    run.run(samples=_SHARE * NUM_RANKS)
    before, began = run.rank_steps, time.perf_counter()
    run.run(samples=_SHARE * NUM_RANKS * (1 + steps))
    if device != "cpu":
        torch.accelerator.synchronize()
    elapsed = time.perf_counter() - began
    return EmulatedRun(
        rank_steps_a_second=(run.rank_steps - before) / elapsed,
        seconds=run.seconds,
        moved_bytes=run.moved_bytes,
        staleness=-1.0 if run.staleness_steps is None else run.staleness_steps,
        loss=_loss(run, workload.validation_data(), device),
        disagreement=_disagreement([rank.model for rank in run.ranks]),
    )


def _loss(run: Emulation, data: Any, device: str) -> float:
    images: LabelledImages = data
    with run.scored(), torch.no_grad():
        value = float(image_loss(run.model, (images.images.to(device), images.labels.to(device))))
    if not math.isfinite(value):
        raise RuntimeError(f"the emulated run on {device} diverged")
    return value


def _disagreement(models: list[nn.Module]) -> float:
    if len(models) == 1:
        return 0.0
    vectors = torch.stack([nn.utils.parameters_to_vector(m.parameters()).detach().cpu() for m in models])
    return float((vectors - vectors.mean(dim=0)).double().square().sum(dim=1).mean())
