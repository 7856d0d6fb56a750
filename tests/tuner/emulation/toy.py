"""A small regression for tests of the emulation."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from search_spaces import Configuration
from tuner.domain.cluster import VirtualCluster
from tuner.domain.workload import SGDSettings, Workload
from tuner.emulation import Emulation, Trained, emulation

NUM_SAMPLES, NUM_FEATURES = 512, 6
CLUSTER = VirtualCluster(fixed_seconds=0.01, seconds_per_sample=1e-3)


class Regression(Workload):
    """Fits random targets by a small network, in double precision unless told otherwise."""

    def __init__(self, *, batch_norm: bool = False, settings: SGDSettings | None = None) -> None:
        self.optimizer_settings = settings or SGDSettings(momentum=0.9, nesterov=True, weight_decay=1e-4)
        self._batch_norm = batch_norm
        generator = torch.Generator().manual_seed(0)
        inputs = torch.randn(NUM_SAMPLES, NUM_FEATURES, generator=generator, dtype=torch.float64)
        self._data = TensorDataset(inputs, inputs.cumsum(dim=1).sin())

    def model(self) -> nn.Module:
        torch.manual_seed(1)
        norm: Sequence[nn.Module] = [nn.BatchNorm1d(8)] if self._batch_norm else []
        layers = [nn.Linear(NUM_FEATURES, 8), *norm, nn.Tanh(), nn.Linear(8, NUM_FEATURES)]
        return nn.Sequential(*layers).to(torch.float64)

    def training_data(self) -> Dataset[Any]:
        return self._data

    def validation_data(self) -> Dataset[Any]:
        return self._data

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        inputs, targets = batch
        return nn.functional.mse_loss(model(inputs), targets)

    def score(self, model: nn.Module, data: Dataset[Any]) -> float:
        inputs, targets = self._data.tensors
        return float(nn.functional.mse_loss(model(inputs), targets))


def configured(strategy: str, num_ranks: int, *, rate: float = 0.05, **knobs: Any) -> Configuration:
    axes = {"nodes": num_ranks, "batch_size": 4 * num_ranks, "learning_rate": rate, "strategy": strategy}
    return Configuration({**axes, **knobs})


def emulated(
    strategy: str,
    num_ranks: int,
    *,
    workload: Workload | None = None,
    cluster: VirtualCluster = CLUSTER,
    seed: int = 0,
    rate: float = 0.05,
    **knobs: Any,
) -> Emulation:
    workload = workload or Regression()
    untrained = workload.model()
    return emulation(
        Trained(
            workload=workload,
            make_model=lambda: copy.deepcopy(untrained),
            data=workload.training_data(),
            configuration=configured(strategy, num_ranks, rate=rate, **knobs),
            num_ranks=num_ranks,
            cluster=cluster,
            seed=seed,
        )
    )


def parameters_of(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def scored_parameters(run: Emulation) -> Tensor:
    with run.scored():
        return parameters_of(run.model)
