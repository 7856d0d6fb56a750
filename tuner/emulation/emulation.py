"""Emulates the training of many ranks in one process, on a virtual clock.

Gradients, data order, update rules, momentum and the choice of peers are those of real ranks; only time is
drawn (`timing`) and counted (`event_clock`). The same seed gives the same run, whatever the machine's load.
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
from tuner.strategies.flat import FlatParameters
from tuner.strategies.registry import strategy_rule

#: Gradients of several ranks' shares are computed at once, of so many samples at most.
_LARGEST_BATCH = 1024
#: Step times stored per rank.
_MOST_STEPS_STORED = 1024


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What is trained, and on what.

    Args:
        workload: The workload.
        make_model: A new model with the initial parameters, on its device.
        data: The training data.
        configuration: Batch size, learning rate, strategy with its knobs.
        num_ranks: p.
        cluster: What p ranks would run on.
        seed: Of data order, of the strategy's draws and of time.
        computes: Whether gradients are computed; without them only time passes, and messages.
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
        compute: Of each step.
        whole: Of each step with what it waited for.
    """

    compute: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)

    def add(self, compute: float, whole: float) -> None:
        """Adds a step, unless enough are stored."""
        if len(self.compute) < _MOST_STEPS_STORED:
            self.compute.append(compute)
            self.whole.append(whole)


class Emulation(ABC):
    """A run on virtual ranks.

    Args:
        trained: What is trained.

    Attributes:
        samples: Samples that all ranks have seen.
        rank_steps: Steps of all ranks in total.
        times: Of each rank's steps since it was made.
        ranks: The replicas stored.
        model: The model to evaluate, within `scored`.
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
        """The first rank's."""
        return self.ranks[0].model

    @property
    def device(self) -> torch.device:
        """Where ranks compute."""
        return next(self.model.parameters()).device

    @property
    @abstractmethod
    def seconds(self) -> float:
        """The virtual clock."""

    @property
    def mixed_ages(self) -> tuple[float, int]:
        """Sum of the ages of what was mixed in, in steps, and how much was."""
        return 0.0, 0

    @property
    def staleness_steps(self) -> float | None:
        """Mean age of what was mixed in, in steps; None if nothing was."""
        total, count = self.mixed_ages
        return total / count if count else None

    @property
    def moved_bytes(self) -> int:
        """Bytes that all ranks have sent or fetched."""
        return 0

    @property
    def is_finite(self) -> bool:
        """Whether every loss so far was finite."""
        return all(rank.is_finite for rank in self.ranks)

    @abstractmethod
    def advance(self) -> None:
        """Advances by one event, or by one step of all ranks."""

    def begin_slice(self) -> None:
        """Forgets recorded steps and exchanges, like a run that was just loaded."""
        self.times = [StepTimes() for _ in range(self.trained.num_ranks)]

    def run(self, *, samples: int | None = None, seconds: float | None = None) -> None:
        """Trains until all ranks have seen so many samples, or until a moment of the virtual clock.

        It ends early where a loss is no longer finite.
        """
        if samples is None and seconds is None:
            raise ValueError("say until when: samples, seconds or both")
        while (
            (samples is None or self.samples < samples)
            and (seconds is None or self.seconds < seconds)
            and self.is_finite
        ):
            self.advance()

    @abstractmethod
    def scored(self) -> AbstractContextManager[None]:
        """Within it `model` has the parameters to evaluate; afterwards those it trains."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """The state to resume from exactly: numbers and tensors, shared with the run."""

    @abstractmethod
    def load(self, state: dict[str, Any]) -> None:
        """Resumes from what `state` of an identical emulation gave.

        All-reduce, whose statistics do not depend on ranks, may resume with another number of them.
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
        """The state of the device's own generator, from which dropout draws there."""
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
    """All ranks make each step in lockstep, on the mean gradient: one replica stands for all.

    Shares are micro-batches of one batch, each weighted by its size; without batch norm, which normalises
    a share by itself, several shares are one batch (equal but for rounding).
    """

    def __init__(self, trained: Trained) -> None:
        super().__init__(trained)
        self.ranks = [self._rank(0, 1)]
        self._seconds = 0.0
        batch_size, num_ranks = trained.configuration.batch_size, trained.num_ranks
        self._shares = [shard(batch_size, rank, num_ranks) for rank in range(num_ranks)]
        has_batch_norm = any(isinstance(m, _BatchNorm) for m in self.model.modules())
        self._parts = self._shares if has_batch_norm else _chunks(batch_size)
        self._num_bytes = self.ranks[0].num_bytes

    @property
    def seconds(self) -> float:
        return self._seconds

    @property
    def moved_bytes(self) -> int:
        return self._num_bytes * self.rank_steps if self.trained.num_ranks > 1 else 0

    def advance(self) -> None:
        """One step of all ranks."""
        replica, cluster, num_ranks = self.ranks[0], self.trained.cluster, self.trained.num_ranks
        batch_size = self.trained.configuration.batch_size
        replica.set_rate(self.samples)
        replica.clear_gradient()
        for offset, size in self._parts:
            replica.add_gradient(offset, size, size / batch_size)
        replica.make_step()
        parts = [self._draws.parts(rank, size) for rank, (_, size) in enumerate(self._shares)]
        exchange = all_reduce_seconds(cluster, num_ranks, self._num_bytes)
        # The exchange overlaps with the backward pass of the slowest rank, not with its delay.
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
        """The model as it is."""
        yield

    def state(self) -> dict[str, Any]:
        return {**self._common_state(), "seconds": self._seconds}

    def load(self, state: dict[str, Any]) -> None:
        self._load_common(state)
        self._seconds = state["seconds"]


class LocalSGDEmulation(Emulation):
    """Ranks train alone for tau steps, then all take the mean, or an outer step towards it (DiLoCo)."""

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
        """One step of every rank, and the average where it is due."""
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
            # Look-ahead is added to the common parameters.
            plain = flat.plain(self._scratch)
            if plain is flat.vector:
                flat.vector.copy_(target)
            else:
                flat.vector.add_(torch.sub(target, plain, out=plain))

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
    """Ranks without a barrier: each starts its next step when the last is done.

    A step's gradient is that of the parameters at its beginning: nothing changes them before its end.
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
        #: When each rank's step before this one ended, and which ranks wait after a step, not before one.
        self._started = [0.0] * trained.num_ranks
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
        """One event."""
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
    """The emulation of a configuration's strategy; one rank, but for an outer step, is plain SGD."""
    traits = traits_of(trained.configuration.strategy)
    if traits.exchanged == "gradients" or (trained.num_ranks == 1 and not traits.has_outer_step):
        return AllReduceEmulation(trained)
    return LocalSGDEmulation(trained) if traits.barrier else AsynchronousEmulation(trained)


def _chunks(batch_size: int) -> list[tuple[int, int]]:
    """The fewest parts of a batch that are not too large, as offset and size."""
    count = -(-batch_size // _LARGEST_BATCH)
    return [shard(batch_size, place, count) for place in range(count)]
