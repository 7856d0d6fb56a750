"""The bundled workloads, made to refuse any device but the one that is checked."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from tuner.workloads.char_lm import CharLM
from tuner.workloads.digits import Digits


def require_device(model: nn.Module, device: str) -> None:
    """Raises where a model is somewhere else: a check on the wrong device would show nothing.

    Raises:
        RuntimeError: It is.
    """
    found = next(model.parameters()).device.type
    if found != device:
        raise RuntimeError(f"the model is on {found}, and {device} is checked")


class CheckedDigits(Digits):
    """Handwritten digits on one kind of device.

    Args:
        device: `cuda` or `cpu`.
        network: As of `Digits`.
        width: As of `Digits`.
    """

    def __init__(self, *, device: str, network: Any = "cnn", width: int = 32) -> None:
        super().__init__(network=network, width=width)
        self._device = device

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        require_device(model, self._device)
        return super().loss(model, batch)


class CheckedCharLM(CharLM):
    """The character-level language model on one kind of device.

    Args:
        device: `cuda` or `cpu`.
        sizes: As of `CharLM`.
    """

    def __init__(self, *, device: str, **sizes: Any) -> None:
        super().__init__(**sizes)
        self._device = device

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        require_device(model, self._device)
        return super().loss(model, batch)


class HungryDigits(CheckedDigits):
    """Digits whose every sample takes scratch memory of the device, so that large batches do not fit.

    On the CPU the process is kept to a little more address space than it has, so that the allocator fails
    as it does where memory is short.

    Args:
        device: `cuda` or `cpu`.
        bytes_per_sample: Scratch of one sample in a training step.
        headroom_bytes: On the CPU, address space that the process may still take.
    """

    def __init__(self, *, device: str, bytes_per_sample: int, headroom_bytes: int) -> None:
        super().__init__(device=device, network="mlp", width=16)
        self._bytes_per_sample = bytes_per_sample
        self._headroom_bytes = headroom_bytes

    def validation_data(self) -> Dataset[Any]:
        if self._device == "cpu":
            limit = _address_space_bytes() + self._headroom_bytes
            resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        return super().validation_data()

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        images, _ = batch
        shape = (len(images), self._bytes_per_sample)
        scratch = torch.empty(shape, dtype=torch.uint8, device=images.device)
        # One element is used: pages that are touched would be cleared, in huge ones, step after step.
        scratch[0, 0] = 0
        return super().loss(model, batch) + scratch[0, 0].float()


def _address_space_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * os.sysconf("SC_PAGE_SIZE")


class ReproducibleDigits(Digits):
    """Digits with dropout and deterministic kernels, so that two runs can be equal bit for bit.

    `PACELINE_CHECKED_DEVICE` in the environment says where it has to be: not a parameter, since a run that
    moves between devices is one job.

    Args:
        dropout: Chance of each hidden unit to be dropped in a step; 0 draws nothing on the device.
    """

    def __init__(self, *, dropout: float) -> None:
        super().__init__(network="cnn", width=16)
        self._dropout = dropout

    def model(self) -> nn.Module:
        torch.use_deterministic_algorithms(True)
        # Convolutions of ten-bit mantissas would be apart from those of a CPU.
        torch.backends.cudnn.allow_tf32 = False
        *layers, last = super().model().children()
        if self._dropout:
            layers.append(nn.Dropout(self._dropout))
        return nn.Sequential(*layers, last)

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        require_device(model, os.environ["PACELINE_CHECKED_DEVICE"])
        return super().loss(model, batch)
