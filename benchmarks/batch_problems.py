"""Workloads for predicting large batches from small ones: tables of Pollux, MLPerf and Step Law."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import typer

from benchmarks.mlperf_tables import read_workloads
from benchmarks.noise_growth import evidence_of
from benchmarks.pollux_tables import EASIER, FALLING, TARGETS, Run, read_runs
from benchmarks.steplaw_tables import Losses, read_losses, sequences_to
from search_spaces import Configuration
from tuner.analytic.rate_edge import RunEvidence

Array = npt.NDArray[np.float64]

#: How many of Pollux's and MLPerf's batches are fitted: the smallest ones.
NUM_FITTED = 3
#: The share of a run whose noise statistics are known, Pollux only.
QUARTER = 0.25
#: MLPerf counts epochs; the model needs more than one sample. The unit does not matter.
_SAMPLES_PER_EPOCH = 1e6
#: Step Law: the largest batch (sequences) that is fitted, and how many batches and targets a problem needs.
LARGEST_FITTED = 256
_FEWEST_FITTED, _FEWEST_ASKED, _NUM_TARGETS, _NUM_LEVELS = 4, 3, 5, 400


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One workload and target: which runs are fitted, and which batches are to be predicted.

    Args:
        source: `pollux`, `mlperf` or `steplaw`.
        workload: Name.
        target: The metric's value that counts as reached; None for MLPerf's own.
        fitted: Runs that reached the target. They state no learning rate: each batch trained at a rate tuned
            for it.
        batch_sizes: What is predicted, ascending, `(num_asked,)`.
        samples: Measured samples to the target, NaN where it was never reached, `(num_asked,)`.
        single_runs: Every run's own figure, one array for each of `batch_sizes`.
        unit: Samples in the unit in which the table counts.
    """

    source: str
    workload: str
    target: float | None
    fitted: tuple[RunEvidence, ...]
    batch_sizes: Array
    samples: Array
    single_runs: tuple[Array, ...]
    unit: float = 1.0


def tuned(batch_size: int) -> Configuration:
    """A configuration that trains at the rate which is best for its batch."""
    return Configuration(batch_size=batch_size)


def arrived(batch_size: int, samples: float) -> RunEvidence:
    """A run that reached the target after so many samples."""
    return RunEvidence(
        configuration=tuned(batch_size),
        samples=np.array([samples]),
        progress=np.ones(1),
        samples_to_target=samples,
    )


def pollux_problems(path: Path) -> Iterator[Problem]:
    """Each network to each target, with the noise statistics of the first quarter of the fitted runs."""
    for app, runs in read_runs(path).items():
        if app not in TARGETS:
            typer.echo(
                f"{app} is left out: no target is known for it, only for {', '.join(TARGETS)}", err=True
            )
            continue
        for target in (*EASIER[app], TARGETS[app]):
            crossed = {batch: run.crossing(target, falling=app in FALLING) for batch, run in runs.items()}
            samples = {batch: batch * c[0] if c else np.nan for batch, c in crossed.items()}
            small, large = list(runs)[:NUM_FITTED], list(runs)[NUM_FITTED:]
            if any(np.isnan(samples[batch]) for batch in small):
                continue
            yield Problem(
                source="pollux",
                workload=app,
                target=target,
                fitted=tuple(with_early_noise(runs[batch], samples[batch]) for batch in small),
                batch_sizes=np.array(large, dtype=float),
                samples=np.array([samples[batch] for batch in large]),
                single_runs=tuple(np.array([samples[batch]]) for batch in large),
            )


def with_early_noise(run: Run, samples_to_target: float) -> RunEvidence:
    """A run that reached the target, with the noise statistics of its first quarter."""
    early = evidence_of(run, samples_to_target, QUARTER, (0.0, 1.0))
    return replace(arrived(run.batch_size, samples_to_target), noise=early.noise)


def mlperf_problems(path: Path) -> Iterator[Problem]:
    """Each workload to its reference target; of a batch's runs, their mean is fitted."""
    for workload, batches in read_workloads(path).items():
        if len(batches) <= NUM_FITTED:
            continue
        unit = 1.0 if workload == "bert" else _SAMPLES_PER_EPOCH
        small, large = list(batches)[:NUM_FITTED], list(batches)[NUM_FITTED:]
        yield Problem(
            source="mlperf",
            workload=workload,
            target=None,
            fitted=tuple(arrived(batch, unit * float(np.mean(batches[batch]))) for batch in small),
            batch_sizes=np.array(large, dtype=float),
            samples=unit * np.array([np.mean(batches[batch]) for batch in large]),
            single_runs=tuple(unit * batches[batch] for batch in large),
            unit=unit,
        )


def steplaw_problems(path: Path) -> Iterator[Problem]:
    """Each model size to a few losses, evenly spaced over those that enough batches reach; in sequences."""
    for parameters, losses in read_losses(path).items():
        for target in _targets(losses):
            samples = sequences_to(losses, target)
            small = [batch for batch in samples if batch <= LARGEST_FITTED]
            large = [batch for batch in samples if batch > LARGEST_FITTED]
            yield Problem(
                source="steplaw",
                workload=f"{parameters / 1e6:.0f}M",
                target=target,
                fitted=tuple(arrived(batch, samples[batch]) for batch in small),
                batch_sizes=np.array(large, dtype=float),
                samples=np.array([samples[batch] for batch in large]),
                single_runs=tuple(np.array([samples[batch]]) for batch in large),
            )


def _targets(losses: Losses) -> Sequence[float]:
    """Losses within those that enough small and enough large batches reach."""
    every = [loss for budgets in losses.values() for loss in budgets.values()]
    usable = [
        level for level in np.linspace(min(every), max(every), _NUM_LEVELS) if _is_usable(losses, level)
    ]
    if not usable:
        return []
    return [float(level) for level in np.linspace(usable[0], usable[-1], _NUM_TARGETS + 2)[1:-1]]


def _is_usable(losses: Losses, level: float) -> bool:
    reached = sequences_to(losses, level)
    num_small = sum(batch <= LARGEST_FITTED for batch in reached)
    return num_small >= _FEWEST_FITTED and len(reached) - num_small >= _FEWEST_ASKED
