"""Labelled images held in memory, and how often a model names them right."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

#: Images scored at once: larger batches leave the cache of a CPU core, smaller ones pay per call.
_SCORING_BATCH_SIZE = 100


class LabelledImages(Dataset[tuple[Tensor, Tensor]]):
    """Images as bytes, with their labels; models scale the bytes themselves.

    Args:
        images: Pixels, uint8, `(num_images, channels, height, width)`.
        labels: Classes, int64, `(num_images,)`.
    """

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        if len(images) != len(labels):
            raise ValueError(f"{len(images)} images but {len(labels)} labels")
        self.images = images
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.images[index], self.labels[index]

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """A collated batch: indexing whole tensors costs microseconds, collating items milliseconds."""
        chosen = torch.as_tensor(indices, dtype=torch.long)
        return self.images[chosen], self.labels[chosen]


def image_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Cross entropy of a batch of labelled images, mean over the images."""
    images, labels = batch
    return nn.functional.cross_entropy(model(images), labels)


def accuracy(model: nn.Module, data: LabelledImages) -> float:
    """Share of the images whose most likely class is the right one, on the model's device."""
    device = next(model.parameters()).device
    num_right = 0
    for start in range(0, len(data), _SCORING_BATCH_SIZE):
        images = data.images[start : start + _SCORING_BATCH_SIZE].to(device)
        labels = data.labels[start : start + _SCORING_BATCH_SIZE].to(device)
        num_right += int((model(images).argmax(dim=1) == labels).sum())
    return num_right / len(data)
