"""Handwritten digits of scikit-learn: 1,797 images of 8 x 8 pixels, installed with it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from tuner.domain.workload import Workload
from tuner.workloads.images import LabelledImages, accuracy, image_loss

_NUM_CLASSES = 10
_IMAGE_SIZE = 8
_BRIGHTEST = 16.0
_NUM_VALIDATION = 397
#: The split is the data's own, not a run's: it must not move with the seed.
_SPLIT_SEED = 20161114


class Digits(Workload):
    """Classifies handwritten digits: 1,400 images to train on, 397 to score.

    Neither network normalises over batches, so models may be averaged exactly.

    Args:
        network: `cnn`, three convolutions and a linear layer, or `mlp`, two hidden layers.
        width: Channels of the first convolution, or an eighth of the units of a hidden layer.
    """

    def __init__(self, *, network: Literal["cnn", "mlp"] = "cnn", width: int = 32) -> None:
        if network not in ("cnn", "mlp"):
            raise ValueError(f"network must be 'cnn' or 'mlp', got {network!r}")
        if width < 1:
            raise ValueError(f"width must be at least 1, got {width}")
        self.network = network
        self.width = width

    def model(self) -> nn.Module:
        layers = _cnn(self.width) if self.network == "cnn" else _mlp(8 * self.width)
        return nn.Sequential(_Brightness(), *layers)

    def training_data(self) -> Dataset[Any]:
        return _split()[0]

    def validation_data(self) -> Dataset[Any]:
        return _split()[1]

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        return image_loss(model, batch)

    def score(self, model: nn.Module, data: Dataset[Any]) -> float:
        return accuracy(model, cast(LabelledImages, data))


class _Brightness(nn.Module):
    """Bytes to numbers of about unit variance."""

    def forward(self, images: Tensor) -> Tensor:
        return images.float() * (2.0 / _BRIGHTEST) - 1.0


def _cnn(width: int) -> list[nn.Module]:
    pixels_left = (_IMAGE_SIZE // 2) ** 2
    return [
        nn.Conv2d(1, width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2 * width * pixels_left, _NUM_CLASSES),
    ]


def _mlp(num_hidden: int) -> list[nn.Module]:
    return [
        nn.Flatten(),
        nn.Linear(_IMAGE_SIZE**2, num_hidden),
        nn.ReLU(),
        nn.Linear(num_hidden, num_hidden),
        nn.ReLU(),
        nn.Linear(num_hidden, _NUM_CLASSES),
    ]


@lru_cache(maxsize=1)
def _split() -> tuple[LabelledImages, LabelledImages]:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(bunch.target))
    images = torch.from_numpy(bunch.images[order].astype(np.uint8)).unsqueeze(1)
    labels = torch.from_numpy(bunch.target[order].astype(np.int64))
    return (
        LabelledImages(images[_NUM_VALIDATION:], labels[_NUM_VALIDATION:]),
        LabelledImages(images[:_NUM_VALIDATION], labels[:_NUM_VALIDATION]),
    )
