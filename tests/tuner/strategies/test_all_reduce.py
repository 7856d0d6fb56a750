import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tuner.launchers import JobState, LocalLauncher, RankTask
from tuner.strategies import Links, Share
from tuner.strategies.all_reduce import AllReduce

HERE = str(Path(__file__).parent)


@pytest.fixture
def launcher(warm_ranks: LocalLauncher, monkeypatch: pytest.MonkeyPatch) -> LocalLauncher:
    monkeypatch.syspath_prepend(HERE)
    return warm_ranks


def run(
    launcher: LocalLauncher, folder: Path, sizes: list[int], *, bare: bool = False
) -> list[dict[str, Any]]:
    task = RankTask(
        function="strategy_ranks:train",
        payload={"sizes": sizes, "steps": 4, "bare": bare},
        folder=folder,
    )
    handle = launcher.submit(task, num_nodes=len(sizes), devices_per_node=1)
    until = time.monotonic() + 60
    while time.monotonic() < until:
        status = launcher.poll(handle)
        if status.state.has_ended:
            assert status.state is JobState.SUCCEEDED, status.failures
            return [status.results[rank] for rank in range(len(sizes))]
        time.sleep(0.01)
    launcher.cancel(handle)
    raise AssertionError(f"ranks still run after a minute: {launcher.logs(handle)}")


@pytest.mark.parametrize("sizes", [[4, 4], [4, 3, 3]])
def test_gradients_are_those_of_bare_distributed_data_parallel(
    launcher: LocalLauncher, tmp_path: Path, sizes: list[int]
) -> None:
    ours = run(launcher, tmp_path, sizes)
    bare = run(launcher, tmp_path, sizes, bare=True)
    if len(sizes) == 2:
        # Two numbers have one sum, in whatever order a collective adds.
        assert ours[0]["parameters"] == bare[0]["parameters"]
    for mine, theirs in zip(ours[0]["parameters"], bare[0]["parameters"], strict=True):
        torch.testing.assert_close(torch.tensor(mine), torch.tensor(theirs))
    assert ours[0]["parameters"] == ours[-1]["parameters"]


def test_exchange_shows_the_norms_of_local_and_mean_gradient(launcher: LocalLauncher, tmp_path: Path) -> None:
    sizes = [5, 2, 3]
    results = run(launcher, tmp_path, sizes)
    first = [result["exchanges"][0] for result in results]
    for rank, (sync_seconds, exchanged_bytes, local, mean) in enumerate(first):
        assert sync_seconds >= 0
        assert exchanged_bytes == 4 * sum(len(p) for p in results[0]["parameters"])
        # Equal on all ranks to the last bit, and the norm of what the optimizer was given.
        assert mean == first[0][3]
        assert mean == pytest.approx(results[rank]["mean_squares"][0], rel=1e-5)
        # The local norm is that of the mean over the rank's own samples, whatever its share.
        assert local == pytest.approx(_squared_norm_alone(rank, sizes[rank]), rel=1e-4)


def _squared_norm_alone(rank: int, num_samples: int) -> float:
    sys.path.insert(0, HERE)
    try:
        from strategy_ranks import batch_of, small_model
    finally:
        sys.path.remove(HERE)
    model = small_model()
    inputs, classes = batch_of(0, rank, num_samples)
    nn.functional.cross_entropy(model(inputs), classes).backward()
    return sum(float(p.grad.double().square().sum()) for p in model.parameters() if p.grad is not None)


def test_scored_buffers_are_the_mean_over_ranks_and_training_keeps_its_own(
    launcher: LocalLauncher, tmp_path: Path
) -> None:
    means = [result["running_mean"] for result in run(launcher, tmp_path, [4, 4])]
    assert means[0]["own"] != means[1]["own"]
    expected = [(a + b) / 2 for a, b in zip(means[0]["own"], means[1]["own"], strict=True)]
    assert means[0]["scored"] == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert means[0]["scored"] == means[1]["scored"]
    assert [m["after"] for m in means] == [m["own"] for m in means]


def test_models_of_earlier_jobs_are_freed_in_a_warm_rank(launcher: LocalLauncher, tmp_path: Path) -> None:
    for _ in range(8):
        results = run(launcher, tmp_path, [4, 4])
        assert [result["num_models_alive"] for result in results] == [1, 1]


def test_one_rank_is_the_plain_model_without_a_process_group(launcher: LocalLauncher, tmp_path: Path) -> None:
    (alone,) = run(launcher, tmp_path, [8])
    assert alone["is_plain"]
    assert alone["exchanges"] == [[0.0, 0, None, None]] * 4


def test_weights_of_all_micro_batches_and_ranks_average_to_the_batch_mean() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=10)
    shares = [[3, 1], [3], [2, 1]]
    strategy = AllReduce()
    total, start = 0.0, 0
    for sizes in shares:
        share = Share(batch_size=10, num_ranks=3, num_samples=sum(sizes))
        for size in sizes:
            total += strategy.loss_weight(size, share) * values[start : start + size].mean() / 3
            start += size
    assert total == pytest.approx(values.mean(), rel=1e-12)


def test_scoring_before_attaching_is_our_own_mistake() -> None:
    with pytest.raises(AssertionError, match="attach comes first"), AllReduce().scored_parameters():
        pass


def test_state_is_empty_so_that_ranks_may_change() -> None:
    model = nn.Linear(2, 1)
    strategy = AllReduce()
    strategy.attach(model, torch.optim.SGD(model.parameters(), lr=0.1), Links(), np.random.default_rng(0))
    assert strategy.state() == {}
    strategy.load({})
