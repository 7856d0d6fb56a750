"""Save a run to a checkpoint, and resume it on any number of ranks."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from tuner.domain.checkpoints import CheckpointFolder
from tuner.probes.ranks.replica import Replica

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


@dataclass(frozen=True, kw_only=True)
class ClockState:
    """The training clock in a checkpoint.

    Args:
        training_seconds: Its time, in seconds.
        typical_step_seconds: Duration of a settled step on these ranks; None if unknown.
    """

    training_seconds: float = 0.0
    typical_step_seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class RunStart:
    """The state of a run that a slice resumes.

    Args:
        clock: Its clock.
        rank_samples: Samples that each rank has seen, if asynchronous; empty if synchronous.
    """

    clock: ClockState = ClockState()
    rank_samples: tuple[int, ...] = ()


def own_state(replica: Replica) -> dict[str, Any]:
    """The state of one rank: buffers, random generators and, where replicas differ, the replica.

    Everything is on the CPU: a tensor that is sent from a device would be received on a device of its number.
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
    """Writes the checkpoint of a run.

    Args:
        folder: Where to.
        replica: The writing rank's; its model and optimizer stand for all where replicas do not differ.
        clock: The run's clock.
        owns: `own_state` of each rank; None for one that is lost.
        step: Global batches seen.
        rank_samples: Samples that each rank has seen, if ranks are asynchronous.

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
    """Saves a synchronous run; all ranks call it, rank 0 writes.

    Returns:
        The checkpoint's path on rank 0, None elsewhere.

    Raises:
        StorageError: The folder cannot be written.
    """
    own = own_state(replica)
    owns: list[Any] = [own]
    if group is not None:
        owns = [None] * group.size()
        dist.gather_object(own, owns if rank == 0 else None, dst=0, group=group)
    if rank != 0:
        return None
    return write_run(folder, replica, clock, owns, step=replica.step)


def load_run(path: Path | None, replica: Replica, *, rank: int, num_ranks: int, seed: int) -> RunStart:
    """Resumes from a checkpoint, or starts a run if there is none.

    On as many ranks as before, the run resumes as if never interrupted; a rank that was lost when it was
    saved starts as a copy of the first that was not. On another number, the buffers are the mean of
    what the ranks had, and generators are seeded again from rank and samples.

    Args:
        path: The checkpoint; None starts a run.
        replica: Freshly made; changed in place.
        rank: This rank.
        num_ranks: All ranks.
        seed: The job's.
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
    """A copy of a state with all tensors on the CPU; tensors that are there already are shared."""
    if isinstance(state, Tensor):
        return state.cpu()
    if isinstance(state, dict):
        # Of its own type: a model's state carries versions besides its entries.
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
    """Seeds Python's, NumPy's and torch's generators from some integers, at least 0."""
    words = np.random.SeedSequence(entropy).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))
    torch.manual_seed(int(words[2]))


def random_state(device: torch.device) -> dict[str, Any]:
    """The state of all generators, for `set_random_state`; it survives `torch.save`."""
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
    """Restores what `random_state` returned; a device without a saved state is seeded from torch's seed."""
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
        # Saved on a CPU. What this process drew before must not matter.
        torch.get_device_module(device).manual_seed(torch.initial_seed())


@contextmanager
def undisturbed(device: torch.device) -> Iterator[None]:
    """Context that restores the states of all random generators at its end."""
    state = random_state(device)
    try:
        yield
    finally:
        set_random_state(state, device)
