"""Measures metric and gradient noise of a model during training; this does not count as training time."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import Dataset

from tuner.domain.checkpoints import write_atomically
from tuner.domain.data_order import fetch
from tuner.domain.measurement import NoiseStatistic, TargetCount
from tuner.domain.workload import Workload
from tuner.probes.ranks.checkpoint_state import on_host, undisturbed
from tuner.probes.ranks.gradient_noise import NoiseTally, OneRankNoise, part_size
from tuner.probes.ranks.replica import Replica
from tuner.strategies import Exchange

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


class ModelScorer:
    """Evaluates a model with its current parameters, and saves it if its metric is past the target.

    Args:
        model: The model to evaluate, on its device.
        workload: Workload with the metric.
        training_data: Training data, from which batch-norm statistics are estimated.
        validation_data: Data on which the metric is computed.
        target: Decides from the scores so far whether the target is reached.
        model_path: File to save the model to if its metric is past the target.
        seed: Seed for choosing the samples from which batch-norm statistics are estimated.
    """

    def __init__(
        self,
        model: nn.Module,
        workload: Workload,
        *,
        training_data: Dataset[Any],
        validation_data: Dataset[Any],
        target: TargetCount,
        model_path: Path,
        seed: int = 0,
    ) -> None:
        self._model, self._workload = model, workload
        self._training_data, self._validation_data = training_data, validation_data
        self._device = next(model.parameters()).device
        self._target, self._model_path, self._seed = target, model_path, seed

    def value_of_model(self, *, is_mixed: bool) -> float:
        """Returns the metric of the model, and saves the model if the metric is past the target.

        Args:
            is_mixed: Whether the parameters are an average over ranks or a server's, so that batch-norm
                statistics have to be estimated for them.
        """
        fresh = (
            fresh_batch_norm(self._model, self._workload, self._training_data, self._device, self._seed)
            if is_mixed
            else nullcontext()
        )
        with fresh:
            value = self._value()
            if self._target.is_past(value):
                self._save_model()
        return value

    def is_reached(self, value: float) -> bool:
        """Adds the metric of an evaluation to the target count; returns whether the target is reached now.

        Call it once per evaluation, since the target may require several consecutive scores.
        """
        return self._target.is_reached(value)

    def _value(self) -> float:
        self._model.eval()
        try:
            with torch.no_grad(), undisturbed(self._device):
                score = float(self._workload.score(self._model, self._validation_data))
        finally:
            self._model.train()
        _check_score(score, self._workload)
        return score

    def _save_model(self) -> None:
        # Moved to the CPU, so that a machine without the device can load the file.
        state = on_host(self._model.state_dict())
        write_atomically(self._model_path, lambda file: torch.save(state, file))


class Scorer:
    """Evaluates the replica of a rank, outside of training time.

    Args:
        replica: Replica of this rank.
        validation_data: Data on which the metric is computed.
        group: Process group of all ranks; None for one rank or asynchronous ranks.
        rank: Index of this rank.
        target: Decides whether the target is reached.
        model_path: File to save the model to if its metric is past the target.
        seed: Seed for choosing the samples from which batch-norm statistics are estimated.
    """

    def __init__(
        self,
        *,
        replica: Replica,
        validation_data: Dataset[Any],
        group: ProcessGroup | None,
        rank: int,
        target: TargetCount,
        model_path: Path,
        seed: int = 0,
    ) -> None:
        self._replica, self._group, self._rank = replica, group, rank
        self._of_model = ModelScorer(
            replica.model,
            replica.workload,
            training_data=replica.data,
            validation_data=validation_data,
            target=target,
            model_path=model_path,
            seed=seed,
        )
        self.seconds = 0.0
        #: Number of training steps of rank 0 that take as long as the last evaluation; 0 if unknown.
        self.equivalent_steps = 0.0

    def score(self, step_seconds: float | None = None) -> tuple[float, bool]:
        """Evaluates the model on rank 0 while the other ranks wait; all ranks of the group must call it.

        Args:
            step_seconds: Typical seconds of a training step of this rank; None if unknown.

        Returns:
            The metric, equal on all ranks, and whether the target is reached.
        """
        began = time.perf_counter()
        replica = self._replica
        with replica.strategy.scored_parameters():
            value = 0.0
            if self._rank == 0:
                is_mixed = self._group is not None and replica.strategy.traits.scored != "common"
                value = self._of_model.value_of_model(is_mixed=is_mixed)
            if self._group is not None:
                took = time.perf_counter() - began
                taken = torch.tensor(
                    [value, took / step_seconds if step_seconds else 0.0], dtype=torch.float64
                )
                # The broadcast also makes the other ranks wait while rank 0 evaluates.
                dist.broadcast(taken, src=0, group=self._group)
                value, self.equivalent_steps = (float(number) for number in taken)
        took = time.perf_counter() - began
        self.seconds += took
        if self._group is None:
            self.equivalent_steps = took / step_seconds if step_seconds else 0.0
        return value, self._of_model.is_reached(value)

    def score_untrained(self) -> tuple[float, bool]:
        """Evaluates the model with its current parameters, on this rank alone.

        Returns the metric, and whether the target is reached.
        """
        began = time.perf_counter()
        value = self._of_model.value_of_model(is_mixed=False)
        self.seconds += time.perf_counter() - began
        return value, self._of_model.is_reached(value)

    def score_vector(self, vector: Tensor, step_seconds: float | None = None) -> tuple[float, bool]:
        """Evaluates the model with the parameters in `vector`, on this rank alone.

        Returns the metric, and whether the target is reached.

        Args:
            vector: All trainable parameters as one vector, as `Strategy.scoring` takes them.
            step_seconds: Seconds in which all ranks together process one global batch; None if unknown.
        """
        began = time.perf_counter()
        with self._replica.strategy.scoring(vector):
            value = self._of_model.value_of_model(is_mixed=True)
        took = time.perf_counter() - began
        self.seconds += took
        self.equivalent_steps = took / step_seconds if step_seconds else 0.0
        return value, self._of_model.is_reached(value)


def _check_score(value: float, workload: Workload) -> None:
    """Checks that a value lies within the bounds of the workload's metric.

    Without the check, a script that returns 97 for an accuracy of 0.97 would reach any target.

    Raises:
        ValueError: The value is out of bounds; the message says which values are allowed.
    """
    metric = workload.metric
    slack = 1e-6 * max(1.0, abs(value))  # sums in single precision may end a little beyond
    if math.isfinite(value) and not metric.lower - slack <= value <= metric.upper + slack:
        raise ValueError(
            f"score returned {value:g}, but {metric.name} must lie between {metric.lower:g} and "
            f"{metric.upper:g}. Return it in that unit, or define another metric for the workload"
        )


class NoiseWatch:
    """Measures gradient noise, from gradients that ranks exchange or from additional gradients.

    Args:
        replica: Replica of this rank.
        group: Process group of all ranks; None if this rank measures alone.
        seed: Seed of the job, for choosing the samples of additional gradients.
        max_batch_size_per_rank: Largest number of samples of one gradient; None for no limit.
    """

    def __init__(
        self,
        replica: Replica,
        group: ProcessGroup | None,
        *,
        seed: int,
        max_batch_size_per_rank: int | None,
    ) -> None:
        self._replica, self._group = replica, group
        self._tally = NoiseTally()
        self._one_rank: OneRankNoise | None = None
        size = part_size(
            replica.batch_size,
            len(replica.data),  # type: ignore[arg-type]
            max_batch_size_per_rank,
        )
        exchanges_gradients = group is not None and replica.strategy.traits.exchanged == "gradients"
        measures = group is None or group.rank() == 0
        if not exchanges_gradients and measures and size is not None:
            self._one_rank = OneRankNoise(
                workload=replica.workload,
                model=replica.model,
                data=replica.data,
                device=replica.device,
                seed=seed,
                part_size=size,
            )

    def add(self, exchanges: list[Exchange]) -> None:
        """Adds the squared gradient norms of several steps to the sums since the last evaluation.

        Args:
            exchanges: What the ranks exchanged in each step; steps without measured norms are skipped.
        """
        weight = self._replica.share.num_samples / self._replica.batch_size
        for exchange in exchanges:
            local, mean = exchange.local_squared_norm, exchange.mean_squared_norm
            if local is not None and mean is not None:
                self._tally.add(weight * local, mean)

    def at_evaluation(
        self, *, slice_seconds: float, step_seconds: float | None
    ) -> tuple[NoiseStatistic | None, bool]:
        """Returns the gradient noise since the last evaluation, and whether all losses are finite.

        Args:
            slice_seconds: Training time of the slice so far.
            step_seconds: Typical seconds of a step; None if unknown.
        """
        replica = self._replica
        are_finite = replica.losses_are_finite()
        measured = None
        if self._one_rank is not None and step_seconds is not None and are_finite:
            # Seconds per sample of this rank; they include waiting for other ranks.
            measured = self._one_rank.measure(
                replica.samples,
                slice_seconds=slice_seconds,
                seconds_a_sample=step_seconds / replica.share.num_samples,
            )
        if self._group is None:
            return measured, are_finite
        weighted_small, _, count = self._tally.sums
        totals = torch.tensor([weighted_small, float(not are_finite)], dtype=torch.float64)
        dist.all_reduce(totals, group=self._group)
        if count == 0:
            return measured, not totals[1]
        statistic = self._tally.take(
            float(totals[0]),
            samples=replica.samples,
            batch_size=replica.batch_size,
            num_parts=replica.share.num_ranks,
        )
        return statistic, not totals[1]


_BATCHES = 8
_LARGEST_BATCH = 128


@contextmanager
def fresh_batch_norm(
    model: nn.Module, workload: Workload, data: Dataset[Any], device: torch.device, seed: int
) -> Iterator[None]:
    """Context manager that estimates batch-norm statistics, and restores the old ones at the end.

    The statistics are the plain mean over a few training batches, as in `torch.optim.swa_utils.update_bn`
    (Izmailov et al. 2018, section 3.3). For models without batch norm it does nothing.

    Args:
        model: The model with the parameters to evaluate.
        workload: Workload whose `loss` runs the model's forward pass.
        data: The training data.
        device: Device of the model.
        seed: Seed for choosing the samples.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not norms:
        yield
        return
    saved = [(buffer, buffer.clone()) for buffer in model.buffers()]
    momenta = [norm.momentum for norm in norms]
    was_training = model.training
    size = min(_LARGEST_BATCH, len(data))  # type: ignore[arg-type]
    rng = np.random.default_rng((seed, size))
    try:
        with torch.no_grad(), undisturbed(device):
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # the plain mean over all batches
            model.train()
            for _ in range(_BATCHES):
                chosen = rng.choice(len(data), size, replace=False)  # type: ignore[arg-type]
                workload.loss(model, fetch(data, chosen.tolist(), device))
        model.train(was_training)
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        with torch.no_grad():
            for buffer, value in saved:
                buffer.copy_(value)
