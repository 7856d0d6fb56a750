"""Predicts samples to target at large batches from a workload's small ones, with the model that `run` uses.

    python -m benchmarks.samples_to_target [--json] [--pollux PATH] [--mlperf PATH] [--steplaw PATH]

Every prediction is `tuner.analytic.samples_model.fit_samples` followed by `SamplesModel.log_samples`. The
runs state no learning rate: in all three tables each batch trained at a rate tuned for it (Pollux: by
AdaScale).

- Pollux: samples until the validation metric first crosses a target, from the three smallest batches with the
  noise statistics of the first quarter of their runs. Targets are those of Pollux's own evaluation (cifar10
  0.94, deepspeech2 25% word errors, imagenet 0.75), and two easier ones each.
- MLPerf: epochs (BERT: samples) to the reference target, from the three smallest batches, without statistics.
  All versions' runs of a workload at one batch count as one.
- Step Law: sequences until a finished run has a loss, from batches up to 256, for five losses of each model
  size. Batches of 352 to 2,048 are predicted; most problems have their best batch among those fitted.

`unseen` sums up Step Law's model sizes that were left out while the law and its priors were chosen
(`UNSEEN`). All of Pollux's and MLPerf's workloads were in view then.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.batch_problems import (
    Problem,
    mlperf_problems,
    pollux_problems,
    steplaw_problems,
    tuned,
)
from benchmarks.pollux_tables import TARGETS
from tuner.analytic.samples_model import SEED_SD, RatePrior, SamplesModel, fit_samples

RECORDINGS = Path(__file__).resolve().parents[2] / "shared" / "recordings"
#: Workloads that were evaluated only after the form of the law and the priors were fixed.
UNSEEN = frozenset({"268M", "537M", "1074M"})
#: Standard deviations from the median to the ends of a 90% interval.
_NINETY = 1.645


@dataclass(frozen=True, kw_only=True)
class Row:
    """A prediction and the measurement; the figures are in the table's unit (samples, epochs, sequences)."""

    source: str
    workload: str
    target: float | None
    batch_size: int
    predicted: float
    measured: float | None
    lower: float
    upper: float
    single_runs_covered: float

    @property
    def error(self) -> float:
        """Relative error; NaN if the target was never reached."""
        return math.nan if self.measured is None else abs(self.predicted / self.measured - 1)

    @property
    def factor(self) -> float:
        """By what factor the prediction is too large or too small, at least 1; NaN if never reached."""
        return math.nan if self.measured is None else math.exp(abs(math.log(self.predicted / self.measured)))

    @property
    def covered(self) -> bool:
        """Whether the 90% interval contains the measurement."""
        return self.measured is not None and self.lower <= self.measured <= self.upper

    @property
    def is_unseen(self) -> bool:
        """Whether the law's form and priors were chosen without this workload."""
        return self.workload in UNSEEN


def fitted_model(problem: Problem) -> SamplesModel:
    """The product's model, fitted to a problem's runs; its space is the range of the problem's batches."""
    batches = [*(run.configuration.batch_size for run in problem.fitted), *problem.batch_sizes]
    prior = RatePrior(
        log_rate=0.0,
        sd=2.0,
        batch_size=math.sqrt(min(batches) * max(batches)),
        exponent=0.5,
        epoch_samples=1e6,
        largest_batch_size=max(batches),
    )
    return fit_samples(problem.fitted, prior)


def predict(problem: Problem) -> Iterator[Row]:
    """Every larger batch of one problem."""
    model = fitted_model(problem)
    mean, covariance = model.log_samples([tuned(int(batch)) for batch in problem.batch_sizes])
    # One run of a batch differs from the law by its own seed and recipe.
    sd = np.sqrt(np.diag(covariance) + SEED_SD**2)
    low, middle, high = (np.exp(mean + width * sd) for width in (-_NINETY, 0.0, _NINETY))
    for index, batch in enumerate(problem.batch_sizes):
        measured, own = float(problem.samples[index]), problem.single_runs[index]
        yield Row(
            source=problem.source,
            workload=problem.workload,
            target=problem.target,
            batch_size=int(batch),
            predicted=float(middle[index]) / problem.unit,
            measured=None if math.isnan(measured) else measured / problem.unit,
            lower=float(low[index]) / problem.unit,
            upper=float(high[index]) / problem.unit,
            single_runs_covered=float(np.mean((own >= low[index]) & (own <= high[index]))),
        )


def summary(rows: Sequence[Row]) -> str:
    """Error, coverage and width of predictions whose target was reached."""
    reached = [row for row in rows if row.measured is not None]
    if not reached:
        return "no predictions"
    errors = [row.error for row in reached]
    return (
        f"{len(reached)} predictions: median error {np.median(errors):.1%}, "
        f"90th percentile {np.quantile(errors, 0.9):.1%}, median factor "
        f"{np.median([row.factor for row in reached]):.3f}; "
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
    steplaw: Annotated[Path, typer.Option(help="Step Law's table of final losses.")] = RECORDINGS
    / "steplaw-dense.csv",
    as_json: Annotated[bool, typer.Option("--json", help="A list of objects on stdout.")] = False,
) -> None:
    """Predict larger batches from the small ones of each workload."""
    problems = [*pollux_problems(pollux), *mlperf_problems(mlperf), *steplaw_problems(steplaw)]
    rows = [row for problem in problems for row in predict(problem)]
    if as_json:
        typer.echo(json.dumps([_listing(row) for row in rows], indent=1))
        return
    for row in rows:
        name = row.workload if row.target is None else f"{row.workload} to {row.target:.4g}"
        measured = "never" if row.measured is None else f"{row.measured:.4g}"
        typer.echo(
            f"{row.source:7} {name:18} {row.batch_size:6} predicted {row.predicted:9.4g} "
            f"measured {measured:>9} [{row.lower:.4g}, {row.upper:.4g}]{'' if row.covered else ' *'}"
        )
    tables = [row for row in rows if row.source != "steplaw"]
    steps = [row for row in rows if row.source == "steplaw"]
    for name, chosen in (
        ("pollux and mlperf", tables),
        ("  pollux", [row for row in tables if row.source == "pollux"]),
        ("  mlperf", [row for row in tables if row.source == "mlperf"]),
        (
            "  without easier levels",
            [row for row in tables if row.target in (None, TARGETS.get(row.workload))],
        ),
        ("steplaw", steps),
        ("  unseen", [row for row in steps if row.is_unseen]),
    ):
        typer.echo(f"{name}: {summary(chosen)}")


if __name__ == "__main__":
    typer.run(main)
