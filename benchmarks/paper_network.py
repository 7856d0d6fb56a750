"""The network of `benchmarks.paper`: a small batch-normalised residual one that runs for many ranks at once.

Activations are `(num_ranks, channels, height x width x samples)`, and each rank's parameters one vector: a
convolution is one batched matrix product, and batch norm over `num_ranks x channels` channels normalises each
rank's samples by themselves. Samples come last so that neighbours are copied in long runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

IMAGE_SIZE = 28
_PADDING, _PATCH = 2, 4
_LARGE, _SMALL = 8, 4  # heights and widths of the two stages
_NUM_CLASSES = 10
# Of the training images' pixels.
_PIXEL_MEAN, _PIXEL_STD = 72.94, 90.02
_EPSILON = 1e-5

Moments = tuple[Tensor, Tensor]


class Norms:
    """Batch norm, rank by rank; it keeps the moments it normalised by, or normalises by those it is given.

    Args:
        given: Mean and variance of each norm in their order; None for those of the samples at hand.
        keeps: Whether moments are kept.
    """

    def __init__(self, given: Sequence[Moments] | None = None, *, keeps: bool = False) -> None:
        self._given = iter(given) if given is not None else None
        self._keeps = keeps
        self.moments_seen: list[Moments] = []

    def __call__(self, features: Tensor, gain: Tensor, offset: Tensor) -> Tensor:
        """Normalised features `(num_ranks, channels, positions)`."""
        num_ranks, channels, positions = features.shape
        one = features.reshape(1, num_ranks * channels, positions)
        mean, variance = next(self._given) if self._given is not None else (None, None)
        if self._keeps:
            self.moments_seen.append((one.mean(dim=(0, 2)), one.var(dim=(0, 2), correction=0)))
        normalised = functional.batch_norm(
            one,
            mean,
            variance,
            gain.reshape(-1),
            offset.reshape(-1),
            training=self._given is None,
            eps=_EPSILON,
        )
        return normalised.view(num_ranks, channels, positions)


class Network(nn.Module):
    """A stem of 4 x 4 pixels, a residual block on 8 x 8, and one of twice the channels on 4 x 4.

    In training its samples are normalised in shares, as ranks would each by themselves.

    Args:
        width: Channels of the first block.
        share: Samples that are normalised together in training.
    """

    def __init__(self, *, width: int = 8, share: int = 16) -> None:
        super().__init__()
        self.width, self.share = width, share
        wide = 2 * width
        convolutions = [(width, _PATCH**2), (width, 9 * width), (width, 9 * width)]
        convolutions += [(wide, 9 * width), (wide, 9 * wide)]
        self._shapes: list[tuple[int, ...]] = []
        parts = []
        for place, (outputs, inputs) in enumerate(convolutions):
            # A block begins as the identity (Zhang, Dauphin, Ma 2019): its last gain is 0.
            gain = torch.full((outputs,), 0.0 if place in (2, 4) else 1.0)
            weights = torch.randn(outputs, inputs) * math.sqrt(2.0 / inputs)
            parts += [weights, gain, torch.zeros(outputs)]
        inputs = wide * _SMALL**2
        parts += [torch.randn(_NUM_CLASSES, inputs) / math.sqrt(inputs), torch.zeros(_NUM_CLASSES)]
        self._shapes = [tuple(part.shape) for part in parts]
        self.vector = nn.Parameter(torch.cat([part.flatten() for part in parts]))

    def forward(self, images: Tensor) -> Tensor:
        """Class scores `(num_images, classes)`; the number of images is one of whole shares."""
        shares = len(images) // self.share
        by_share = images.view(shares, self.share, IMAGE_SIZE, IMAGE_SIZE)
        return self.logits(self.vector.expand(shares, -1), by_share, Norms()).flatten(0, 1)

    def logits(self, vectors: Tensor, images: Tensor, norms: Norms) -> Tensor:
        """Class scores of many ranks.

        Args:
            vectors: Parameters `(num_ranks, num_parameters)`.
            images: Bytes `(num_ranks, num_images, 28, 28)`.
            norms: Normalises.

        Returns:
            `(num_ranks, num_images, classes)`.
        """
        take = self._parts(vectors)
        ranks, n = images.shape[:2]
        scaled = (images.permute(0, 2, 3, 1).float() - _PIXEL_MEAN) / _PIXEL_STD
        scaled = functional.pad(scaled, (0, 0, _PADDING, _PADDING, _PADDING, _PADDING))
        patches = scaled.view(ranks, _LARGE, _PATCH, _LARGE, _PATCH, n).permute(0, 2, 4, 1, 3, 5)
        x = torch.bmm(next(take), patches.reshape(ranks, _PATCH**2, _LARGE**2 * n))
        x = norms(x, next(take), next(take)).relu_()
        x = _block(x, take, norms, n, _LARGE)
        x = x.view(ranks, self.width, _SMALL, 2, _SMALL, 2 * n)
        x = x[:, :, :, 0] + x[:, :, :, 1]
        x = 0.25 * (x[..., :n] + x[..., n:]).reshape(ranks, self.width, _SMALL**2 * n)
        x = _block(x, take, norms, n, _SMALL)
        flat = x.view(ranks, -1, n).transpose(1, 2)
        head, offset = next(take), next(take)
        return torch.baddbmm(offset.unsqueeze(1), flat, head.transpose(1, 2))

    @torch.no_grad()
    def moments(self, images: Tensor) -> list[Moments]:
        """Of every norm over these images, layer by layer."""
        norms = Norms(keeps=True)
        self.logits(self.vector.unsqueeze(0), images.view(1, -1, IMAGE_SIZE, IMAGE_SIZE), norms)
        return norms.moments_seen

    @torch.no_grad()
    def scores(self, images: Tensor, moments: Sequence[Moments]) -> Tensor:
        """Class scores under given moments."""
        one = images.view(1, -1, IMAGE_SIZE, IMAGE_SIZE)
        return self.logits(self.vector.unsqueeze(0), one, Norms(moments))[0]

    def _parts(self, vectors: Tensor) -> Iterator[Tensor]:
        sections = torch.split(vectors, [math.prod(shape) for shape in self._shapes], dim=1)
        for section, shape in zip(sections, self._shapes, strict=True):
            yield section.reshape(len(vectors), *shape)


def _block(x: Tensor, take: Iterator[Tensor], norms: Norms, num_images: int, size: int) -> Tensor:
    """Two convolutions beside a shortcut, to which channels of zeros are added (option A, He et al. 2016)."""
    branch = _convolution(x, next(take), num_images, size)
    branch = norms(branch, next(take), next(take)).relu_()
    branch = _convolution(branch, next(take), num_images, size)
    branch = norms(branch, next(take), next(take))
    return (branch + functional.pad(x, (0, 0, 0, branch.shape[1] - x.shape[1]))).relu_()


def _convolution(features: Tensor, weights: Tensor, num_images: int, size: int) -> Tensor:
    out: Tensor = _Convolution.apply(features, weights, num_images, size)  # type: ignore[no-untyped-call]
    return out


class _Convolution(torch.autograd.Function):
    """3 x 3, stride 1, on square images whose positions are `size x size x num_images`."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weights: Tensor, num_images: int, size: int) -> Tensor:
        columns = _columns(features, num_images, size)
        ctx.save_for_backward(columns, weights)
        ctx.shape = (num_images, size)
        return torch.bmm(weights, columns)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        columns, weights = ctx.saved_tensors
        (gradient,) = gradients
        num_ranks, outputs, ninefold = weights.shape
        # By the input: a convolution of the output's gradient with the kernels turned round.
        turned = weights.view(num_ranks, outputs, ninefold // 9, 9).flip(3).transpose(1, 2)
        turned = turned.reshape(num_ranks, ninefold // 9, outputs * 9)
        by_features = torch.bmm(turned, _columns(gradient.contiguous(), *ctx.shape))
        return by_features, torch.bmm(gradient, columns.transpose(1, 2)), None, None


def _columns(features: Tensor, num_images: int, size: int) -> Tensor:
    """The nine neighbours of every position: `(num_ranks, channels x 9, positions)`."""
    num_ranks, channels, positions = features.shape
    padded = functional.pad(features.view(num_ranks * channels, size, size, num_images), (0, 0, 1, 1, 1, 1))
    row, n = (size + 2) * num_images, num_images
    windows = padded.as_strided(
        (num_ranks * channels, 3, 3, size, size * n), ((size + 2) * row, row, n, row, 1)
    )
    return windows.reshape(num_ranks, channels * 9, positions)
