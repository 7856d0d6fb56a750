"""The contract of a workload: model, data and loss, with its metric, optimizer and schedule."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

if TYPE_CHECKING:
    from torch import Tensor, nn, optim
    from torch.utils.data import Dataset


__all__ = [
    "METRICS",
    "AdamWSettings",
    "ConstantSchedule",
    "CosineSchedule",
    "Metric",
    "OptimizerSettings",
    "SGDSettings",
    "ScheduleSettings",
    "StepSchedule",
    "Workload",
]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


WeightDecay = Annotated[
    float, Field(ge=0, allow_inf_nan=False, description="how strongly weights are pulled to zero")
]
WarmupSamples = Annotated[
    int, Field(ge=0, description="samples over which the rate rises linearly to its peak; 0 for none")
]


class SGDSettings(_Settings):
    """Stochastic gradient descent with momentum."""

    name: Literal["sgd"] = Field(default="sgd", description="the optimizer")
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.9, description="share of the last step that the next one retains"
    )
    nesterov: bool = Field(default=False, description="whether momentum looks ahead")
    weight_decay: WeightDecay = 0.0

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> SGDSettings:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs momentum above 0")
        return self


class AdamWSettings(_Settings):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    name: Literal["adamw"] = Field(default="adamw", description="the optimizer")
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = Field(
        default=(0.9, 0.999), description="decay of the averages of gradients and of their squares"
    )
    weight_decay: WeightDecay = 0.01


OptimizerSettings = Annotated[SGDSettings | AdamWSettings, Field(discriminator="name")]


class ConstantSchedule(_Settings):
    """A constant rate, reached linearly over the first samples."""

    name: Literal["constant"] = Field(default="constant", description="the schedule")
    warmup_samples: WarmupSamples = 0

    def factor(self, samples: int) -> float:
        """What the learning rate is multiplied by once `samples` samples were seen."""
        return _warmup(samples, self.warmup_samples)


class StepSchedule(_Settings):
    """A rate divided at given samples, as in Jin et al. 2016 (by 10, twice)."""

    name: Literal["step"] = Field(default="step", description="the schedule")
    warmup_samples: WarmupSamples = 0
    at_samples: tuple[PositiveInt, ...] = Field(
        min_length=1, description="samples at which the rate is divided"
    )
    divide_by: Annotated[float, Field(gt=1, allow_inf_nan=False)] = Field(
        default=10.0, description="what the rate is divided by at each of them"
    )

    def factor(self, samples: int) -> float:
        """What the learning rate is multiplied by once `samples` samples were seen."""
        passed = sum(samples >= point for point in self.at_samples)
        return float(_warmup(samples, self.warmup_samples) * self.divide_by**-passed)


class CosineSchedule(_Settings):
    """A half cosine from the full rate to zero over a stated horizon (Loshchilov and Hutter 2017).

    The horizon is part of the job: time to target depends on it.
    """

    name: Literal["cosine"] = Field(default="cosine", description="the schedule")
    warmup_samples: WarmupSamples = 0
    horizon_samples: PositiveInt = Field(description="samples after which the rate is zero")

    def factor(self, samples: int) -> float:
        """What the learning rate is multiplied by once `samples` samples were seen."""
        progress = min(1.0, samples / self.horizon_samples)
        return _warmup(samples, self.warmup_samples) * 0.5 * (1 + math.cos(math.pi * progress))


def _warmup(samples: int, warmup_samples: int) -> float:
    # The first step must move the parameters: the ramp starts one step above zero, not at it.
    return 1.0 if samples >= warmup_samples else max(samples / warmup_samples, 0.01)


ScheduleSettings = Annotated[ConstantSchedule | StepSchedule | CosineSchedule, Field(discriminator="name")]


class Metric(_Settings):
    """A metric's name, direction and the values it can have."""

    name: str
    direction: Literal["maximize", "minimize"]
    lower: float = -math.inf
    upper: float = math.inf


#: Metrics with a known direction and known bounds; a workload may bring others.
METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(name="accuracy", direction="maximize", lower=0.0, upper=1.0),
        Metric(name="error_rate", direction="minimize", lower=0.0, upper=1.0),
        Metric(name="loss", direction="minimize"),
        Metric(name="bits_per_character", direction="minimize", lower=0.0),
    )
}


class Workload(ABC):
    """A training task without batch size, learning rate, nodes and strategy, which Paceline chooses.

    A workload is made from the parameters in the job file, once in every rank; two made from the
    same parameters must give equal models (torch is seeded before `model` is called) and equal data.
    A batch is what `torch.utils.data.default_collate` makes of dataset items, already on the rank's
    device; a dataset may offer `__getitems__(indices)` for speed, returning an already collated batch.

    Attributes:
        metric: What `score` returns.
        optimizer_settings: From `[workload.optimizer]`; used by the default `optimizer`.
        schedule_settings: From `[workload.schedule]`; used by the default `schedule`.
    """

    metric: Metric = METRICS["accuracy"]
    optimizer_settings: SGDSettings | AdamWSettings = SGDSettings()
    schedule_settings: ConstantSchedule | StepSchedule | CosineSchedule = ConstantSchedule()

    @abstractmethod
    def model(self) -> nn.Module:
        """A new model with freshly initialised parameters, on the CPU."""

    @abstractmethod
    def training_data(self) -> Dataset[Any]:
        """A map-style dataset: `len`, and items by index.

        Raises:
            DataNotFoundError: It is not on this machine; the message says where to get it.
        """

    @abstractmethod
    def validation_data(self) -> Dataset[Any]:
        """The dataset that `score` is called with."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """The loss of a batch, a scalar: the mean over its samples, so that shards can be weighted."""

    @abstractmethod
    def score(self, model: nn.Module, data: Dataset[Any]) -> float:
        """The metric of a model in evaluation mode on data; gradients are off."""

    def optimizer(self, parameters: Iterable[nn.Parameter], learning_rate: float) -> optim.Optimizer:
        """The optimizer; the default is what `[workload.optimizer]` says (SGD, momentum 0.9)."""
        import torch

        settings = self.optimizer_settings
        if isinstance(settings, AdamWSettings):
            return torch.optim.AdamW(
                parameters,
                lr=learning_rate,
                betas=settings.betas,
                weight_decay=settings.weight_decay,
            )
        return torch.optim.SGD(
            parameters,
            lr=learning_rate,
            momentum=settings.momentum,
            nesterov=settings.nesterov,
            weight_decay=settings.weight_decay,
        )

    def schedule(self, samples_seen: int) -> float:
        """The factor on the learning rate once all ranks have seen this many samples in total."""
        return self.schedule_settings.factor(samples_seen)
