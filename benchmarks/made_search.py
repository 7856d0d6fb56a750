"""Made search of a job that trains: runs and timings from a known law; nothing is carried out."""

from __future__ import annotations

import math

import numpy as np

from search_spaces import Configuration
from tuner.domain.cluster import Cluster
from tuner.domain.ledger import ProbeRecord
from tuner.domain.measurement import (
    CurvePoint,
    Measurement,
    NoiseStatistic,
    Outcome,
    Purpose,
    RankTiming,
    Spread,
)
from tuner.job import Job
from tuner.search.state import SearchState, read_state

#: Size of the training set.
EPOCH_SAMPLES = 20_000
_START, _TARGET, _TAIL = 0.1, 0.85, 0.7
_SLICES_OF_A_RUN = 5


def made_job() -> Job:
    """A job with 420 candidates: four node counts, six batches, ten rates, two strategies."""
    return Job.model_validate(
        {
            "workload": {"path": "benchmarks.strategy_workloads:Digits"},
            "cluster": {"nodes": [1, 2, 4, 8]},
            "goal": {"metric": "accuracy", "target": _TARGET, "trainings": 20},
            "space": {
                "batch_size": [16, 32, 64, 128, 256, 512],
                "learning_rate": {"low": 1e-3, "high": 1.0, "levels_per_decade": 3},
                "strategy": ["all_reduce", "gossip_pull"],
                "tau": [4],
            },
            "baseline": {"nodes": 1, "batch_size": 64, "learning_rate": 0.01},
        }
    )


def made_state(num_slices: int, *, seed: int = 0) -> SearchState:
    """State of a search of `made_job` after so many slices, see `made_probes`."""
    return read_state(made_job(), made_cluster(), made_probes(num_slices, seed=seed), EPOCH_SAMPLES)


def made_cluster() -> Cluster:
    """What `made_job` trains on."""
    return Cluster(node_counts=made_job().cluster.nodes, cores_per_host=16)


def made_probes(num_slices: int, *, seed: int = 0) -> list[ProbeRecord]:
    """Probes of a search of `made_job`: every other one is a timing of one slice, the others are runs.

    A run has five slices, or more where that many slices would need more configurations than there are.

    Args:
        num_slices: How many slices the probes have together.
        seed: Of what was probed, and of the noise.
    """
    job, rng = made_job(), np.random.default_rng(seed)
    levels = job.search_space().candidates()
    baseline = job.baseline_configuration()
    assert baseline is not None, "the job states one"
    others = [levels[i] for i in rng.permutation(len(levels)) if levels[i] != baseline]
    num_pairs = (len(others) + 1) // 2
    of_a_run = max(_SLICES_OF_A_RUN, math.ceil(num_slices / num_pairs) - 1)
    probes: list[ProbeRecord] = []
    left = num_slices
    for what in (baseline, *others):
        if left == 0:
            break
        is_timing = len(probes) % 2 == 1
        count = 1 if is_timing else min(of_a_run, left)
        slices = [_timing(what, rng)] if is_timing else _training(what, count, rng)
        probes.append(_probe(len(probes), what, slices))
        left -= count
    return probes


def _probe(probe_id: int, what: Configuration, slices: list[Measurement]) -> ProbeRecord:
    return ProbeRecord(
        probe_id=probe_id,
        study_id=0,
        configuration=what,
        purpose=slices[-1].purpose,
        trial_number=None,
        slices=tuple(slices),
        outcome=slices[-1].outcome,
        reason="",
        lease=None,
        created_at=0.0,
    )


def _step_seconds(what: Configuration, rng: np.random.Generator) -> float:
    compute = 2e-3 + 5e-4 * math.ceil(what.batch_size / what.nodes)
    return (compute + 1e-3 * (what.nodes - 1)) * math.exp(0.05 * rng.standard_normal())


def _samples_to_target(what: Configuration) -> float:
    best = 0.3 / (1 + 150 / what.batch_size)
    ratio = math.log(what.learning_rate / best)
    slope = 0.9 if ratio < 0 else 1.6
    return 3e4 * (1 + what.batch_size / 150) * math.exp(slope * (math.sqrt(1 + ratio**2) - 1))


def _ranks(what: Configuration, seconds: float) -> tuple[RankTiming, ...]:
    def spread(mean: float) -> Spread:
        return Spread(median=mean, p10=mean, p90=mean, mean=mean, std=0.1 * mean, count=40)

    share = math.ceil(what.batch_size / what.nodes)
    return tuple(
        RankTiming(
            rank=rank,
            batch_size=share,
            compute=spread(seconds),
            sync=spread(0.0),
            input=spread(0.0),
            step=spread(seconds),
        )
        for rank in range(what.nodes)
    )


def _timing(what: Configuration, rng: np.random.Generator) -> Measurement:
    ranks = _ranks(what, _step_seconds(what, rng))
    return Measurement(
        configuration=what,
        purpose=Purpose.TIMING,
        outcome=Outcome.STOPPED,
        ranks=ranks,
        step=40,
        samples=40 * what.batch_size,
        charged_seconds=3.0,
        startup_seconds=1.0,
        parameter_bytes=400_000,
    )


def _training(what: Configuration, num_slices: int, rng: np.random.Generator) -> list[Measurement]:
    """Slices that lead through half of the run's samples to target, each with three scorings."""
    inner = (1 - 1 / 1.12) ** (-1 / _TAIL) - 1
    speed = inner / _samples_to_target(what)
    samples_at = np.geomspace(0.02, 0.5, 3 * num_slices) / speed * inner
    seconds = _step_seconds(what, rng) / what.batch_size
    points = [CurvePoint(training_seconds=0.0, step=0, samples=0, value=_START)]
    for samples in samples_at:
        progress = 1.12 * (1 - (1 + speed * samples) ** -_TAIL)
        value = _START + progress * (_TARGET - _START) + 0.006 * rng.standard_normal()
        steps = int(samples / what.batch_size)
        points.append(
            CurvePoint(training_seconds=samples * seconds, step=steps, samples=int(samples), value=value)
        )
    slices, before = [], 0
    for number in range(num_slices):
        end = 3 * (number + 1) + 1
        last = points[end - 1]
        slices.append(
            Measurement(
                configuration=what,
                purpose=Purpose.STATISTICS,
                outcome=Outcome.PAUSED,
                curve=tuple(points[before:end]),
                ranks=_ranks(what, seconds * what.batch_size),
                noise=(
                    NoiseStatistic(samples=last.samples, noise=150.0, squared_gradient=1.0, num_estimates=4),
                ),
                step=last.step,
                samples=last.samples,
                training_seconds=last.training_seconds,
                charged_seconds=last.training_seconds - points[max(before - 1, 0)].training_seconds + 1.5,
                startup_seconds=1.0,
                scoring_seconds=0.3,
                parameter_bytes=400_000,
            )
        )
        before = end
    return slices
