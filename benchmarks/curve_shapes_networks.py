"""Small networks whose learning curves are measured: every batch size with every learning rate."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.small_recordings import digits
from search_spaces import Configuration
from tuner.recordings.recording import RecordedRun, Recording

BATCH_SIZES = (32, 128, 512)
_SGD_RATES = (0.001, 0.004, 0.016, 0.06, 0.25)
_ADAMW_RATES = (0.0001, 0.0003, 0.001, 0.003, 0.01)
_MOMENTUM, _WEIGHT_DECAY = 0.9, 1e-4
#: A training ends after the epoch in which it has taken so long.
_LONGEST_SECONDS = 25.0
_DATA_SEED, _TRAINING_SEED = 7, 1
_NUM_VALIDATION = 2_000


class Data(NamedTuple):
    """Inputs and targets to train on, and those to score."""

    inputs: Tensor
    targets: Tensor
    validation_inputs: Tensor
    validation_targets: Tensor


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is trained, and how.

    Args:
        name: The recording's.
        metric: `accuracy` of classes, or `loss`: the mean squared error.
        data: Makes the data, the same each time.
        model: A new model.
        optimizer: `sgd` with momentum, or `adamw`.
        learning_rates: Of the grid.
        num_epochs: Of each training, with a score after each.
    """

    name: str
    metric: Literal["accuracy", "loss"]
    data: Callable[[], Data]
    model: Callable[[], nn.Module]
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rates: tuple[float, ...] = _SGD_RATES
    num_epochs: int


def record(task: Task) -> Recording:
    """Trains every configuration of a task on one thread.

    The recording's target is the best value of all. Choose another one with `dataclasses.replace`.
    """
    data, num_threads = task.data(), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        runs = tuple(
            train(task, data, batch_size, rate)
            for batch_size, rate in itertools.product(BATCH_SIZES, task.learning_rates)
        )
    finally:
        torch.set_num_threads(num_threads)
    maximize = task.metric == "accuracy"
    values = np.concatenate([run.curve[:, 2] for run in runs])
    return Recording(
        name=task.name,
        source="benchmarks/curve_shapes_networks.py",
        metric=task.metric,
        maximize=maximize,
        target=float(values.max() if maximize else values.min()),
        runs=runs,
    )


def train(task: Task, data: Data, batch_size: int, learning_rate: float) -> RecordedRun:
    """One training, from the same weights whatever the configuration.

    It ends after `num_epochs`, after 25 seconds, when the loss is not finite, or when the accuracy is 1.
    """
    torch.manual_seed(_TRAINING_SEED)
    model = task.model()
    optimizer = _optimizer(task, model, learning_rate)
    num_batches, rows, started = len(data.inputs) // batch_size, [], time.perf_counter()
    end = f"{task.num_epochs} epochs"
    for epoch in range(1, task.num_epochs + 1):
        order = torch.randperm(len(data.inputs))[: num_batches * batch_size]
        for batch in order.view(num_batches, batch_size):
            optimizer.zero_grad()
            _loss(task, model(data.inputs[batch]), data.targets[batch]).backward()
            optimizer.step()
        value, seconds = score(task, model, data), time.perf_counter() - started
        if not math.isfinite(value):
            end = "the loss is not finite"
            break
        rows.append((seconds, epoch * num_batches, value))
        if task.metric == "accuracy" and value == 1.0:
            end = "every class is right"
            break
        if seconds > _LONGEST_SECONDS:
            end = f"{_LONGEST_SECONDS:g} seconds"
            break
    curve = np.array(rows, dtype=float).reshape(-1, 3)
    return RecordedRun(
        configuration=Configuration(
            nodes=1, batch_size=batch_size, learning_rate=learning_rate, strategy="all_reduce"
        ),
        step_seconds=(time.perf_counter() - started) / (num_batches * epoch),
        curve=curve,
        end=end,
    )


def score(task: Task, model: nn.Module, data: Data) -> float:
    """The metric on the validation data."""
    with torch.no_grad():
        outputs = model(data.validation_inputs)
        if task.metric == "loss":
            return float(_loss(task, outputs, data.validation_targets))
        return float((outputs.argmax(1) == data.validation_targets).double().mean())


def _loss(task: Task, outputs: Tensor, targets: Tensor) -> Tensor:
    if task.metric == "loss":
        return functional.mse_loss(outputs.squeeze(1), targets)
    return functional.cross_entropy(outputs, targets)


def _optimizer(task: Task, model: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
    if task.optimizer == "adamw":
        return torch.optim.AdamW(model.parameters(), lr=learning_rate, fused=True)
    return torch.optim.SGD(
        model.parameters(), lr=learning_rate, momentum=_MOMENTUM, weight_decay=_WEIGHT_DECAY, fused=True
    )


def _digits() -> Data:
    split = digits()
    return Data(
        *(torch.from_numpy(array) for array in (split.training.pixels, split.training.labels)),
        *(torch.from_numpy(array) for array in (split.validation.pixels, split.validation.labels)),
    )


def _classes() -> Data:
    """Eight classes of 32 normal inputs: the largest output of a random network, with noise."""
    num, generator = 12_000, torch.Generator().manual_seed(_DATA_SEED)
    first, second = torch.randn(32, 24, generator=generator), torch.randn(24, 8, generator=generator)
    inputs = torch.randn(num + _NUM_VALIDATION, 32, generator=generator)
    outputs = torch.tanh(inputs @ first / 3) @ second
    outputs += 0.3 * torch.randn(outputs.shape, generator=generator)
    return _split(inputs, outputs.argmax(1), num)


def _sines() -> Data:
    """The sum of the sines of eight projections of 16 normal inputs, with noise."""
    num, generator = 20_000, torch.Generator().manual_seed(_DATA_SEED)
    weights = torch.randn(16, 8, generator=generator)
    inputs = torch.randn(num + _NUM_VALIDATION, 16, generator=generator)
    targets = torch.sin(inputs @ weights).sum(1) + 0.1 * torch.randn(len(inputs), generator=generator)
    return _split(inputs, targets, num)


def _parity() -> Data:
    """The parity of three of 24 bits."""
    num, generator = 20_000, torch.Generator().manual_seed(_DATA_SEED)
    inputs = torch.randint(0, 2, (num + _NUM_VALIDATION, 24), generator=generator) * 2.0 - 1.0
    return _split(inputs, (inputs[:, 0] * inputs[:, 5] * inputs[:, 9] > 0).long(), num)


def _split(inputs: Tensor, targets: Tensor, num: int) -> Data:
    return Data(inputs[:num], targets[:num], inputs[num:], targets[num:])


def _layers(*sizes: int, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """A linear layer between each two sizes, with an activation after all but the last."""
    pairs = ((nn.Linear(inner, outer), activation()) for inner, outer in itertools.pairwise(sizes))
    return nn.Sequential(*list(itertools.chain(*pairs))[:-1])


def _convolutions() -> nn.Sequential:
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 10),
    )


TASKS = (
    Task(
        name="digits",
        metric="accuracy",
        data=_digits,
        model=lambda: _layers(64, 64, 10),
        num_epochs=120,
    ),
    Task(name="digits-cnn", metric="accuracy", data=_digits, model=_convolutions, num_epochs=60),
    Task(
        name="classes",
        metric="accuracy",
        data=_classes,
        model=lambda: _layers(32, 128, 64, 8),
        num_epochs=50,
    ),
    Task(
        name="regression",
        metric="loss",
        data=_sines,
        model=lambda: _layers(16, 128, 64, 1, activation=nn.Tanh),
        optimizer="adamw",
        learning_rates=_ADAMW_RATES,
        num_epochs=60,
    ),
    Task(
        name="parity",
        metric="accuracy",
        data=_parity,
        model=lambda: _layers(24, 128, 2),
        optimizer="adamw",
        learning_rates=_ADAMW_RATES,
        num_epochs=50,
    ),
)
