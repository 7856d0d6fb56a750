"""The one form all vectors of a job have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class VectorForm:
    """Length and type of a job's vectors.

    Args:
        num_elements: At least 1.
        dtype: A real floating type.
    """

    num_elements: int
    dtype: torch.dtype

    def __post_init__(self) -> None:
        if self.num_elements < 1:
            raise ValueError(f"num_elements={self.num_elements}: a vector has at least 1 element")
        if not self.dtype.is_floating_point:
            raise ValueError(f"dtype={self.dtype}: vectors have a floating type, for instance torch.float32")

    @property
    def num_bytes(self) -> int:
        """What one vector takes."""
        return self.num_elements * self.dtype.itemsize

    def new(self) -> Tensor:
        """A vector with nothing in it yet."""
        return torch.empty(self.num_elements, dtype=self.dtype)

    def view(self, buffer: Any, offset_bytes: int = 0) -> Tensor:
        """The vector that lies in a buffer; it keeps the buffer alive."""
        return torch.frombuffer(buffer, dtype=self.dtype, count=self.num_elements, offset=offset_bytes)

    def copy(self, source: Tensor, target: Tensor) -> None:
        """Copies a vector once, outside of what autograd records."""
        assert source.dtype == target.dtype == self.dtype, "a transport's vectors are of one type"
        assert source.numel() == target.numel() == self.num_elements, (
            "a transport's vectors are of one length"
        )
        # From a device it is waited for: the target is ordinary memory.
        assert target.device.type == "cpu", "a transport's own vectors lie on the CPU"
        target.detach().copy_(source.detach())
