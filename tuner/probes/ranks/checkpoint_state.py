"""Saves a training to a checkpoint, and resumes it on the same or another number of ranks."""

from __future__ import annotations

import copy
import io
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tuner.domain.checkpoints import CheckpointFolder
from tuner.probes.ranks.replica import Replica
from tuner.transport.rendezvous import gathered

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


@dataclass(frozen=True, kw_only=True)
class ClockState:
    """Training time in a checkpoint.

    Args:
        training_seconds: Training time so far, in seconds.
        typical_step_seconds: Median seconds of a step on these ranks, without the slow first steps; None if
            unknown.
    """

    training_seconds: float = 0.0
    typical_step_seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class RunStart:
    """Training time and samples at the checkpoint from which a slice continues.

    Args:
        clock: Training time so far.
        rank_samples: Number of samples that each rank has processed, if asynchronous; empty if synchronous.
    """

    clock: ClockState = ClockState()
    rank_samples: tuple[int, ...] = ()


def own_state(replica: Replica) -> dict[str, Any]:
    """Returns the part of a checkpoint that belongs to one rank, on the CPU.

    It contains the model's buffers and the states of random generators. If the parameters of ranks may differ
    under the strategy, it also contains parameters, optimizer, strategy and step. Tensors are moved to the
    CPU because the rank that writes the checkpoint has another device.
    """
    own: dict[str, Any] = {"buffers": _buffers(replica), "random": random_state(replica.device)}
    if _replicas_differ(replica):
        own["model"] = on_host(replica.model.state_dict())
        own["optimizer"] = on_host(replica.optimizer.state_dict())
        own["strategy"] = on_host(replica.strategy.state())
        own["step"] = replica.step
    return own


def write_run(
    folder: CheckpointFolder,
    replica: Replica,
    clock: ClockState,
    owns: Sequence[dict[str, Any] | None],
    *,
    step: int,
    rank_samples: Sequence[int] = (),
) -> Path:
    """Writes a checkpoint, and returns its path.

    Args:
        folder: Folder to which the checkpoint is written.
        replica: Replica of the rank that writes. If all replicas are equal under the strategy, its model and
            optimizer are stored once for all ranks.
        clock: Training time to store in the checkpoint.
        owns: Part of the checkpoint that belongs to each rank: the result of `own_state`; None for a lost
            rank.
        step: Number of global batches processed.
        rank_samples: Number of samples that each rank has processed; empty if ranks are synchronous.

    Raises:
        StorageError: The folder cannot be written.
    """
    content = {
        "model": on_host(replica.model.state_dict()),
        "optimizer": on_host(replica.optimizer.state_dict()),
        "strategy": {} if _replicas_differ(replica) else on_host(replica.strategy.state()),
        "step": step,
        "samples": replica.samples,
        "training_seconds": clock.training_seconds,
        "typical_step_seconds": clock.typical_step_seconds,
        "rank_samples": list(rank_samples),
        "ranks": list(owns),
    }
    position = {"samples": replica.samples, "step": step}
    return folder.save(lambda file: torch.save(content, file), position).path


def save_run(
    folder: CheckpointFolder,
    replica: Replica,
    clock: ClockState,
    *,
    rank: int,
    group: ProcessGroup | None,
) -> Path | None:
    """Saves a checkpoint of synchronous ranks. All ranks must call this function; rank 0 writes the file.

    Args:
        folder: Folder to which the checkpoint is written.
        replica: Replica of this rank.
        clock: Training time to store in the checkpoint.
        rank: Index of this rank.
        group: Process group of all ranks; None for one rank.

    Returns:
        The path of the checkpoint on rank 0; None on other ranks.

    Raises:
        StorageError: The folder cannot be written.
    """
    own = own_state(replica)
    owns: list[dict[str, Any] | None] = [own]
    if group is not None:
        saved = io.BytesIO()
        torch.save(own, saved)
        # Loaded with `weights_only`: a pickled object of another rank could run code.
        owns = [
            torch.load(io.BytesIO(received), map_location="cpu", weights_only=True)
            for received in gathered(saved.getvalue(), group, rank=rank)
        ]
    if rank != 0:
        return None
    return write_run(folder, replica, clock, owns, step=replica.step)


def load_run(path: Path | None, replica: Replica, *, rank: int, num_ranks: int, seed: int) -> RunStart:
    """Loads a checkpoint into a replica; if there is no checkpoint, seeds a new training.

    - If the checkpoint has the same number of ranks, the training continues as if it was never interrupted. A
      rank that was lost when the checkpoint was saved gets the state of the first rank that was not lost,
      except for buffers (their mean) and random generators (new seeds).
    - If the checkpoint has another number of ranks, buffers are set to their mean over the ranks of the
      checkpoint, and random generators are seeded from seed, rank and samples.

    Args:
        path: Path of the checkpoint; None for a new training.
        replica: New replica, which is changed in place.
        rank: Index of this rank.
        num_ranks: Number of ranks that train now.
        seed: Seed of the job, from which random generators are seeded.
    """
    if path is None:
        seed_all(seed, 1, rank, 0)
        return RunStart()
    content = torch.load(path, map_location="cpu", weights_only=True)
    owns = content["ranks"]
    same_ranks = len(owns) == num_ranks
    reported = [own for own in owns if own is not None]
    own = owns[rank] if same_ranks and owns[rank] is not None else None
    differing = (own or reported[0]) if same_ranks and "model" in reported[0] else content
    replica.model.load_state_dict(differing["model"])
    replica.optimizer.load_state_dict(differing["optimizer"])
    if differing is not content or not _replicas_differ(replica):
        of_all = [found["strategy"] for found in reported] if differing is not content else []
        replica.strategy.load(differing["strategy"], of_all=of_all, is_twin=own is None)
    replica.step, replica.samples = differing["step"], content["samples"]
    if own is not None:
        _set_buffers(replica, own["buffers"])
        set_random_state(own["random"], replica.device)
    else:
        _set_buffers(replica, _mean_buffers([found["buffers"] for found in reported]))
        seed_all(seed, 1, rank, replica.samples)
    clock = ClockState(
        training_seconds=content["training_seconds"],
        typical_step_seconds=content["typical_step_seconds"] if same_ranks else None,
    )
    return RunStart(clock=clock, rank_samples=tuple(content.get("rank_samples", ())) if same_ranks else ())


def on_host(state: Any) -> Any:
    """Returns a checkpoint's data with all tensors on the CPU; those already there are not copied."""
    if isinstance(state, Tensor):
        return state.cpu()
    if isinstance(state, dict):
        # `copy.copy` keeps the type and the metadata attribute of a model's state dictionary.
        moved = copy.copy(state)
        moved.update((key, on_host(value)) for key, value in state.items())
        return moved
    if type(state) in (list, tuple):
        return type(state)(on_host(value) for value in state)
    return state


def _replicas_differ(replica: Replica) -> bool:
    return replica.strategy.traits.exchanged == "parameters"


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


def seed_all(*entropy: int) -> None:
    """Seeds the random generators of Python, NumPy and torch with numbers derived from some integers."""
    words = np.random.SeedSequence(entropy).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))
    torch.manual_seed(int(words[2]))


def random_state(device: torch.device) -> dict[str, Any]:
    """Returns the states of all random generators, in a form that `torch.save` can store."""
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.array(keys, dtype=np.int64)), position, has_gauss, gauss),
        "torch": torch.get_rng_state(),
    }
    if device.type != "cpu":
        state["device"] = torch.get_device_module(device).get_rng_state(device)
    return state


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Restores the result of `random_state`. A device without a saved state is seeded from torch's seed."""
    version, words, gauss_next = state["python"]
    random.setstate((version, tuple(words), gauss_next))
    name, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    torch.set_rng_state(state["torch"])
    if device.type == "cpu":
        return
    if "device" in state:
        torch.get_device_module(device).set_rng_state(state["device"], device)
    else:
        # The state was saved on a CPU. Seed the device, so that earlier draws of this process have no effect.
        torch.get_device_module(device).manual_seed(torch.initial_seed())


@contextmanager
def undisturbed(device: torch.device) -> Iterator[None]:
    """Context manager that restores the states of all random generators at its end."""
    state = random_state(device)
    try:
        yield
    finally:
        set_random_state(state, device)
