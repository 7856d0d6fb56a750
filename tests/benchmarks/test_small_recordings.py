"""The recordings for development: files that load, the same each time, and what staleness does to curves."""

from __future__ import annotations

import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.small_network import (
    ASYNC,
    SYNC,
    WORST_VALUE,
    Metric,
    Scoring,
    Split,
    Task,
    gradient,
    initial_parameters,
    score,
    train,
)
from benchmarks.small_recordings import DIGITS, FASHION, MACHINES, digits, fashion_mnist, record
from search_spaces import Configuration
from tuner.domain.errors import DataNotFoundError
from tuner.recordings.file import load_recording, write_recording
from tuner.recordings.recording import Recording

ROOT = Path(__file__).resolve().parents[2]
TASK = Task(metric="loss", num_hidden=8, num_samples=2_000)
TINY = replace(DIGITS, task=TASK, node_counts=(1, 4), batch_sizes=(16,), learning_rates=(0.1, 1.0))


@pytest.fixture(scope="module")
def data() -> Split:
    return digits()


@pytest.fixture(scope="module")
def tiny(data: Split) -> Recording:
    return record(TINY, data)


def trained(
    data: Split, nodes: int, batch_size: int, learning_rate: float, strategy: str, task: Task = TASK
) -> list[Scoring]:
    what = Configuration(nodes=nodes, batch_size=batch_size, learning_rate=learning_rate, strategy=strategy)
    return train(task, data, what, np.random.default_rng(0))


def test_a_recording_loads_again_as_it_was_made(tiny: Recording, tmp_path: Path) -> None:
    write_recording(tiny, tmp_path / "tiny.jsonl.gz")
    loaded = load_recording(tmp_path / "tiny.jsonl.gz")
    assert len(loaded.runs) == 2 * 1 * 2 * 2 * len(MACHINES)
    assert loaded.configurations() == tiny.configurations()
    assert (loaded.startup_seconds, loaded.batch_size_scope, loaded.extra_nodes) == (0.015, "rank", 1)
    for run in tiny.runs:
        again = loaded.run(run.configuration)
        np.testing.assert_array_equal(again.curve, run.curve)
        assert again.step_seconds == run.step_seconds


def test_two_recordings_of_a_plan_are_the_same_file(tiny: Recording, data: Split, tmp_path: Path) -> None:
    write_recording(tiny, tmp_path / "one.jsonl.gz")
    write_recording(record(TINY, data), tmp_path / "two.jsonl.gz")
    assert (tmp_path / "one.jsonl.gz").read_bytes() == (tmp_path / "two.jsonl.gz").read_bytes()


def test_a_run_does_not_depend_on_what_else_is_recorded(tiny: Recording, data: Split) -> None:
    part = replace(TINY, node_counts=(4,), learning_rates=(1.0,))
    for run in record(part, data).runs:
        np.testing.assert_array_equal(run.curve, tiny.run(run.configuration).curve)


def test_on_one_node_synchronous_and_asynchronous_training_are_the_same(tiny: Recording) -> None:
    for what in tiny.configurations():
        if what.nodes == 1 and what.strategy == SYNC:
            sync, other = tiny.run(what), tiny.run(what.replaced(strategy=ASYNC))
            np.testing.assert_array_equal(sync.curve[:, 1:], other.curve[:, 1:])


def test_the_first_turn_of_all_ranks_is_one_synchronous_step_at_their_summed_rate(data: Split) -> None:
    # All gradients of the first turn are by the first parameters, which is what staleness means.
    turn = trained(data, 4, 64, 0.05, ASYNC)[0]
    step = trained(data, 4, 64, 0.2, SYNC)[0]
    assert (turn.step, step.step) == (4, 1)
    assert turn.value == pytest.approx(step.value, rel=1e-5)


def test_gradients_of_more_ranks_are_staler_and_spoil_a_large_rate(data: Split) -> None:
    # Losses after the same number of samples; other seeds give 0.7 to 1.2, 1.4 to 2.1 and 2.2 to 2.5.
    losses = [trained(data, nodes, 16, 0.2, ASYNC)[-1].value for nodes in (1, 4, 16)]
    assert losses[0] < losses[1] < losses[2]


@pytest.mark.parametrize("metric", ["loss", "accuracy"])
def test_what_diverges_has_the_worst_value_and_no_other(data: Split, metric: Metric) -> None:
    task = replace(TASK, metric=metric)
    scorings = trained(data, 1, 16, 1e30, SYNC, task)
    assert {s.value for s in scorings} == {WORST_VALUE[task.metric]}


def test_the_gradient_is_that_of_the_mean_loss(data: Split) -> None:
    rng = np.random.default_rng(1)
    start = initial_parameters(64, 8, rng)
    images = data.training.first(32)
    found = gradient(start, images.pixels, images.labels)
    length = sum(float((g.astype(float) ** 2).sum()) for g in found)

    def loss(step: float) -> float:
        return score(start.descended(found, step), images, "loss")

    # Along the gradient the loss falls by its squared length; float32 differences, hence two per cent.
    assert (loss(-1e-3) - loss(1e-3)) / 2e-3 == pytest.approx(length, rel=0.02)


def step_seconds(nodes: int, strategy: str, batch_size: int = 16) -> float:
    what = Configuration(nodes=nodes, batch_size=batch_size, learning_rate=0.1, strategy=strategy)
    return FASHION.clock.step_seconds(what, 4, np.random.default_rng(0))


def test_a_synchronous_step_grows_with_nodes_and_an_asynchronous_one_falls_to_the_servers_slot() -> None:
    assert step_seconds(1, SYNC) < step_seconds(3, SYNC) < step_seconds(24, SYNC)
    assert step_seconds(1, ASYNC, 128) > step_seconds(3, ASYNC, 128) > step_seconds(6, ASYNC, 128)
    assert step_seconds(48, ASYNC) == step_seconds(24, ASYNC)


def write_idx(path: Path, values: np.ndarray) -> None:
    header = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
    path.write_bytes(header + values.astype(np.uint8).tobytes())


def test_fashion_mnist_is_read_from_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match="train-images-idx3-ubyte"):
        fashion_mnist(tmp_path)
    rng = np.random.default_rng(0)
    for part, count in (("train", 20), ("t10k", 10)):
        write_idx(tmp_path / f"{part}-images-idx3-ubyte", rng.integers(0, 256, (count, 28, 28)))
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte", rng.integers(0, 10, count))
    found = fashion_mnist(tmp_path).training
    assert found.pixels.shape == (20, 784)
    assert -0.29 - 1e-6 <= found.pixels.min() < found.pixels.max() <= 0.71 + 1e-6


def test_recordings_are_made_without_torch() -> None:
    asks = "import sys, benchmarks.small_recordings; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", asks], cwd=ROOT, check=False, timeout=60).returncode == 0
