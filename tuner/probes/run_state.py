"""What a run's checkpoint holds, and how a slice goes on from it, on as many ranks as it likes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import torch
import torch.distributed as dist
from torch import Tensor

from tuner.checkpoints import CheckpointFolder
from tuner.probes.random_state import random_state, seed_all, set_random_state
from tuner.probes.replica import Replica

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


@dataclass(frozen=True, kw_only=True)
class ClockState:
    """The training clock in a checkpoint.

    Args:
        training_seconds: Where it stands.
        typical_step_seconds: A settled step on these ranks; None where it is not known.
    """

    training_seconds: float = 0.0
    typical_step_seconds: float | None = None


def save_run(
    folder: CheckpointFolder,
    replica: Replica,
    clock: ClockState,
    *,
    rank: int,
    group: ProcessGroup | None,
) -> Path | None:
    """Saves a run; all ranks call it, rank 0 writes.

    Parameters and optimizer are rank 0's, equal to the others' where the strategy keeps them
    so. Every rank adds what is its own: buffers (batch-norm statistics) and random generators.

    Returns:
        The checkpoint's path on rank 0, None elsewhere.

    Raises:
        StorageError: The folder cannot be written.
    """
    own = {"buffers": _buffers(replica), "random": random_state(replica.device)}
    owns: list[Any] = [own]
    if group is not None:
        owns = [None] * group.size()
        dist.gather_object(own, owns if rank == 0 else None, dst=0, group=group)
    if rank != 0:
        return None
    content = {
        "model": replica.model.state_dict(),
        "optimizer": replica.optimizer.state_dict(),
        "strategy": replica.strategy.state(),
        "step": replica.step,
        "samples": replica.samples,
        "training_seconds": clock.training_seconds,
        "typical_step_seconds": clock.typical_step_seconds,
        "ranks": owns,
    }

    def write(file: BinaryIO) -> None:
        torch.save(content, file)

    return folder.save(write, {"samples": replica.samples, "step": replica.step}).path


def load_run(path: Path | None, replica: Replica, *, rank: int, num_ranks: int, seed: int) -> ClockState:
    """Goes on from a checkpoint, or begins a run where there is none.

    On as many ranks as before, the run goes on as if never interrupted. On another number, the
    buffers are the mean of what the ranks had, and generators are seeded anew from rank and samples.

    Args:
        path: The checkpoint; None begins a run.
        replica: Freshly made; changed in place.
        rank: This rank.
        num_ranks: All ranks.
        seed: The job's.
    """
    if path is None:
        seed_all(seed, 1, rank, 0)
        return ClockState()
    content = torch.load(path, map_location="cpu", weights_only=True)
    replica.model.load_state_dict(content["model"])
    replica.optimizer.load_state_dict(content["optimizer"])
    replica.strategy.load(content["strategy"])
    replica.step, replica.samples = content["step"], content["samples"]
    owns = content["ranks"]
    if len(owns) == num_ranks:
        _set_buffers(replica, owns[rank]["buffers"])
        set_random_state(owns[rank]["random"], replica.device)
    else:
        _set_buffers(replica, _mean_buffers([own["buffers"] for own in owns]))
        seed_all(seed, 1, rank, replica.samples)
    return ClockState(
        training_seconds=content["training_seconds"],
        typical_step_seconds=content["typical_step_seconds"] if len(owns) == num_ranks else None,
    )


def _buffers(replica: Replica) -> dict[str, Tensor]:
    return {name: buffer.detach().cpu().clone() for name, buffer in replica.model.named_buffers()}


def _set_buffers(replica: Replica, values: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, buffer in replica.model.named_buffers():
            buffer.copy_(values[name])


def _mean_buffers(of_ranks: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    means = {}
    for name, first in of_ranks[0].items():
        if first.is_floating_point():
            means[name] = torch.stack([buffers[name] for buffers in of_ranks]).mean(dim=0)
        else:
            means[name] = first
    return means
