"""Evaluate a run at its evaluation points, off the training clock: metric and gradient noise."""

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
    """Scores a model with its current parameters, and saves it if it reached the target.

    Args:
        model: The model.
        workload: What is trained.
        training_data: The training data.
        validation_data: What is scored on.
        target: Counts scores past the target.
        model_path: Where the scored model is saved once it reached the target.
        seed: Of the samples on which batch-norm statistics are estimated again.
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
        """The metric of the model with its current parameters.

        Args:
            is_mixed: Whether its parameters are an average or a center, which no rank has trained with.
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
        """Adds the score of an evaluation, once; returns whether the target is now reached."""
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
        # On the CPU, so that a machine without the device can load it.
        state = on_host(self._model.state_dict())
        write_atomically(self._model_path, lambda file: torch.save(state, file))


class Scorer:
    """Scores a replica; rank 0 does, the others wait, none on the training clock.

    Args:
        replica: This rank's.
        validation_data: What is scored on.
        group: All ranks; None where there is one.
        rank: This rank.
        target: Counts scores past the target.
        model_path: Where the scored model is saved once it reached the target.
        seed: Of the samples on which batch-norm statistics are estimated again.
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
        #: What the last scoring took, in steps of rank 0: equal on all ranks; 0 where unknown.
        self.equivalent_steps = 0.0

    def score(self, step_seconds: float | None = None) -> tuple[float, bool]:
        """The metric now, equal on all ranks, and whether the target is reached.

        Args:
            step_seconds: A settled step of this rank; None where it is not known yet.
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
                # This also keeps the other ranks from training, on the clock, while rank 0 scores.
                dist.broadcast(taken, src=0, group=self._group)
                value, self.equivalent_steps = (float(number) for number in taken)
        took = time.perf_counter() - began
        self.seconds += took
        if self._group is None:
            self.equivalent_steps = took / step_seconds if step_seconds else 0.0
        return value, self._of_model.is_reached(value)

    def score_untrained(self) -> tuple[float, bool]:
        """The metric of the model as it stands, and whether the target is reached; asks no other rank."""
        began = time.perf_counter()
        value = self._of_model.value_of_model(is_mixed=False)
        self.seconds += time.perf_counter() - began
        return value, self._of_model.is_reached(value)

    def score_vector(self, vector: Tensor, step_seconds: float | None = None) -> tuple[float, bool]:
        """The metric of these parameters, and whether the target is reached; asks no other rank.

        Args:
            vector: All trainable parameters, as `Strategy.scoring` takes them.
            step_seconds: In which all ranks together see one global batch; None where not known yet.
        """
        began = time.perf_counter()
        with self._replica.strategy.scoring(vector):
            value = self._of_model.value_of_model(is_mixed=True)
        took = time.perf_counter() - began
        self.seconds += took
        self.equivalent_steps = took / step_seconds if step_seconds else 0.0
        return value, self._of_model.is_reached(value)


def _check_score(value: float, workload: Workload) -> None:
    """Checks that the metric can have this score: 97 for an accuracy of 0.97 would reach any target.

    Raises:
        ValueError: It cannot; the message says what is allowed.
    """
    metric = workload.metric
    slack = 1e-6 * max(1.0, abs(value))  # sums in single precision may end a little beyond
    if math.isfinite(value) and not metric.lower - slack <= value <= metric.upper + slack:
        raise ValueError(
            f"score returned {value:g}, which {metric.name} cannot be: allowed is {metric.lower:g} to "
            f"{metric.upper:g}. Return it in that unit, or give the workload a metric of its own"
        )


class NoiseWatch:
    """Collects gradient noise between evaluation points: from the gradient exchange, or separately.

    Args:
        replica: This rank's.
        group: All ranks; None if this rank measures alone.
        seed: The job's.
        max_batch_size_per_rank: Most samples of one gradient.
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
        """Adds the exchanges of a step chunk."""
        weight = self._replica.share.num_samples / self._replica.batch_size
        for exchange in exchanges:
            local, mean = exchange.local_squared_norm, exchange.mean_squared_norm
            if local is not None and mean is not None:
                self._tally.add(weight * local, mean)

    def at_evaluation(
        self, *, slice_seconds: float, step_seconds: float | None
    ) -> tuple[NoiseStatistic | None, bool]:
        """The noise since the last evaluation point, and whether the losses of all ranks are finite.

        Args:
            slice_seconds: The slice's training clock so far.
            step_seconds: A settled step; None before the first.
        """
        replica = self._replica
        are_finite = replica.losses_are_finite()
        measured = None
        if self._one_rank is not None and step_seconds is not None and are_finite:
            # A step of this rank is one on its own share; with other ranks it waits for them as well.
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
    """Context in which batch-norm statistics are estimated for the current parameters.

    As `torch.optim.swa_utils.update_bn` does, by a plain mean over a few batches (Izmailov et al. 2018,
    section 3.3). Models without such statistics are left alone. Afterwards all buffers are as before.

    Args:
        model: The model, with the parameters that are to be scored.
        workload: Its `loss` runs the model forward.
        data: The training data.
        device: Where the model is.
        seed: Of the draw of samples.
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
