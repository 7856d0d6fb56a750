"""Predicts samples to target at large batches from a workload's three smallest ones.

    python -m benchmarks.samples_to_target [--json] [--pollux PATH] [--mlperf PATH]

Pollux: samples until the validation metric first crosses a target, with the noise scale of the first quarter
of the three smallest batches' runs to that target. Targets are those of Pollux's own evaluation (cifar10
0.94, deepspeech2 25% word errors, imagenet 0.75), and two easier ones each. MLPerf: epochs (BERT: samples) to
the reference target, without statistics; of a workload, all versions' runs at a batch count together.

Pollux trained by AdaScale, whose steps follow each run's own noise scale: given all of it, the law is within
a tenth there. What is tried is to know it beforehand. MLPerf's recipes were tuned at each batch.

Priors are `benchmarks.models.batch_scaling.PRIORS`. Which of them were chosen on these tables is said there;
`leave one out` chooses those anew for every workload, on the others only.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer

from benchmarks.batch_problems import NUM_FITTED, Problem, mlperf_problems, pollux_problems
from benchmarks.models.batch_scaling import PRIORS, ScalingPriors, fit_batch_scaling
from benchmarks.pollux_tables import TARGETS

Array = npt.NDArray[np.float64]

RECORDINGS = Path(__file__).resolve().parents[2] / "shared" / "recordings"
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
#: What leave-one-out chooses from: the values that matter, on a coarse grid.
CHOICES = {
    "log_critical": (math.log(4.0), math.log(8.0), math.log(16.0)),
    "steepness": (1.0, 1.1),
    "steepness_sd": (0.1, 0.2),
    "own_sd": (0.04, 0.06, 0.09),
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """A prediction beside what was measured; the figures are samples, or epochs."""

    source: str
    workload: str
    target: float | None
    batch_size: int
    predicted: float
    measured: float | None
    lower: float
    upper: float
    loss: float
    single_runs_covered: float

    @property
    def error(self) -> float:
        return math.nan if self.measured is None else abs(self.predicted / self.measured - 1)

    @property
    def covered(self) -> bool:
        return self.measured is not None and self.lower <= self.measured <= self.upper

    @property
    def group(self) -> str:
        """The benchmark that must not be seen when constants are chosen for it."""
        return self.workload.split()[0]


def predict(problem: Problem, priors: ScalingPriors) -> list[Row]:
    """Every larger batch of one problem."""
    fitted = fit_batch_scaling(
        problem.batch_sizes[:NUM_FITTED],
        problem.samples[:NUM_FITTED],
        problem.figure_sd[:NUM_FITTED],
        noise=problem.noise,
        priors=priors,
    )
    asked, figure_sd = problem.batch_sizes[NUM_FITTED:], problem.figure_sd[NUM_FITTED:]
    found = np.log(fitted.quantiles(asked, _QUANTILES, relative_sd=figure_sd))
    single = fitted.quantiles(asked, (0.05, 0.95), relative_sd=problem.run_sd)
    rows = []
    for index, batch in enumerate(asked):
        own, measured = problem.single_runs[NUM_FITTED + index], float(problem.samples[NUM_FITTED + index])
        low, high = single[:, index]
        rows.append(
            Row(
                source=problem.source,
                workload=problem.workload,
                target=problem.target,
                batch_size=int(batch),
                predicted=math.exp(found[2, index]),
                measured=None if math.isnan(measured) else measured,
                lower=math.exp(found[0, index]),
                upper=math.exp(found[-1, index]),
                loss=_quantile_loss(found[:, index], math.log(measured)),
                single_runs_covered=float(np.mean((own >= low) & (own <= high))),
            )
        )
    return rows


def _quantile_loss(quantiles: Array, measured: float) -> float:
    """Mean pinball loss of `_QUANTILES` of log samples (Koenker and Bassett 1978)."""
    above = measured - quantiles
    levels = np.array(_QUANTILES)
    return float(np.mean(np.maximum(levels * above, (levels - 1) * above)))


def leave_one_out(problems: Sequence[Problem]) -> list[Row]:
    """Rows of every benchmark under the constants that suit the other benchmarks best."""
    tried = []
    for values in itertools.product(*CHOICES.values()):
        priors = replace(PRIORS, **dict(zip(CHOICES, values, strict=True)))
        tried.append([row for problem in problems for row in predict(problem, priors)])
    groups = sorted({row.group for row in tried[0]})
    losses = np.array([[_mean_loss(rows, group) for group in groups] for rows in tried])
    chosen: list[Row] = []
    for index, group in enumerate(groups):
        others = np.delete(losses, index, axis=1).mean(axis=1)
        chosen += [row for row in tried[int(others.argmin())] if row.group == group]
    return chosen


def _mean_loss(rows: Iterable[Row], group: str) -> float:
    return float(np.nanmean([row.loss for row in rows if row.group == group]))


def summary(rows: Sequence[Row]) -> str:
    """Error, coverage and width of predictions whose target was reached."""
    reached = [row for row in rows if row.measured is not None]
    errors = [row.error for row in reached]
    return (
        f"{len(reached)} predictions: median error {np.median(errors):.1%}, "
        f"90th percentile {np.quantile(errors, 0.9):.1%}; "
        f"90% intervals cover {np.mean([row.covered for row in reached]):.1%} "
        f"({np.mean([row.single_runs_covered for row in reached]):.1%} of single runs), median width "
        f"{np.median([row.upper / row.lower for row in reached]):.2f}x; "
        f"never reached: {len(rows) - len(reached)}"
    )


def _listing(row: Row) -> dict[str, object]:
    keys = ("source", "workload", "target", "batch_size", "predicted", "measured", "lower", "upper")
    return {key: getattr(row, key) for key in keys}


def main(
    pollux: Annotated[Path, typer.Option(help="Pollux's table of convergence.")] = RECORDINGS
    / "pollux-convergence.csv",
    mlperf: Annotated[Path, typer.Option(help="MLPerf's table of convergence.")] = RECORDINGS
    / "mlperf-convergence.csv",
    as_json: Annotated[bool, typer.Option("--json", help="A list of objects on stdout.")] = False,
) -> None:
    """Predict larger batches from the three smallest of each workload."""
    problems = [*pollux_problems(pollux), *mlperf_problems(mlperf)]
    rows = [row for problem in problems for row in predict(problem, PRIORS)]
    if as_json:
        typer.echo(json.dumps([_listing(row) for row in rows], indent=1))
        return
    for row in rows:
        name = row.workload if row.target is None else f"{row.workload} to {row.target:g}"
        measured = "never" if row.measured is None else f"{row.measured:.4g}"
        typer.echo(
            f"{row.source:7} {name:18} {row.batch_size:6} predicted {row.predicted:9.4g} "
            f"measured {measured:>9} [{row.lower:.4g}, {row.upper:.4g}]{'' if row.covered else ' *'}"
        )
    targets = [row for row in rows if row.target in (None, TARGETS.get(row.workload))]
    for name, chosen in (
        ("all", rows),
        ("mlperf", [r for r in rows if r.source == "mlperf"]),
        ("pollux", [r for r in rows if r.source == "pollux"]),
        ("without easier levels", targets),
        ("leave one out", leave_one_out(problems)),
    ):
        typer.echo(f"{name}: {summary(chosen)}")


if __name__ == "__main__":
    typer.run(main)
