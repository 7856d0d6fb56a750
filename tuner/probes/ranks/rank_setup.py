"""Prepares a rank (workload, data and model, cached between slices), and measures its memory."""

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
from tuner.probes.slice_plan import EvaluationPoints, SlicePlan, first_evaluation


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Workload, data and initial model, which are the same for all slices of a job.

    Args:
        workload: The workload, with loss, metric, optimizer and schedule.
        training_data: The workload's training data.
        validation_data: The workload's data for evaluation.
        untrained: Model with the initial parameters, equal on all ranks.
    """

    workload: Workload
    training_data: Dataset[Any]
    validation_data: Dataset[Any]
    untrained: nn.Module

    def model(self, device: torch.device) -> nn.Module:
        """Returns a new model with the initial parameters, on the device."""
        return copy.deepcopy(self.untrained).to(device)

    @property
    def num_training_samples(self) -> int:
        """Number of samples of the training data."""
        return len(self.training_data)  # type: ignore[arg-type]

    @property
    def horizon_samples(self) -> int | None:
        """Number of samples at which the learning-rate schedule ends; None if it has no end."""
        horizon: int | None = getattr(self.workload.schedule_settings, "horizon_samples", None)
        return horizon

    def evaluation_points(self, plan: SlicePlan) -> EvaluationPoints:
        """Returns the numbers of samples at which a run of the job is evaluated."""
        probe = plan.job.probe
        first = first_evaluation(self.num_training_samples, probe.first_score_samples)
        return EvaluationPoints(first, probe.score_growth, self.horizon_samples)


_warm: dict[str, Prepared] = {}


def prepare(plan: SlicePlan) -> Prepared:
    """Returns workload, data and initial model, cached if this process's last slice had the same job.

    Random generators are seeded with the job's seed before data and model are created. Data and model are
    therefore equal on all ranks.
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
        # Only one entry is cached: a rank usually serves one job, and data sets may be large.
        _warm.clear()
        _warm[key] = prepared
    return _warm[key]


def _seeded_model(workload: Workload, seed: int) -> nn.Module:
    seed_all(seed)
    return workload.model()


_PROCESS = Path("/proc/self")

#: If the message of a RuntimeError contains one of these texts, memory ran out. Such errors are raised if an
#: allocation fails outside of torch's caching allocator: in the CPU's allocator, in the CUDA runtime (when it
#: creates a context), or in cuBLAS and cuDNN (for their workspaces).
_OUT_OF_MEMORY_WORDS = (
    "can't allocate memory",
    "CUDA error: out of memory",
    "HIP error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def reset_peak_bytes(device: torch.device) -> None:
    """Resets the measured peak memory; needed because the process may have run larger probes before."""
    if device.type != "cpu":
        _statistics(device).reset_peak_memory_stats(device)
        return
    try:
        # Resets the peak resident size (proc_pid_clear_refs(5), value 5).
        (_PROCESS / "clear_refs").write_text("5")
    except OSError:
        # Without a reset, the peak may be that of an earlier, larger probe; it is never too small.
        return


def peak_bytes(device: torch.device) -> int:
    """Returns the peak memory since `reset_peak_bytes`, in bytes.

    On an accelerator: the memory of tensors. On the CPU: the resident size of the process, which includes
    libraries and data sets.
    """
    if device.type != "cpu":
        return int(_statistics(device).max_memory_allocated(device))
    try:
        lines = (_PROCESS / "status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _statistics(device: torch.device) -> Any:
    """Returns the torch module with memory statistics of a device: `torch.accelerator` from 2.9 on."""
    if hasattr(torch.accelerator, "max_memory_allocated"):
        return torch.accelerator
    return torch.get_device_module(device)


def parameter_bytes(model: nn.Module) -> int:
    """Returns the size of a model's parameters in bytes."""
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that memory could not be allocated, on a device or on the host."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY_WORDS)
