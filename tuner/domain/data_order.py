"""The order in which ranks process the training data.

There is one stream of samples, the same for any number of ranks, which is split into batches.
"""

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
    """An endless stream of sample indices: one random permutation of the data set per epoch.

    A batch consists of the next samples of the stream. It may begin in one epoch and end in the next, so no
    batch is shorter than the others. The stream does not depend on the number of ranks or on batch sizes.

    Args:
        num_samples: Number of samples of the data set, at least 1.
        seed: Seed of the permutations. The permutation of an epoch depends on this seed and on the number of
            the epoch.
    """

    def __init__(self, num_samples: int, seed: int) -> None:
        if num_samples < 1:
            raise JobError(
                "training_data() of the workload returned an empty dataset; it must have at least one sample"
            )
        self._num_samples = num_samples
        self._seed = seed
        self._epochs: dict[int, NDArray[np.int64]] = {}

    def indices(self, start: int, count: int) -> NDArray[np.int64]:
        """Returns the data-set indices of `count` consecutive samples of the stream.

        Args:
            start: Number of samples of the stream that come before the first returned one.
            count: Number of samples.
        """
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
            # A batch at the end of an epoch needs two permutations; older ones are dropped.
            self._epochs = {n: order for n, order in self._epochs.items() if n == epoch - 1}
            rng = np.random.default_rng((self._seed, epoch))
            self._epochs[epoch] = rng.permutation(self._num_samples)
        return self._epochs[epoch]


def shard(batch_size: int, rank: int, num_ranks: int) -> tuple[int, int]:
    """Returns which part of a global batch one rank processes.

    The parts are contiguous, and the sizes of two parts differ by at most one sample.

    Args:
        batch_size: Number of samples of the global batch.
        rank: Index of the rank.
        num_ranks: Number of ranks.

    Returns:
        Offset of the part within the batch, and its number of samples.

    Raises:
        JobError: The batch has fewer samples than there are ranks.
    """
    if batch_size < num_ranks:
        raise JobError(
            f"batch_size {batch_size} leaves some of {num_ranks} ranks without a sample; "
            f"batch_size must be {num_ranks} or more"
        )
    size, larger = divmod(batch_size, num_ranks)
    return rank * size + min(rank, larger), size + (rank < larger)


def micro_batch_sizes(num_samples: int, maximum: int | None) -> list[int]:
    """Splits `num_samples` into micro-batches of at most `maximum` samples, as few as possible.

    Returns the number of samples of each micro-batch; the numbers differ by at most one.
    """
    if maximum is None or num_samples <= maximum:
        return [num_samples]
    count = -(-num_samples // maximum)
    return [shard(num_samples, place, count)[1] for place in range(count)]


def fetch(data: Dataset[Any], indices: Sequence[int], device: torch.device) -> Any:
    """Reads samples from a data set, collates them to a batch, and moves the batch to a device.

    If the data set has a method `__getitems__`, it is called once. It may return a collated batch, as
    `Workload` describes, or a list of samples, as torch's own data sets do.

    Args:
        data: The data set.
        indices: Indices of the samples.
        device: Device to move the batch to.
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
    # A collated batch of pairs is a list of two tensors, too, but each of them has as many rows as the batch.
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
