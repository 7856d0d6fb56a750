"""Workloads small enough for tests, among them some that fail in ways a prober must survive."""

import math
import os
import signal
import time
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from tuner.domain.workload import METRICS, Workload


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def blobs(num_samples: int, seed: int) -> TensorDataset:
    """Three classes of points around three centres."""
    generator = torch.Generator().manual_seed(seed)
    classes = torch.randint(3, (num_samples,), generator=generator)
    centres = torch.tensor([[2.0, 0.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0], [0.0, 0.0, 2.0, 0.0]])
    points = centres[classes] + 0.7 * torch.randn(num_samples, 4, generator=generator)
    return TensorDataset(points, classes)


class Blobs(Workload):
    """Classifies points; `dropout` and `batch_norm` make it depend on ranks' own state.

    Args:
        num_samples: Of the training data.
        dropout: Share of hidden units dropped.
        batch_norm: Whether the hidden layer is normalised.
    """

    metric = METRICS["accuracy"]

    def __init__(self, num_samples: int = 200, dropout: float = 0.0, batch_norm: bool = False) -> None:
        self.num_samples = num_samples
        self.dropout = dropout
        self.batch_norm = batch_norm

    def model(self) -> nn.Module:
        middle: list[nn.Module] = [nn.BatchNorm1d(8)] if self.batch_norm else []
        if self.dropout:
            middle.append(nn.Dropout(self.dropout))
        return nn.Sequential(nn.Linear(4, 8), *middle, nn.Tanh(), nn.Linear(8, 3))

    def training_data(self) -> Dataset[Any]:
        return blobs(self.num_samples, 1)

    def validation_data(self) -> Dataset[Any]:
        return blobs(300, 2)

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        points, classes = batch
        return nn.functional.cross_entropy(model(points), classes)

    def score(self, model: nn.Module, data: Dataset[Any]) -> float:
        assert not model.training
        assert not torch.is_grad_enabled()
        points, classes = data.tensors  # type: ignore[attr-defined]
        return float((model(points).argmax(dim=1) == classes).double().mean())


class FineBlobs(Blobs):
    """Scored by a number that shows the last bit of difference: minus the mean loss, as `loss`."""

    metric = METRICS["loss"]

    def score(self, model: nn.Module, data: Dataset[Any]) -> float:
        return float(self.loss(model, data.tensors))  # type: ignore[attr-defined]


class Faulty(Blobs):
    """Does something bad at a given call of `loss` on a given rank.

    Args:
        fault: What.
        at_call: At which call, from 1.
        on_rank: On which rank.
    """

    def __init__(self, fault: str, at_call: int = 20, on_rank: int = 0) -> None:
        super().__init__()
        self.fault, self.at_call, self.on_rank = fault, at_call, on_rank
        self.calls = 0

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        self.calls += 1
        if self.calls == self.at_call and rank() == self.on_rank:
            fail(self.fault)
        return super().loss(model, batch)


def fail(fault: str) -> None:
    if fault == "raise":
        raise ArithmeticError("the workload's own words")
    if fault == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "hang":
        time.sleep(3600)
    if fault == "out_of_memory":
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 7 PiB")
    if fault == "allocate":
        torch.empty(2**60, dtype=torch.uint8)
    raise ValueError(f"no such fault: {fault}")


class SlowScore(Blobs):
    """Takes its time to score, and none to train."""

    def __init__(self, sleep_seconds: float) -> None:
        super().__init__()
        self.sleep_seconds = sleep_seconds

    def score(self, model: nn.Module, data: Dataset[Any]) -> float:
        time.sleep(self.sleep_seconds)
        torch.rand(7)
        return super().score(model, data)


class NoScore(Blobs):
    """Cannot be scored: the metric is not a number once training began."""

    def score(self, model: nn.Module, data: Dataset[Any]) -> float:
        self.scored = getattr(self, "scored", 0) + 1
        return 0.5 if self.scored == 1 else math.nan


class Linear(Workload):
    """A linear problem whose gradient noise is known in closed form.

    loss = mean over samples of w . x, so a sample's gradient is its x: G is the mean of all x and S the
    trace of their covariance, whatever w.
    """

    metric = METRICS["loss"]

    def __init__(self, num_samples: int = 4000, size: int = 20) -> None:
        self.num_samples, self.size = num_samples, size

    def points(self) -> Tensor:
        generator = torch.Generator().manual_seed(5)
        return 0.3 + 1.5 * torch.randn(self.num_samples, self.size, generator=generator)

    def model(self) -> nn.Module:
        return nn.Linear(self.size, 1, bias=False)

    def training_data(self) -> Dataset[Any]:
        return TensorDataset(self.points())

    def validation_data(self) -> Dataset[Any]:
        return TensorDataset(self.points()[:10])

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        (points,) = batch
        return model(points).mean()

    def score(self, model: nn.Module, data: Dataset[Any]) -> float:
        return float(model(data.tensors[0]).mean())  # type: ignore[attr-defined]
