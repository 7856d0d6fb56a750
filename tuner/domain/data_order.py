"""The order of the data, whatever the ranks: one stream of samples, split into batches and shards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from tuner.domain.errors import JobError


class SampleStream:
    """An endless stream of sample indices: one permutation of the data set an epoch, end to end.

    A batch is the stream's next samples, so it may reach over an epoch's end and none is ever
    short. Where a batch begins depends on the samples before it alone, neither on ranks nor on the
    sizes of earlier batches.

    Args:
        num_samples: Of the data set, at least 1.
        seed: With the epoch's number it seeds the epoch's permutation.
    """

    def __init__(self, num_samples: int, seed: int) -> None:
        if num_samples < 1:
            raise JobError("the workload's training_data() is empty; it must hold at least one sample")
        self._num_samples = num_samples
        self._seed = seed
        self._epochs: dict[int, NDArray[np.int64]] = {}

    def indices(self, start: int, count: int) -> NDArray[np.int64]:
        """The indices of `count` samples from place `start` of the stream on."""
        parts = []
        while count > 0:
            epoch, offset = divmod(start, self._num_samples)
            running = self._permutation(epoch)[offset : offset + count]
            parts.append(running)
            start += len(running)
            count -= len(running)
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)

    def _permutation(self, epoch: int) -> NDArray[np.int64]:
        if epoch not in self._epochs:
            # Two are enough for the batch that reaches over an epoch's end.
            self._epochs = {n: order for n, order in self._epochs.items() if n == epoch - 1}
            rng = np.random.default_rng((self._seed, epoch))
            self._epochs[epoch] = rng.permutation(self._num_samples)
        return self._epochs[epoch]


def shard(batch_size: int, rank: int, num_ranks: int) -> tuple[int, int]:
    """A rank's contiguous part of a batch; sizes differ by at most one.

    Returns:
        Its offset within the batch, and how many samples it has.

    Raises:
        JobError: A rank would be left without a sample.
    """
    if batch_size < num_ranks:
        raise JobError(
            f"batch_size {batch_size} leaves some of {num_ranks} ranks without a sample; "
            f"allowed is {num_ranks} or more"
        )
    size, larger = divmod(batch_size, num_ranks)
    return rank * size + min(rank, larger), size + (rank < larger)


def micro_batch_sizes(num_samples: int, maximum: int | None) -> list[int]:
    """Sizes of the fewest micro-batches of at most `maximum` samples; they differ by at most one."""
    if maximum is None or num_samples <= maximum:
        return [num_samples]
    count = -(-num_samples // maximum)
    return [shard(num_samples, place, count)[1] for place in range(count)]


def fetch(data: Dataset[Any], indices: Sequence[int], device: torch.device) -> Any:
    """A collated batch of these samples on a device.

    A data set's `__getitems__` may give an already collated batch, as the contract of workloads
    says, or a list of samples, as torch's own data sets do.
    """
    several = getattr(data, "__getitems__", None)
    if several is None:
        batch = default_collate([data[index] for index in indices])
    else:
        batch = several(list(indices))
        if _is_list_of_samples(batch, len(indices)):
            batch = default_collate(batch)
    return _moved(batch, device)


def _is_list_of_samples(batch: Any, count: int) -> bool:
    if not isinstance(batch, list) or len(batch) != count:
        return False
    # A collated pair is a list of two tensors as well: each of them is as long as the batch.
    return not all(isinstance(part, Tensor) and part.dim() and len(part) == count for part in batch)


def _moved(batch: Any, device: torch.device) -> Any:
    if isinstance(batch, Tensor):
        return batch if batch.device == device else batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {key: _moved(part, device) for key, part in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_moved(part, device) for part in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(_moved(part, device) for part in batch)
    return batch
