"""Estimates gradient noise from squared norms of gradients over small batches and over a large batch.

For example, p ranks compute the small gradients g_r, and the all-reduce computes the large gradient g.
Symbols:

- g_r: mean gradient over the b_r samples of part r of a batch (small gradient).
- g: mean gradient over the whole batch of B samples (large gradient). It is the sum of (b_r / B) g_r over r.
- p: number of parts.
- G: the gradient without noise, that is, the expected value of g.
- S: trace of the covariance matrix of the gradient of a single sample (the noise).
- E: expected value.

    E|g|^2   = |G|^2 + S / B                      (McCandlish et al. 2018, equation A.1)
    E|g_r|^2 = |G|^2 + S / b_r
    A        = sum_r (b_r / B) |g_r|^2,  so  E A = |G|^2 + p S / B  for all values of b_r

    S     = B (A - |g|^2) / (p - 1)
    |G|^2 = (p |g|^2 - A) / (p - 1)

Both estimates are unbiased. A single estimate of |G|^2 may be negative. To compute the noise scale S / |G|^2,
therefore average S and |G|^2 over many estimates first. The formulas assume that the samples of a batch are
independent given the parameters, which does not hold under batch norm.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from tuner.domain.data_order import fetch
from tuner.domain.measurement import NoiseStatistic
from tuner.domain.workload import Workload
from tuner.probes.ranks.checkpoint_state import undisturbed

#: Number of small gradients of one estimate (p), if one rank measures alone.
NUM_PARTS = 8

#: If one rank measures alone: the largest share of training time that it uses to measure gradient noise. This
#: time counts as evaluation time.
_TIME_SHARE = 0.08

_MOST_ESTIMATES_AT_A_POINT = 8


def noise_and_squared_gradient(
    weighted_small: float, large: float, *, batch_size: int, num_parts: int
) -> tuple[float, float]:
    """Computes unbiased estimates of S (noise) and |G|^2 (squared norm of the gradient without noise).

    The module docstring states the formulas.

    Args:
        weighted_small: A, the weighted mean of the small gradients' squared norms.
        large: |g|^2, the squared norm of the large gradient.
        batch_size: B, samples of the large gradient.
        num_parts: p, number of small gradients, at least 2.
    """
    noise = batch_size * (weighted_small - large) / (num_parts - 1)
    squared_gradient = (num_parts * large - weighted_small) / (num_parts - 1)
    return noise, squared_gradient


class NoiseTally:
    """Averages the estimates of gradient noise that were made between two evaluations.

    The module docstring defines A, g and the other symbols.
    """

    def __init__(self) -> None:
        self._weighted_small = 0.0
        self._large = 0.0
        self._count = 0

    @property
    def sums(self) -> tuple[float, float, int]:
        """Three values: the sum of A (or of this rank's term of A), the sum of |g|^2, and their number.

        The module docstring defines A and g.
        """
        return self._weighted_small, self._large, self._count

    def add(self, weighted_small: float, large: float) -> None:
        """Adds the squared norms of one estimate to the sums.

        Args:
            weighted_small: A; or this rank's term of A, (b_r / B) |g_r|^2, if the rank only knows its own
                term.
            large: |g|^2, the squared norm of the large gradient.
        """
        self._weighted_small += weighted_small
        self._large += large
        self._count += 1

    def take(
        self, weighted_small_sum: float, *, samples: int, batch_size: int, num_parts: int
    ) -> NoiseStatistic:
        """Returns the means of S and |G|^2 over the added estimates, and resets the sums.

        Args:
            weighted_small_sum: Sum of A over the added estimates, with the terms of all ranks.
            samples: Number of samples processed so far.
            batch_size: B, samples of the large gradient.
            num_parts: p, number of small gradients.
        """
        count = self._count
        noise, squared_gradient = noise_and_squared_gradient(
            weighted_small_sum / count, self._large / count, batch_size=batch_size, num_parts=num_parts
        )
        self._weighted_small, self._large, self._count = 0.0, 0.0, 0
        return NoiseStatistic(
            samples=samples, noise=noise, squared_gradient=squared_gradient, num_estimates=count
        )


class OneRankNoise:
    """Measures gradient noise on one rank, by computing gradients that are not used for training.

    One estimate computes the gradients of `NUM_PARTS` micro-batches of random samples at the current
    parameters. At each evaluation, estimates are made as long as their total time stays below `_TIME_SHARE`
    of the training time. Parameters, buffers and random generators do not change.

    Args:
        workload: Workload with the loss.
        model: The model, on its device.
        data: The training data.
        device: Device of the model.
        seed: Seed for choosing samples, combined with the number of samples processed.
        part_size: Number of samples of one small gradient.
        now: Function that returns the time in seconds.
    """

    def __init__(
        self,
        *,
        workload: Workload,
        model: nn.Module,
        data: Dataset[Any],
        device: torch.device,
        seed: int,
        part_size: int,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._workload, self._model, self._data = workload, model, data
        self._device, self._seed, self._part_size, self._now = device, seed, part_size, now
        self._spent_seconds = 0.0
        self._seconds_an_estimate: float | None = None

    def measure(
        self, samples: int, *, slice_seconds: float, seconds_a_sample: float
    ) -> NoiseStatistic | None:
        """Returns the gradient noise; None if an estimate would exceed the share `_TIME_SHARE` of time.

        Args:
            samples: Number of samples processed so far.
            slice_seconds: Training time of the slice so far.
            seconds_a_sample: Seconds per sample of a training step, from which the time of the first estimate
                is predicted.
        """
        tally = NoiseTally()
        rng = np.random.default_rng((self._seed, samples))
        price = self._seconds_an_estimate
        if price is None:
            price = seconds_a_sample * self._part_size * NUM_PARTS
        while (
            tally.sums[2] < _MOST_ESTIMATES_AT_A_POINT
            and self._spent_seconds + price <= _TIME_SHARE * slice_seconds
        ):
            started = self._now()
            tally.add(*self._estimate(rng))
            price = self._seconds_an_estimate = self._now() - started
            self._spent_seconds += price
        weighted_small, _, count = tally.sums
        if count == 0:
            return None
        return tally.take(
            weighted_small, samples=samples, batch_size=self._part_size * NUM_PARTS, num_parts=NUM_PARTS
        )

    def _estimate(self, rng: np.random.Generator) -> tuple[float, float]:
        chosen = rng.choice(len(self._data), self._part_size * NUM_PARTS, replace=False)  # type: ignore[arg-type]
        buffers = [(buffer, buffer.clone()) for buffer in self._model.buffers()]
        with undisturbed(self._device):
            pair = self._squared_norms(np.split(chosen, NUM_PARTS))
        with torch.no_grad():
            for buffer, saved in buffers:
                buffer.copy_(saved)
        return pair

    def _squared_norms(self, parts: list[Any]) -> tuple[float, float]:
        parameters = [p for p in self._model.parameters() if p.requires_grad]
        mean = [torch.zeros_like(p) for p in parameters]
        small = torch.zeros((), device=self._device)
        for indices in parts:
            loss = self._workload.loss(self._model, fetch(self._data, indices, self._device))
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
            for total, gradient in zip(mean, gradients, strict=True):
                if gradient is not None:
                    total.add_(gradient, alpha=1.0 / NUM_PARTS)
                    small += gradient.square().sum() / NUM_PARTS
        large = torch.stack([total.square().sum() for total in mean]).sum()
        return float(small), float(large)


def part_size(batch_size: int, num_training_samples: int, maximum: int | None) -> int | None:
    """Returns the number of samples of one small gradient, if one rank measures gradient noise alone.

    It is an eighth of the global batch, clamped to [8, 64]. It is smaller if the training data have fewer
    than `NUM_PARTS` times that many samples, or if `maximum` is smaller. The result is None if it would be
    below 2.

    Args:
        batch_size: Global batch size.
        num_training_samples: Number of samples of the training data.
        maximum: Largest batch that fits into memory; None for no limit.
    """
    size = min(max(8, batch_size // NUM_PARTS), 64, num_training_samples // NUM_PARTS)
    if maximum is not None:
        size = min(size, maximum)
    return size if size >= 2 else None
