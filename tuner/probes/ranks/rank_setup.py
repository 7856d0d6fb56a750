"""Set up a rank: workload and data (cached between slices); measure its memory."""

from __future__ import annotations

import copy
import json
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from tuner.domain.workload import Workload
from tuner.job import load_workload
from tuner.probes.ranks.checkpoint_state import seed_all
from tuner.probes.slice_plan import SlicePlan


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What does not change from slice to slice of a job.

    Args:
        workload: The workload.
        training_data: Its training data.
        validation_data: What it is scored on.
        untrained: The model as initialised, equal on all ranks.
    """

    workload: Workload
    training_data: Dataset[Any]
    validation_data: Dataset[Any]
    untrained: nn.Module

    def model(self, device: torch.device) -> nn.Module:
        """A new model with the initial parameters, on the device."""
        return copy.deepcopy(self.untrained).to(device)


_warm: dict[str, Prepared] = {}


def prepare(plan: SlicePlan) -> Prepared:
    """Workload, data and initial model; from this process's memory where the last slice had the same.

    The generators are seeded by the job's seed alone before each is made, so that they are equal on
    all ranks, whatever their number.
    """
    section = plan.job.trained.model_dump(mode="json")
    key = json.dumps([section, plan.job.seed, str(plan.job_folder)], sort_keys=True)
    if key not in _warm:
        seed_all(plan.job.seed)
        workload = load_workload(plan.job, plan.job_folder)
        prepared = Prepared(
            workload=workload,
            training_data=workload.training_data(),
            validation_data=workload.validation_data(),
            untrained=_seeded_model(workload, plan.job.seed),
        )
        # One is cached: a rank serves one job, and data sets may be large.
        _warm.clear()
        _warm[key] = prepared
    return _warm[key]


def _seeded_model(workload: Workload, seed: int) -> nn.Module:
    seed_all(seed)
    return workload.model()


_PROCESS = Path("/proc/self")

#: Who fails to allocate outside of torch's caching allocator raises a plain RuntimeError: the CPU's
#: allocator, the CUDA runtime (when creating a context), cuBLAS and cuDNN for their workspaces.
_OUT_OF_MEMORY_WORDS = (
    "can't allocate memory",
    "CUDA error: out of memory",
    "HIP error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def reset_peak_bytes(device: torch.device) -> None:
    """Resets the peak: a warm rank's largest size so far is that of other probes."""
    if device.type != "cpu":
        _statistics(device).reset_peak_memory_stats(device)
        return
    try:
        # Resets the peak resident size (proc_pid_clear_refs(5), value 5).
        (_PROCESS / "clear_refs").write_text("5")
    except OSError:
        # Without it the peak is the process's: too large after a larger probe, never too small.
        return


def peak_bytes(device: torch.device) -> int:
    """Largest memory since `reset_peak_bytes`.

    On an accelerator that of its tensors; on the CPU the process's resident size, libraries and data
    sets included.
    """
    if device.type != "cpu":
        return int(_statistics(device).max_memory_allocated(device))
    try:
        lines = (_PROCESS / "status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _statistics(device: torch.device) -> Any:
    """What counts a device's memory: one module for all kinds since torch 2.9, one a kind before."""
    if hasattr(torch.accelerator, "max_memory_allocated"):
        return torch.accelerator
    return torch.get_device_module(device)


def parameter_bytes(model: nn.Module) -> int:
    """Bytes of a model's parameters."""
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that an allocation failed, on a device or on the host."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY_WORDS)
