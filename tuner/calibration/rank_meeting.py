"""How the ranks of a calibration meet: the same collectives and stores as a training's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from tuner.launchers import RankContext

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store
    from torch.distributed import ProcessGroup

#: How long a rank waits for the others.
_TIMEOUT = timedelta(seconds=120)


def rank_device(context: RankContext) -> torch.device:
    """This rank's device: its own accelerator, or the CPU where there is none."""
    if not torch.accelerator.is_available():
        return torch.device("cpu")
    accelerator = torch.accelerator.current_accelerator()
    assert accelerator is not None
    torch.accelerator.set_device_index(context.local_rank)
    return torch.device(accelerator.type, context.local_rank)


def store_of(context: RankContext) -> Store:
    """Where ranks that form no process group find each other."""
    found: tuple[Store, int, int] = next(
        iter(rendezvous(context.init_method, rank=context.rank, world_size=context.num_ranks))
    )
    return found[0]


@contextmanager
def process_group(context: RankContext, device: torch.device) -> Iterator[ProcessGroup]:
    """All ranks of the job, over the device's own backend: gloo on the CPU, NCCL with CUDA."""
    backend = "gloo"
    if device.type != "cpu":
        backend = f"cpu:gloo,{device.type}:{dist.get_default_backend_for_device(device)}"
    dist.init_process_group(
        backend,
        init_method=context.init_method,
        timeout=_TIMEOUT,
        rank=context.rank,
        world_size=context.num_ranks,
        device_id=None if device.type == "cpu" else device,
    )
    try:
        group = dist.group.WORLD
        assert group is not None
        yield group
    finally:
        dist.destroy_process_group()
