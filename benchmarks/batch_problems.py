"""What predicting large batches from small ones is tried on: workloads of Pollux's and of MLPerf's tables."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import typer

from benchmarks.mlperf_tables import granularity, read_workloads
from benchmarks.models.batch_scaling import ONE_RUN_SD
from benchmarks.models.growing_noise import GrowingNoise, growing_noise
from benchmarks.pollux_tables import EASIER, FALLING, TARGETS, Run, read_runs

Array = npt.NDArray[np.float64]

#: How many batches are fitted: the smallest ones.
NUM_FITTED = 3
_QUARTER = 0.25


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One workload and target: what is fitted, and what is asked.

    Args:
        source: `pollux` or `mlperf`.
        workload: Name.
        target: The metric's value that counts as reached; None for MLPerf's own.
        batch_sizes: Rising, `(num_batches,)`; the first three are fitted.
        samples: Measured samples or epochs to the target, NaN where it was never reached.
        figure_sd: Relative spread of each figure, seeds and scoring intervals.
        single_runs: Of each batch, every run's own figure.
        run_sd: Relative spread of one run, known from the fitted batches.
        noise: Early statistics, if any.
    """

    source: str
    workload: str
    target: float | None
    batch_sizes: Array
    samples: Array
    figure_sd: Array
    single_runs: tuple[Array, ...]
    run_sd: float
    noise: GrowingNoise | None


def pollux_problems(path: Path) -> Iterator[Problem]:
    for app, runs in read_runs(path).items():
        if app not in TARGETS:
            typer.echo(
                f"{app} is left out: no target is known for it, only for {', '.join(TARGETS)}", err=True
            )
            continue
        batches = np.array(list(runs), dtype=float)
        for target in (*EASIER[app], TARGETS[app]):
            crossed = [run.crossing(target, falling=app in FALLING) for run in runs.values()]
            if None in crossed[:NUM_FITTED]:
                continue
            samples = np.array([b * c[0] if c else math.nan for b, c in zip(batches, crossed, strict=True)])
            yield Problem(
                source="pollux",
                workload=app,
                target=target,
                batch_sizes=batches,
                samples=samples,
                figure_sd=np.full(len(batches), ONE_RUN_SD),
                single_runs=tuple(np.array([s]) for s in samples),
                run_sd=ONE_RUN_SD,
                noise=early_noise(list(runs.values())[:NUM_FITTED], float(samples[0])),
            )


def early_noise(runs: Sequence[Run], samples_to_target: float, share: float = _QUARTER) -> GrowingNoise:
    """Statistics of the first share of runs whose smallest batch took so many samples."""
    end = share * samples_to_target
    known = [max(1, int(np.sum(run.progress <= end))) for run in runs]
    early = runs[0].progress[: known[0]]
    scales = [
        np.interp(np.log(early), np.log(run.progress[:num]), np.log(run.noise_scales[:num]))
        for run, num in zip(runs, known, strict=True)
    ]
    batches = np.array([run.batch_size for run in runs], dtype=float)
    return growing_noise(early / samples_to_target, batches, np.exp(np.stack(scales)))


def mlperf_problems(path: Path) -> Iterator[Problem]:
    for workload, batches in read_workloads(path).items():
        if len(batches) <= NUM_FITTED:
            continue
        figures = list(batches.values())
        fitted = figures[:NUM_FITTED]
        # A benchmark's runs spread alike at all of its batches; at large ones it must be known beforehand.
        run_sd = math.sqrt(np.mean([np.var(f, ddof=1) / np.mean(f) ** 2 for f in fitted]))
        step = granularity(np.concatenate(fitted)) if workload != "bert" else 0.0
        means = np.array([np.mean(f) for f in figures])
        spread = [run_sd / math.sqrt(len(f)) for f in figures]
        yield Problem(
            source="mlperf",
            workload=workload,
            target=None,
            batch_sizes=np.array(list(batches), dtype=float),
            samples=means,
            figure_sd=np.hypot(spread, step / means[NUM_FITTED - 1] / math.sqrt(12.0)),
            single_runs=tuple(figures),
            run_sd=run_sd,
            noise=None,
        )
