from __future__ import annotations

import numpy as np
import pytest
import torch

from tuner.probes.ranks.rank_setup import is_out_of_memory


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4294967296 bytes"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ],
)
def test_whoever_fails_to_allocate_is_understood(error: Exception) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED"),
        ValueError("out of memory"),
    ],
)
def test_other_faults_are_not_taken_for_it(error: Exception) -> None:
    assert not is_out_of_memory(error)


def test_real_allocations_that_fail_are_understood() -> None:
    with pytest.raises(RuntimeError) as failed:
        torch.empty(2**50, dtype=torch.uint8)
    assert is_out_of_memory(failed.value)
    with pytest.raises(MemoryError) as of_numpy:
        np.empty(2**50, dtype=np.uint8)
    assert is_out_of_memory(of_numpy.value)
