"""The workload of `benchmarks.emulation_real`: a small network whose parameters are written down."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from tuner.domain.workload import METRICS, Workload
from tuner.workloads.digits import Digits
from tuner.workloads.images import LabelledImages, image_loss

Array = npt.NDArray[np.float64]

#: A rank's process writes the moments of its steps and the parameters they began with.
_TIMES, _VECTORS = "times-{process}.bin", "parameters-{process}.bin"


class Watched(Workload):
    """Handwritten digits, scored by their loss, with a record of what each step began with.

    Args:
        width: Of the network, as of `Digits`.
        folder: Where each process writes its parameters at each step; None for no record.
    """

    metric = METRICS["loss"]

    def __init__(self, *, width: int, folder: str | None = None) -> None:
        self._digits = Digits(network="mlp", width=width)
        self._folder = folder
        self._files: tuple[int, int] | None = None

    def model(self) -> nn.Module:
        return self._digits.model()

    def training_data(self) -> Dataset[Any]:
        return self._digits.training_data()

    def validation_data(self) -> Dataset[Any]:
        return self._digits.validation_data()

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        if self._folder is not None and model.training:
            self._write(self._folder, model)
        return image_loss(model, batch)

    def score(self, model: nn.Module, data: Dataset[Any]) -> float:
        images = cast(LabelledImages, data)
        return float(image_loss(model, (images.images, images.labels)))

    def _write(self, folder: str, model: nn.Module) -> None:
        if self._files is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            names = (name.format(process=os.getpid()) for name in (_TIMES, _VECTORS))
            times, vectors = (os.open(Path(folder) / name, flags) for name in names)
            self._files = times, vectors
        os.write(self._files[0], np.float64(time.monotonic()).tobytes())
        os.write(self._files[1], flat_parameters(model).numpy().tobytes())


def flat_parameters(model: nn.Module) -> Tensor:
    """All parameters as one vector of single precision."""
    return torch.cat([p.detach().flatten() for p in model.parameters()]).float()


def recorded_disagreement(folder: Path, *, num_instants: int) -> float:
    """Mean disagreement between the processes that wrote here, over the second half of their time.

    At each of some instants, each process counts with what its step under way began with.
    """
    records = [_record(path) for path in sorted(folder.glob(_TIMES.format(process="*")))]
    begin = max(float(times[0]) for times, _ in records)
    end = min(float(times[-1]) for times, _ in records)
    found = []
    for instant in np.linspace(begin + 0.5 * (end - begin), end, num_instants, endpoint=False):
        rows = [vectors[np.searchsorted(times, instant, side="right") - 1] for times, vectors in records]
        found.append(disagreement(np.stack(rows)))
    return float(np.mean(found))


def recorded_disagreement_in_step(folder: Path) -> float:
    """Mean disagreement between processes that make each step together, over the second half of their steps.

    By steps and not by time: most of the time is passed where ranks wait, which is where they disagree most.
    """
    records = [_record(path)[1] for path in sorted(folder.glob(_TIMES.format(process="*")))]
    num_steps = min(len(vectors) for vectors in records)
    rows = range(num_steps // 2, num_steps)
    return float(np.mean([disagreement(np.stack([vectors[row] for vectors in records])) for row in rows]))


def disagreement(vectors: npt.NDArray[Any]) -> float:
    """Mean squared distance of vectors `(num_ranks, num_parameters)` to their mean."""
    deviations = vectors - vectors.mean(axis=0)
    return float(np.mean(np.sum(deviations.astype(np.float64) ** 2, axis=1)))


def _record(times_path: Path) -> tuple[Array, npt.NDArray[np.float32]]:
    process = times_path.name.removeprefix("times-").removesuffix(".bin")
    times = np.fromfile(times_path, dtype=np.float64)
    vectors = np.fromfile(times_path.with_name(_VECTORS.format(process=process)), dtype=np.float32)
    return times, vectors.reshape(len(times), -1)
