"""Trains many virtual ranks in one process, and simulates the time that real ranks would take.

Gradients, data order, update rules, momentum and the choice of peers are the same as with real ranks. The
times of steps and messages follow from the description of a cluster (`timing`), and a virtual clock
(`event_clock`) orders the events. The result depends only on the seed, not on how busy the machine is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import Dataset

from search_spaces import Configuration, traits_of
from tuner.domain.cluster import VirtualCluster
from tuner.domain.data_order import SampleStream, shard
from tuner.domain.workload import Workload
from tuner.emulation.event_clock import EventClock
from tuner.emulation.mixing import CenterMixing, Mixing, PeerMixing
from tuner.emulation.timing import StepDraws, all_reduce_seconds
from tuner.emulation.virtual_rank import VirtualRank
from tuner.strategies import AveragingRule
from tuner.strategies.flat import FlatParameters, trainable_bytes
from tuner.strategies.registry import strategy_rule

#: Largest batch in which the gradients of several ranks are computed at once, in samples.
_LARGEST_BATCH = 1024
#: Largest number of step times stored per rank.
_MOST_STEPS_STORED = 1024


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What is trained in an emulation, and on which ranks and cluster.

    Args:
        workload: The workload to train.
        make_model: Function that returns a new model with the initial parameters, on its device.
        data: The training data.
        configuration: Batch size, learning rate and strategy with its parameters.
        num_ranks: Number of virtual ranks.
        cluster: Description of the machines and links, which determines the times of steps and messages.
        seed: Seed of the data order, of the strategy's random choices and of the random step times.
        computes: Whether gradients are computed. If not, steps only take virtual time and send messages.
    """

    workload: Workload
    make_model: Callable[[], nn.Module]
    data: Dataset[Any]
    configuration: Configuration
    num_ranks: int
    cluster: VirtualCluster
    seed: int
    computes: bool = True


@dataclass(kw_only=True)
class StepTimes:
    """Virtual seconds of one rank's steps.

    Args:
        compute: Seconds of compute of each step, including artificial delays.
        whole: Seconds of each step, including the time of waiting for other ranks.
    """

    compute: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)

    def add(self, compute: float, whole: float) -> None:
        """Stores the times of one step, unless enough steps (`_MOST_STEPS_STORED`) are stored already."""
        if len(self.compute) < _MOST_STEPS_STORED:
            self.compute.append(compute)
            self.whole.append(whole)


class Emulation(ABC):
    """Base class of emulations: the training of one configuration on virtual ranks.

    Args:
        trained: Workload, configuration, ranks and cluster.

    Attributes:
        samples: Number of samples that all ranks have processed.
        rank_steps: Number of steps of all ranks in total.
        times: Step times of each rank in this slice (the part of the training since `begin_slice`).
        ranks: The virtual ranks; only one for all if the models of all ranks stay equal.
    """

    ranks: list[VirtualRank]

    def __init__(self, trained: Trained) -> None:
        self.trained = trained
        self.samples = 0
        self.rank_steps = 0
        self.times = [StepTimes() for _ in range(trained.num_ranks)]
        self._draws = StepDraws(trained.cluster, trained.num_ranks, trained.seed)
        self._stream = SampleStream(len(trained.data), trained.seed)  # type: ignore[arg-type]

    def _rank(self, rank: int, num_ranks: int) -> VirtualRank:
        trained = self.trained
        return VirtualRank(
            rank=rank,
            num_ranks=num_ranks,
            workload=trained.workload,
            model=trained.make_model(),
            data=trained.data,
            stream=self._stream,
            batch_size=trained.configuration.batch_size,
            learning_rate=trained.configuration.learning_rate,
            computes=trained.computes,
        )

    @property
    def model(self) -> nn.Module:
        """The first rank's model; within the context of `scored()`, it has the parameters to evaluate."""
        return self.ranks[0].model

    @property
    def device(self) -> torch.device:
        """Device on which gradients are computed."""
        return next(self.model.parameters()).device

    @property
    @abstractmethod
    def seconds(self) -> float:
        """Present time of the virtual clock, in seconds."""

    @property
    def mixed_ages(self) -> tuple[float, int]:
        """Ages, in steps, of the parameters that ranks mixed into their own: their sum and their number."""
        return 0.0, 0

    @property
    def staleness_steps(self) -> float | None:
        """Mean age, in steps, of the parameters that ranks mixed into their own; None if there were none."""
        total, count = self.mixed_ages
        return total / count if count else None

    @property
    def moved_bytes(self) -> int:
        """Bytes of gradients or parameters that all ranks have sent or fetched."""
        return 0

    @property
    def is_finite(self) -> bool:
        """Whether every loss so far was finite."""
        return all(rank.is_finite for rank in self.ranks)

    @abstractmethod
    def advance(self) -> None:
        """Continues the emulation by one event of the virtual clock, or by one step of all ranks."""

    def begin_slice(self) -> None:
        """Clears the step times, and the ages of mixed parameters, that were recorded in the last slice."""
        self.times = [StepTimes() for _ in range(self.trained.num_ranks)]

    def run(self, *, samples: int | None = None, seconds: float | None = None) -> None:
        """Trains until a number of samples or a time is reached, whichever is first.

        It stops early if a loss is not finite.

        Args:
            samples: Number of samples that all ranks have processed in total; None for no limit.
            seconds: Time of the virtual clock; None for no limit. At least one limit must be given.
        """
        if samples is None and seconds is None:
            raise ValueError("run needs a limit: samples, seconds or both")
        while (
            (samples is None or self.samples < samples)
            and (seconds is None or self.seconds < seconds)
            and self.is_finite
        ):
            self.advance()

    @abstractmethod
    def scored(self) -> AbstractContextManager[None]:
        """Context manager in which `model` holds the parameters to evaluate, such as the ranks' mean."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Returns the state from which `load` resumes exactly; it shares memory with the emulation."""

    @abstractmethod
    def load(self, state: dict[str, Any]) -> None:
        """Resumes from the result of `state` of an emulation with the same settings.

        With all-reduce, the number of ranks may differ, because the gradients do not depend on it.
        """

    def _common_state(self) -> dict[str, Any]:
        return {
            "samples": self.samples,
            "rank_steps": self.rank_steps,
            "draws": self._draws.state(),
            "ranks": [rank.state() for rank in self.ranks],
            "random": torch.get_rng_state(),
            **self._device_random(),
        }

    def _device_random(self) -> dict[str, Any]:
        """Returns the state of the device's random generator, which dropout on the device uses."""
        device = self.device
        if device.type == "cpu":
            return {}
        return {"device_random": torch.get_device_module(device).get_rng_state(device)}

    def _load_common(self, state: dict[str, Any]) -> None:
        self.samples, self.rank_steps = state["samples"], state["rank_steps"]
        if len(state["draws"]) == self.trained.num_ranks:
            self._draws.load(state["draws"])
        for rank, saved in zip(self.ranks, state["ranks"], strict=True):
            rank.load(saved)
        torch.set_rng_state(state["random"])
        if self.device.type != "cpu" and "device_random" in state:
            torch.get_device_module(self.device).set_rng_state(state["device_random"], self.device)


class AllReduceEmulation(Emulation):
    """Emulation of all-reduce: all ranks make each step together with the mean gradient.

    One model represents all ranks. With batch norm, the gradient of each rank's samples is computed
    separately, since batch norm normalizes them separately. Otherwise several ranks are one batch.
    """

    def __init__(self, trained: Trained) -> None:
        super().__init__(trained)
        self.ranks = [self._rank(0, 1)]
        self._seconds = 0.0
        batch_size, num_ranks = trained.configuration.batch_size, trained.num_ranks
        self._shares = [shard(batch_size, rank, num_ranks) for rank in range(num_ranks)]
        has_batch_norm = any(isinstance(m, _BatchNorm) for m in self.model.modules())
        self._parts = self._shares if has_batch_norm else _chunks(batch_size)
        self._num_bytes = trainable_bytes(self.model)

    @property
    def seconds(self) -> float:
        return self._seconds

    @property
    def moved_bytes(self) -> int:
        return self._num_bytes * self.rank_steps if self.trained.num_ranks > 1 else 0

    def advance(self) -> None:
        """Makes one step of all ranks."""
        replica, cluster, num_ranks = self.ranks[0], self.trained.cluster, self.trained.num_ranks
        batch_size = self.trained.configuration.batch_size
        replica.set_rate(self.samples)
        replica.clear_gradient()
        for offset, size in self._parts:
            replica.add_gradient(offset, size, size / batch_size)
        replica.make_step()
        parts = [self._draws.parts(rank, size) for rank, (_, size) in enumerate(self._shares)]
        exchange = all_reduce_seconds(cluster, num_ranks, self._num_bytes)
        # The all-reduce overlaps with the compute of the slowest rank, but not with its artificial delay.
        last, still = max(parts, key=sum)
        g = cluster.overlap
        whole = still + (last**g + exchange**g) ** (1 / g)
        for times, own in zip(self.times, parts, strict=True):
            times.add(sum(own), whole)
        self._seconds += whole
        self.samples += batch_size
        self.rank_steps += num_ranks

    @contextmanager
    def scored(self) -> Iterator[None]:
        """Context manager that changes nothing: the model already holds the parameters to evaluate."""
        yield

    def state(self) -> dict[str, Any]:
        return {**self._common_state(), "seconds": self._seconds}

    def load(self, state: dict[str, Any]) -> None:
        self._load_common(state)
        self._seconds = state["seconds"]


class LocalSGDEmulation(Emulation):
    """Emulation of local SGD: each rank trains alone for tau steps, then all continue with their mean.

    With DiLoCo, an outer optimizer makes a step towards the mean instead.
    """

    def __init__(self, trained: Trained) -> None:
        super().__init__(trained)
        configuration = trained.configuration
        traits = traits_of(configuration.strategy)
        self.ranks = [self._rank(rank, trained.num_ranks) for rank in range(trained.num_ranks)]
        self._flats = [FlatParameters(rank.model, rank.optimizer) for rank in self.ranks]
        self._tau = traits.tau_of(configuration)
        self._clocks = [0.0] * trained.num_ranks
        self._moved_bytes = 0
        self._rule: AveragingRule = strategy_rule(configuration.strategy, configuration)
        self._rule.start(self._flats[0].vector)
        self._scratch = torch.empty_like(self._flats[0].vector)

    @property
    def seconds(self) -> float:
        return max(self._clocks)

    @property
    def moved_bytes(self) -> int:
        return self._moved_bytes

    def advance(self) -> None:
        """Makes one step of every rank and, after every tau steps, averages the parameters."""
        trained = self.trained
        computes = []
        for rank, flat in zip(self.ranks, self._flats, strict=True):
            rank.set_rate(self.samples)
            rank.add_own_gradient()
            rank.make_step()
            flat.stepped()
            compute = self._draws.seconds(rank.rank, rank.share.num_samples)
            computes.append(compute)
            self._clocks[rank.rank] += compute
        self.samples += trained.configuration.batch_size
        self.rank_steps += trained.num_ranks
        waited = [0.0] * trained.num_ranks
        if self.ranks[0].step % self._tau == 0:
            num_bytes = self._flats[0].num_bytes
            end = self.seconds + all_reduce_seconds(trained.cluster, trained.num_ranks, num_bytes)
            waited = [end - own for own in self._clocks]
            self._clocks = [end] * trained.num_ranks
            self._moved_bytes += num_bytes * trained.num_ranks if trained.num_ranks > 1 else 0
            with torch.no_grad():
                self._average()
        for times, compute, wait in zip(self.times, computes, waited, strict=True):
            times.add(compute, compute + wait)

    def _average(self) -> None:
        target = self._mean()
        self._rule.combine(target)
        for flat in self._flats:
            flat.replace(flat.plain(self._scratch), target)

    def _mean(self) -> Tensor:
        mean = torch.zeros_like(self._scratch)
        for flat in self._flats:
            mean.add_(flat.plain(self._scratch))
        return mean.div_(len(self._flats))

    def scored(self) -> AbstractContextManager[None]:
        with torch.no_grad():
            return self._flats[0].holding(self._mean())

    def state(self) -> dict[str, Any]:
        return {
            **self._common_state(),
            "clocks": list(self._clocks),
            "moved_bytes": self._moved_bytes,
            **self._rule.state(),
        }

    def load(self, state: dict[str, Any]) -> None:
        self._load_common(state)
        self._clocks, self._moved_bytes = list(state["clocks"]), state["moved_bytes"]
        for flat in self._flats:
            flat.stepped()
        self._rule.load(state)


class AsynchronousEmulation(Emulation):
    """Emulation of strategies without a barrier: each rank starts its next step when its last one has ended.

    The gradient of a step is computed when the step ends on the virtual clock. The rank's parameters have not
    changed since the step began.
    """

    _ENDS = "ends"

    def __init__(self, trained: Trained) -> None:
        super().__init__(trained)
        configuration, cluster = trained.configuration, trained.cluster
        self.clock = EventClock()
        self.ranks = [self._rank(rank, trained.num_ranks) for rank in range(trained.num_ranks)]
        self._mixing: Mixing
        if traits_of(configuration.strategy).partners == "server":
            self._mixing = CenterMixing(self.ranks, configuration, self.clock, cluster)
        else:
            self._mixing = PeerMixing(self.ranks, configuration, self.clock, cluster, trained.seed)
        self._computes = [0.0] * trained.num_ranks
        #: Time at which the previous step of each rank ended.
        self._started = [0.0] * trained.num_ranks
        #: Ranks that wait for a reply after a step. Ranks that wait but are not listed wait before a step.
        self._waits_after: set[int] = set()
        self._has_started = False

    @property
    def seconds(self) -> float:
        return self.clock.seconds

    @property
    def mixed_ages(self) -> tuple[float, int]:
        return sum(self._mixing.staleness), len(self._mixing.staleness)

    @property
    def moved_bytes(self) -> int:
        return self._mixing.moved_bytes

    def begin_slice(self) -> None:
        super().begin_slice()
        self._mixing.staleness.clear()

    def advance(self) -> None:
        """Continues the emulation by the next event of the virtual clock."""
        if not self._has_started:
            self._has_started = True
            with torch.no_grad():
                for rank in self.ranks:
                    self._begin(rank)
        event = self.clock.next_event()
        rank = self.ranks[event.rank]
        with torch.no_grad():
            if event.kind != self._ENDS:
                if not self._mixing.take(event):
                    return
                if rank.rank in self._waits_after:
                    self._waits_after.discard(rank.rank)
                    self._end_step(rank)
                    self._begin(rank)
                else:
                    self._compute(rank)
                return
        rank.add_own_gradient()
        rank.make_step()
        self.samples += rank.share.num_samples
        self.rank_steps += 1
        with torch.no_grad():
            if self._mixing.after_step(rank.rank):
                self._end_step(rank)
                self._begin(rank)
            else:
                self._waits_after.add(rank.rank)

    def _begin(self, rank: VirtualRank) -> None:
        if self._mixing.before_step(rank.rank):
            self._compute(rank)

    def _compute(self, rank: VirtualRank) -> None:
        rank.set_rate(self.samples)
        compute = self._draws.seconds(rank.rank, rank.share.num_samples)
        self._computes[rank.rank] = compute
        self.clock.schedule(self.clock.seconds + compute, self._ENDS, rank.rank)

    def _end_step(self, rank: VirtualRank) -> None:
        now = self.clock.seconds
        self.times[rank.rank].add(self._computes[rank.rank], now - self._started[rank.rank])
        self._started[rank.rank] = now

    def scored(self) -> AbstractContextManager[None]:
        with torch.no_grad():
            return self._mixing.scoring(self._mixing.score_vector())

    def state(self) -> dict[str, Any]:
        return {
            **self._common_state(),
            "mixing": self._mixing.state(),
            "clock": self.clock.state(),
            "computes": list(self._computes),
            "begun": list(self._started),
            "waits_after": sorted(self._waits_after),
            "has_begun": self._has_started,
        }

    def load(self, state: dict[str, Any]) -> None:
        self._load_common(state)
        with torch.no_grad():
            self._mixing.load(state["mixing"])
        self.clock.load(state["clock"])
        self._computes, self._started = list(state["computes"]), list(state["begun"])
        self._waits_after, self._has_started = set(state["waits_after"]), state["has_begun"]


def emulation(trained: Trained) -> Emulation:
    """Creates the emulation of a configuration's strategy.

    A single rank trains by plain SGD, unless the strategy has an outer optimizer.
    """
    traits = traits_of(trained.configuration.strategy)
    if traits.exchanged == "gradients" or (trained.num_ranks == 1 and not traits.has_outer_step):
        return AllReduceEmulation(trained)
    return LocalSGDEmulation(trained) if traits.barrier else AsynchronousEmulation(trained)


def _chunks(batch_size: int) -> list[tuple[int, int]]:
    """Splits a batch into parts of at most `_LARGEST_BATCH` samples; returns offset and size of each part."""
    count = -(-batch_size // _LARGEST_BATCH)
    return [shard(batch_size, place, count) for place in range(count)]
