"""How much memory a slice took, and whether an error says that there was not enough."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import torch
from torch import nn

_PROCESS = Path("/proc/self")

#: Who fails to allocate outside of torch's caching allocator raises a plain RuntimeError: the CPU's
#: allocator, the CUDA runtime (as where a context finds no room), cuBLAS and cuDNN for their workspaces.
_OUT_OF_MEMORY_WORDS = (
    "can't allocate memory",
    "CUDA error: out of memory",
    "HIP error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def reset_peak_bytes(device: torch.device) -> None:
    """Begins a new peak: a warm rank's largest size so far is that of other probes."""
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
