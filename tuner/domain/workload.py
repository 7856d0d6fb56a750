"""Interface of a workload (a training task): model, data, loss, metric, optimizer and schedule."""

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
    float, Field(ge=0, allow_inf_nan=False, description="weight decay coefficient of the optimizer")
]
WarmupSamples = Annotated[
    int,
    Field(
        ge=0,
        description="number of samples of the linear learning-rate warm-up; 0 for no warm-up",
    ),
]


class SGDSettings(_Settings):
    """Stochastic gradient descent with momentum."""

    name: Literal["sgd"] = Field(default="sgd", description="the optimizer")
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(default=0.9, description="momentum coefficient")
    nesterov: bool = Field(default=False, description="whether to use Nesterov momentum")
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
        default=(0.9, 0.999), description="decay rates of the averages of gradients and of squared gradients"
    )
    weight_decay: WeightDecay = 0.01


OptimizerSettings = Annotated[SGDSettings | AdamWSettings, Field(discriminator="name")]


class ConstantSchedule(_Settings):
    """A constant learning rate after a linear warm-up."""

    name: Literal["constant"] = Field(default="constant", description="the schedule")
    warmup_samples: WarmupSamples = 0

    def factor(self, samples: int) -> float:
        """Returns the factor by which the peak learning rate is multiplied after `samples` samples."""
        return _warmup(samples, self.warmup_samples)


class StepSchedule(_Settings):
    """A learning rate that is divided by a constant factor at given numbers of samples (milestones).

    For example, Jin et al. 2016 divide the learning rate by 10 at two milestones.
    """

    name: Literal["step"] = Field(default="step", description="the schedule")
    warmup_samples: WarmupSamples = 0
    at_samples: tuple[PositiveInt, ...] = Field(
        min_length=1, description="numbers of processed samples at which the learning rate is divided"
    )
    divide_by: Annotated[float, Field(gt=1, allow_inf_nan=False)] = Field(
        default=10.0, description="factor by which the learning rate is divided at each number in at_samples"
    )

    def factor(self, samples: int) -> float:
        """Returns the factor by which the peak learning rate is multiplied after `samples` samples."""
        passed = sum(samples >= point for point in self.at_samples)
        return float(_warmup(samples, self.warmup_samples) * self.divide_by**-passed)


class CosineSchedule(_Settings):
    """A learning rate that falls from its peak to zero as half a cosine (Loshchilov and Hutter 2017).

    The number of samples until the learning rate is zero is set in the job file, because the time to target
    depends on it.
    """

    name: Literal["cosine"] = Field(default="cosine", description="the schedule")
    warmup_samples: WarmupSamples = 0
    horizon_samples: PositiveInt = Field(
        description="number of processed samples at which the learning rate has fallen to zero"
    )

    def factor(self, samples: int) -> float:
        """Returns the factor by which the peak learning rate is multiplied after `samples` samples."""
        progress = min(1.0, samples / self.horizon_samples)
        return _warmup(samples, self.warmup_samples) * 0.5 * (1 + math.cos(math.pi * progress))


def _warmup(samples: int, warmup_samples: int) -> float:
    # The first step must change the parameters: the factor starts at 0.01, not at zero.
    return 1.0 if samples >= warmup_samples else max(samples / warmup_samples, 0.01)


ScheduleSettings = Annotated[ConstantSchedule | StepSchedule | CosineSchedule, Field(discriminator="name")]


class Metric(_Settings):
    """A metric: its name, whether larger or smaller values are better, and the values that it can have."""

    name: str
    direction: Literal["maximize", "minimize"]
    lower: float = -math.inf
    upper: float = math.inf


#: Metrics with a known direction and known bounds; a workload may define others.
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
    """Interface of a training task, for which Paceline chooses batch size, learning rate, nodes and strategy.

    - Every rank creates the workload from the parameters in the job file. Equal parameters must give equal
      models (torch is seeded before `model` is called) and equal data.
    - A batch is the result of `torch.utils.data.default_collate` for several items of the dataset, on the
      device of the rank.
    - For speed, a dataset may have a method `__getitems__(indices)`, which returns a collated batch.

    Attributes:
        metric: The metric that `score` returns.
        optimizer_settings: Settings from `[workload.optimizer]`, which the default `optimizer` uses.
        schedule_settings: Settings from `[workload.schedule]`, which the default `schedule` uses.
    """

    metric: Metric = METRICS["accuracy"]
    optimizer_settings: SGDSettings | AdamWSettings = SGDSettings()
    schedule_settings: ConstantSchedule | StepSchedule | CosineSchedule = ConstantSchedule()

    @abstractmethod
    def model(self) -> nn.Module:
        """Returns a new model with freshly initialised parameters, on the CPU."""

    @abstractmethod
    def training_data(self) -> Dataset[Any]:
        """Returns the training data as a map-style dataset, with `len` and items by index.

        Raises:
            DataNotFoundError: The data are not on this machine; the message says where to get them.
        """

    @abstractmethod
    def validation_data(self) -> Dataset[Any]:
        """Returns the validation data, which Paceline passes to `score`."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Returns the loss of a batch as a scalar tensor: the mean over the samples of the batch."""

    @abstractmethod
    def score(self, model: nn.Module, data: Dataset[Any]) -> float:
        """Computes the metric of a model on data.

        The caller has put the model into evaluation mode and disabled gradients.
        """

    def optimizer(self, parameters: Iterable[nn.Parameter], learning_rate: float) -> optim.Optimizer:
        """Returns the optimizer. The default is that of `[workload.optimizer]`, or SGD with momentum 0.9.

        Args:
            parameters: Parameters of the model.
            learning_rate: Peak learning rate.
        """
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
        """Returns the factor by which the peak learning rate is multiplied.

        Args:
            samples_seen: Number of samples that all ranks together have processed so far.
        """
        return self.schedule_settings.factor(samples_seen)
