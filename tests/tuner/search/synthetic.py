"""A prober whose training is a known law: searches run in milliseconds and the truth is at hand."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from search_spaces import Configuration, traits_of
from tuner.domain.cluster import Cluster, RankDelay, charge
from tuner.domain.measurement import (
    CurvePoint,
    Measurement,
    Outcome,
    Purpose,
    RankTiming,
    Spread,
)
from tuner.probes import ProbeHandle, Prober, Until


@dataclass
class Law:
    """Seconds a step and progress by samples, all constants known."""

    fixed_seconds: float = 2e-3
    seconds_per_sample: float = 5e-4
    hop_seconds: float = 1e-3
    cores: int = 2
    samples: float = 3e4
    noise_scale: float = 150.0
    best_rate: float = 0.3
    edge_rate: float = 1.0
    tail: float = 0.7
    height: float = 1.12
    value_noise: float = 0.008
    start: float = 0.1
    target: float = 0.85
    memory_samples: int = 10**9
    """Samples a rank from which a rank runs out of memory."""
    delays: tuple[RankDelay, ...] = ()
    samples_factors: dict[str, float] = field(default_factory=dict)
    """Samples a strategy needs on several ranks over those of all-reduce; 1.5 where nothing is said."""

    def step_seconds(self, configuration: Configuration) -> float:
        """Seconds in which all ranks process one global batch."""
        rank_seconds = self.rank_step_seconds(configuration)
        if traits_of(configuration.strategy).barrier:
            return rank_seconds[0]
        return len(rank_seconds) / sum(1.0 / seconds for seconds in rank_seconds)

    def rank_step_seconds(self, configuration: Configuration) -> list[float]:
        """Mean seconds a step of every rank: alike where all wait for the slowest, else each its own."""
        ranks, batch = configuration.nodes, configuration.batch_size
        traits = traits_of(configuration.strategy)
        share = math.ceil(batch / ranks)
        compute = (self.fixed_seconds + self.seconds_per_sample * share) * max(1.0, ranks / self.cores)
        compute *= 1.1 if ranks > 1 else 1.0
        tau = traits.tau_of(configuration)
        exchange = 2 * (ranks - 1) * self.hop_seconds if traits.partners == "all" else self.hop_seconds
        exchange = exchange / tau if ranks > 1 else 0.0
        if traits.barrier:
            return [compute + self._slowest_delay(ranks, tau) + exchange] * ranks
        means = [sum(0.5 * (d.low + d.high) for d in self.delays if d.slows(r)) for r in range(ranks)]
        return [compute + mean + exchange for mean in means]

    def _slowest_delay(self, ranks: int, tau: int) -> float:
        """Mean of the largest of the ranks' delays, drawn often; ranks wait every tau steps."""
        if not self.delays:
            return 0.0
        rng = np.random.default_rng(ranks)
        drawn = np.zeros((2000, ranks))
        for delay in self.delays:
            for rank in range(ranks):
                if delay.slows(rank):
                    drawn[:, rank] += rng.uniform(delay.low, delay.high, (tau, 2000)).mean(axis=0)
        return float(drawn.max(axis=1).mean())

    def samples_to_target(self, configuration: Configuration) -> float:
        batch, rate = configuration.batch_size, configuration.learning_rate
        if rate > self.edge_rate:
            return math.inf
        best = self.best_rate / (1 + self.noise_scale / batch)
        ratio = math.log(rate / best)
        slope = 0.9 if ratio < 0 else 1.6
        penalty = slope * (math.sqrt(1 + ratio**2) - 1)
        samples = self.samples * (1 + batch / self.noise_scale) * math.exp(penalty)
        if configuration.nodes == 1 or configuration.strategy == "all_reduce":
            return samples
        return samples * self.samples_factors.get(configuration.strategy, 1.5)

    def seconds_to_target(self, configuration: Configuration) -> float:
        steps = self.samples_to_target(configuration) / configuration.batch_size
        return steps * self.step_seconds(configuration)

    def value(self, configuration: Configuration, samples: float) -> float:
        inner = (1 - 1 / self.height) ** (-1 / self.tail) - 1
        speed = inner / self.samples_to_target(configuration)
        progress = self.height * (1 - (1 + speed * samples) ** -self.tail)
        return self.start + progress * (self.target - self.start)

    def has_arrived(self, value: float) -> bool:
        """Whether a value reaches the target, be the metric one that rises or one that falls."""
        return (value - self.target) * (self.target - self.start) >= 0

    def fits(self, configuration: Configuration) -> bool:
        """Whether a rank's share of the batch fits its memory."""
        return -(-configuration.batch_size // configuration.nodes) < self.memory_samples


def random_law(seed: int) -> Law:
    """A training of some minutes at the present settings, whose best settings lie somewhere else."""
    rng = np.random.default_rng(seed)

    def between(low: float, high: float) -> float:
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))

    return Law(
        samples=between(3e4, 3e5),
        noise_scale=between(30, 2000),
        best_rate=between(0.05, 0.6),
        edge_rate=between(0.3, 1.5),
        seconds_per_sample=between(3e-4, 3e-3),
        fixed_seconds=between(5e-4, 1e-2),
        tail=float(rng.uniform(0.5, 1.2)),
    )


@dataclass
class Clock:
    """Time that passes only when somebody trains."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class SyntheticProber(Prober):
    """Carries slices out at once, charging what the law says; keeps its place in the probe's folder."""

    law: Law
    clock: Clock
    cluster: Cluster | None = None
    startup_seconds: float = 0.5
    seed: int = 0
    started: list[tuple[Configuration, Purpose]] = field(default_factory=list)
    charged_seconds: float = 0.0
    cancelled: int = 0
    resumed_at_steps: list[int] = field(default_factory=list)
    _done: dict[str, Measurement] = field(default_factory=dict)

    def start(
        self, configuration: Configuration, purpose: Purpose, until: Until, folder: Path
    ) -> ProbeHandle:
        identity = f"{len(self.started)}"
        self.started.append((configuration, purpose))
        if not self.law.fits(configuration):
            measurement = self._too_large(configuration, purpose)
        elif purpose is Purpose.TIMING:
            measurement = self._timing(configuration, until)
        else:
            measurement = self._training(configuration, purpose, until, folder)
        if self.cluster is not None:
            price = charge(measurement.charged_seconds, configuration, self.cluster)
            measurement = replace(measurement, charged_dollars=price.dollars)
        self._done[identity] = measurement
        self.clock.now += measurement.charged_seconds
        self.charged_seconds += measurement.charged_seconds
        return ProbeHandle(identity=identity, configuration=configuration, purpose=purpose, folder=folder)

    def poll(self, handle: ProbeHandle) -> Measurement:
        return self._done[handle.identity]

    def cancel(self, handle: ProbeHandle) -> None:
        self.cancelled += 1
        self._done[handle.identity] = replace(self._done[handle.identity], outcome=Outcome.STOPPED)

    def close(self) -> None:
        self._done.clear()

    def slice(
        self, configuration: Configuration, purpose: Purpose, seconds: float, folder: Path
    ) -> Measurement:
        """One slice of so many training seconds, at once."""
        handle = self.start(configuration, purpose, Until(training_seconds=seconds), folder)
        return self.poll(handle)

    def _too_large(self, configuration: Configuration, purpose: Purpose) -> Measurement:
        return Measurement(
            configuration=configuration,
            purpose=purpose,
            outcome=Outcome.OUT_OF_MEMORY,
            startup_seconds=self.startup_seconds,
            charged_seconds=self.startup_seconds,
        )

    def _timing(self, configuration: Configuration, until: Until) -> Measurement:
        rng = np.random.default_rng((self.seed, len(self.started)))
        moment = float(np.exp(0.04 * rng.standard_normal()))
        step = self.law.step_seconds(configuration) * moment
        count = max(8, min(until.steps or 30, int((until.training_seconds or 1e9) / step)))
        seconds = count * step
        return Measurement(
            configuration=configuration,
            purpose=Purpose.TIMING,
            outcome=Outcome.STOPPED,
            ranks=_ranks(configuration, self._by_rank(configuration, moment), count),
            step=count,
            samples=count * configuration.batch_size,
            training_seconds=seconds,
            startup_seconds=self.startup_seconds,
            charged_seconds=seconds + self.startup_seconds,
            parameter_bytes=400_000,
        )

    def _training(
        self, configuration: Configuration, purpose: Purpose, until: Until, folder: Path
    ) -> Measurement:
        law = self.law
        place = folder / "checkpoints" / "place.json"
        saved = json.loads(place.read_text()) if place.is_file() else {"step": 0, "seconds": 0.0}
        rng = np.random.default_rng((self.seed, len(self.started)))
        moment = float(np.exp(0.04 * rng.standard_normal()))
        step_seconds = law.step_seconds(configuration) * moment
        batch = configuration.batch_size
        step, seconds = int(saved["step"]), float(saved["seconds"])
        self.resumed_at_steps.append(step)
        curve: list[CurvePoint] = []
        if step == 0:
            curve.append(CurvePoint(training_seconds=0.0, step=0, samples=0, value=law.start))
        point = _next_evaluation(step * batch)
        outcome = Outcome.PAUSED
        first = step
        if law.samples_to_target(configuration) == math.inf:
            outcome = Outcome.DIVERGED
            step, seconds = step + 20, seconds + 20 * step_seconds
        while outcome is Outcome.PAUSED:
            step, seconds = step + 1, seconds + step_seconds
            if step * batch >= point:
                point = _next_evaluation(step * batch)
                value = law.value(configuration, step * batch)
                value += law.value_noise * rng.standard_normal()
                curve.append(
                    CurvePoint(training_seconds=seconds, step=step, samples=step * batch, value=value)
                )
                if law.has_arrived(value):
                    outcome = Outcome.REACHED
                    break
            if until.training_seconds is not None and seconds >= until.training_seconds:
                break
            if until.samples is not None and step * batch >= until.samples:
                break
        checkpoint = folder / "checkpoints" / "checkpoint"
        checkpoint.parent.mkdir(exist_ok=True)
        checkpoint.touch()
        place.write_text(json.dumps({"step": step, "seconds": seconds}))
        charged = (step - first) * step_seconds * 1.1 + self.startup_seconds
        return Measurement(
            configuration=configuration,
            purpose=purpose,
            outcome=outcome,
            curve=tuple(curve),
            ranks=_ranks(configuration, self._by_rank(configuration, moment), step - first),
            step=step,
            samples=step * batch,
            training_seconds=seconds,
            scoring_seconds=0.1 * (step - first) * step_seconds,
            startup_seconds=self.startup_seconds,
            charged_seconds=charged,
            parameter_bytes=400_000,
            checkpoint=str(checkpoint),
        )

    def _by_rank(self, configuration: Configuration, moment: float) -> list[float]:
        return [seconds * moment for seconds in self.law.rank_step_seconds(configuration)]


def _next_evaluation(samples: float) -> float:
    point = 1000.0
    while point <= samples:
        point *= 1.15
    return point


def _ranks(configuration: Configuration, steps: list[float], count: int) -> tuple[RankTiming, ...]:
    def spread(seconds: float) -> Spread:
        return Spread(
            median=seconds, p10=0.9 * seconds, p90=1.2 * seconds, mean=seconds, std=0.1 * seconds, count=count
        )

    return tuple(
        RankTiming(
            rank=rank,
            batch_size=math.ceil(configuration.batch_size / configuration.nodes),
            compute=spread(0.9 * step),
            sync=spread(0.1 * step),
            input=spread(0.0),
            step=spread(step),
        )
        for rank, step in enumerate(steps)
    )
