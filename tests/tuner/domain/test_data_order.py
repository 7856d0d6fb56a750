from collections import namedtuple
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Dataset, Subset, TensorDataset

from tuner.domain.data_order import SampleStream, fetch, micro_batch_sizes, shard
from tuner.domain.errors import JobError

CPU = torch.device("cpu")


@given(n=st.integers(1, 50), start=st.integers(0, 200), count=st.integers(0, 120), part=st.integers(0, 120))
def test_stream_is_the_same_however_it_is_cut(n: int, start: int, count: int, part: int) -> None:
    part = min(part, count)
    whole = SampleStream(n, seed=3).indices(start, count)
    stream = SampleStream(n, seed=3)
    parts = np.concatenate([stream.indices(start, part), stream.indices(start + part, count - part)])
    assert whole.tolist() == parts.tolist()
    assert len(whole) == count


def test_every_epoch_holds_each_sample_once_in_an_order_of_its_own() -> None:
    stream = SampleStream(30, seed=0)
    epochs = [stream.indices(30 * epoch, 30).tolist() for epoch in range(3)]
    assert all(sorted(epoch) == list(range(30)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_order_follows_the_seed() -> None:
    assert SampleStream(30, seed=1).indices(0, 30).tolist() == SampleStream(30, 1).indices(0, 30).tolist()
    assert SampleStream(30, seed=1).indices(0, 30).tolist() != SampleStream(30, 2).indices(0, 30).tolist()


def test_empty_data_set_is_refused() -> None:
    with pytest.raises(JobError, match="returned an empty dataset"):
        SampleStream(0, seed=0)


@given(batch_size=st.integers(1, 300), num_ranks=st.integers(1, 17))
def test_shards_cover_the_batch_in_order_and_differ_by_at_most_one(batch_size: int, num_ranks: int) -> None:
    if batch_size < num_ranks:
        with pytest.raises(JobError, match=f"without a sample; batch_size must be {num_ranks} or more"):
            shard(batch_size, 0, num_ranks)
        return
    shards = [shard(batch_size, rank, num_ranks) for rank in range(num_ranks)]
    covered = [place for offset, size in shards for place in range(offset, offset + size)]
    assert covered == list(range(batch_size))
    sizes = [size for _, size in shards]
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 1


@given(num_samples=st.integers(1, 300), maximum=st.integers(1, 50))
def test_micro_batches_are_few_even_and_within_the_maximum(num_samples: int, maximum: int) -> None:
    sizes = micro_batch_sizes(num_samples, maximum)
    assert sum(sizes) == num_samples
    assert max(sizes) <= maximum
    assert max(sizes) - min(sizes) <= 1
    assert len(sizes) == -(-num_samples // maximum)


def test_share_without_a_maximum_is_one_micro_batch() -> None:
    assert micro_batch_sizes(1000, None) == [1000]


DATA = TensorDataset(torch.arange(10.0), torch.arange(10) * 10)


class Collated(Dataset[Any]):
    def __getitems__(self, indices: list[int]) -> list[torch.Tensor]:
        return [torch.tensor(indices, dtype=torch.float32), torch.tensor(indices) * 10]


class ListOfSamples(Dataset[Any]):
    def __getitems__(self, indices: list[int]) -> list[tuple[float, int]]:
        return [(float(index), index * 10) for index in indices]


@pytest.mark.parametrize("data", [DATA, Subset(DATA, range(10)), Collated(), ListOfSamples()])
@pytest.mark.parametrize("indices", [[7], [2, 5], [1, 2, 3]])
def test_batch_is_collated_whichever_way_the_data_set_gives_it(data: Any, indices: list[int]) -> None:
    values, labels = fetch(data, indices, CPU)
    assert values.tolist() == [float(index) for index in indices]
    assert labels.tolist() == [index * 10 for index in indices]


Pair = namedtuple("Pair", "first second")


class Nested(Dataset[Any]):
    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"pair": Pair(torch.tensor(index), [torch.tensor(1.0)]), "name": str(index)}


def test_nested_batches_keep_their_form() -> None:
    batch = fetch(Nested(), [3, 4], CPU)
    assert isinstance(batch["pair"], Pair)
    assert batch["pair"].first.tolist() == [3, 4]
    assert batch["pair"].second[0].tolist() == [1.0, 1.0]
    assert batch["name"] == ["3", "4"]
