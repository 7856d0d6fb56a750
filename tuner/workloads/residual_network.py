"""A small residual network for grey images of about 28 x 28 pixels."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Normalization = Literal["batch", "group", "none"]

_CHANNELS_PER_GROUP = 8


class ResidualNetwork(nn.Module):
    """Two stages of residual blocks (He et al. 2016), at a half and a quarter of the resolution.

    The last layer of each block's branch starts at zero, so that a block begins as the identity and the
    network trains without normalisation too (Zhang, Dauphin, Ma 2019).

    Args:
        image_size: Height and width of the images, in pixels.
        num_classes: Outputs.
        width: Channels of the first stage; the second has twice as many.
        depth: Blocks of each stage.
        normalization: What follows a convolution; only `batch` makes a sample's result depend on the
            others of its batch on that rank.
        mean: Mean of the pixels, in 0 to 255.
        std: Standard deviation of the pixels, in 0 to 255.
    """

    def __init__(
        self,
        *,
        image_size: int,
        num_classes: int,
        width: int,
        depth: int,
        normalization: Normalization,
        mean: float,
        std: float,
    ) -> None:
        super().__init__()
        self.mean = mean
        self.std = std
        self.stem = nn.Sequential(
            _convolution(1, width, stride=2, normalization=normalization),
            _normalization(normalization, width),
            nn.ReLU(),
        )
        stages = [_Block(width, width, stride=1, normalization=normalization) for _ in range(depth)]
        for position in range(depth):
            first = position == 0
            stages.append(
                _Block(
                    width if first else 2 * width,
                    2 * width,
                    stride=2 if first else 1,
                    normalization=normalization,
                )
            )
        self.stages = nn.Sequential(*stages)
        # Positions are not averaged: with so few blocks that costs four times the samples to 85%.
        self.head = nn.Linear(2 * width * _quarter(image_size) ** 2, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Class scores `(num_images, num_classes)` of uint8 images `(num_images, 1, height, width)`."""
        scaled = (images.float() - self.mean) / self.std
        # Convolutions on a CPU are about 1.2 times as fast with channels last. The parameters keep
        # their usual layout, so that they can be viewed as one flat vector.
        stem = self.stem(scaled).contiguous(memory_format=torch.channels_last)
        features: Tensor = self.stages(stem)
        scores: Tensor = self.head(features.flatten(1))
        return scores


class _Block(nn.Module):
    def __init__(self, num_in: int, num_out: int, *, stride: int, normalization: Normalization) -> None:
        super().__init__()
        last_convolution = _convolution(num_out, num_out, stride=1, normalization=normalization)
        last_normalization = _normalization(normalization, num_out)
        last = last_convolution if normalization == "none" else last_normalization
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
        self.branch = nn.Sequential(
            _convolution(num_in, num_out, stride=stride, normalization=normalization),
            _normalization(normalization, num_out),
            nn.ReLU(),
            last_convolution,
            last_normalization,
        )
        self.stride = stride
        self.num_added = num_out - num_in

    def forward(self, features: Tensor) -> Tensor:
        return nn.functional.relu(self.branch(features) + self._shortcut(features))

    def _shortcut(self, features: Tensor) -> Tensor:
        """Every `stride`-th pixel, with channels of zeros added (option A of He et al. 2016)."""
        if self.stride == 1 and self.num_added == 0:
            return features
        kept = features[:, :, :: self.stride, :: self.stride]
        return nn.functional.pad(kept, (0, 0, 0, 0, 0, self.num_added))


def _quarter(size: int) -> int:
    """What two convolutions of stride 2 leave of a height or width."""
    return -(-size // 4)


def _convolution(num_in: int, num_out: int, *, stride: int, normalization: Normalization) -> nn.Conv2d:
    # A normalisation brings its own offset.
    return nn.Conv2d(num_in, num_out, 3, stride=stride, padding=1, bias=normalization == "none")


def _normalization(kind: Normalization, num_channels: int) -> nn.Module:
    if kind == "batch":
        return nn.BatchNorm2d(num_channels)
    if kind == "group":
        return nn.GroupNorm(max(1, num_channels // _CHANNELS_PER_GROUP), num_channels)
    return nn.Identity()
