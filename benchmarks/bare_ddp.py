"""What anybody would write: a training loop over `DistributedDataParallel`, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from benchmarks.strategy_workloads import Timed
from tuner.launchers import RankContext


def run(context: RankContext, payload: Mapping[str, Any]) -> list[float]:
    """Makes steps and returns the seconds of each.

    Args:
        context: The rank's place.
        payload: `workload` (parameters), `batch_size_per_rank`, `learning_rate`, `steps`.
    """
    dist.init_process_group(
        "gloo", init_method=context.init_method, rank=context.rank, world_size=context.num_ranks
    )
    try:
        return _train(context.rank, context.num_ranks, payload)
    finally:
        dist.destroy_process_group()


def _train(rank: int, num_ranks: int, payload: Mapping[str, Any]) -> list[float]:
    workload = Timed(**payload["workload"])
    torch.manual_seed(0)
    model = DistributedDataParallel(workload.model(), forward_sync_buffers=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=payload["learning_rate"], momentum=0.9)
    data: Any = workload.training_data()
    size, generator = payload["batch_size_per_rank"], torch.Generator().manual_seed(0)
    batches = data_batches(len(data), size * num_ranks, generator)
    seconds = []
    began = time.perf_counter()
    for _ in range(payload["steps"]):
        indices = next(batches)[rank * size : (rank + 1) * size]
        batch = data.__getitems__(indices)
        optimizer.zero_grad(set_to_none=True)
        workload.loss(model, batch).backward()
        optimizer.step()
        ended = time.perf_counter()
        seconds.append(ended - began)
        began = ended
    return seconds


def data_batches(num_samples: int, batch_size: int, generator: torch.Generator) -> Any:
    """Endless shuffled batches of indices."""
    order: list[int] = []
    while True:
        while len(order) < batch_size:
            order += torch.randperm(num_samples, generator=generator).tolist()
        batch, order = order[:batch_size], order[batch_size:]
        yield batch
