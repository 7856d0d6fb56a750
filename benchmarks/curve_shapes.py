"""Measures how well `tuner.analytic.curve_template` forecasts unfinished learning curves.

    python -m benchmarks.curve_shapes [--recordings FOLDER] [--networks] [--curves FOLDER] [--made 36]
        [--studies 30] [--json]

There are three kinds of curves:

- `recordings`: those of recorded workloads.
- `networks` (with `--networks`): those of five small networks, which it trains with every batch size and
  learning rate (`benchmarks.curve_shapes_networks`, 3 minutes on an idle core). Each network has three
  targets: the 35%, 60% and 85% quantile of the best values that its configurations reach. With `--curves`,
  it stores the curves in a folder, and a later run reads them from there.
- `made scripts`: those of made scripts with known curves (`benchmarks.made_scripts_curves`).

A study has one to seven runs that reach the target later. In 70% of the studies it also has one to three runs
that never reach it. Each run stops at a random score before the target; the number of scores is log-uniform.
The start of the curves is guessed from the first scores, as in a search (`tuner.search.start_value`). One
template is learnt from all runs of a study. It forecasts the samples to target of the runs that reach it.

For each family of curves it prints

- the number of predictions,
- `error`: the root mean square error, in e-folds of samples,
- `bias`: the mean of true minus forecast log samples, so forecasts that are too early are positive,
- `log loss`: the mean of minus the log of the forecast's normal density at the true log samples, in nats,
- `coverage`: the share of 90% intervals that hold the truth,

and below them the means over the families of each kind. The template's constants were chosen with such
curves in view.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer

from benchmarks.curve_shapes_networks import TASKS, record
from benchmarks.curve_shapes_studies import FirstPart, studies_of
from benchmarks.made_scripts_curves import made_script
from benchmarks.plateaus import RECORDINGS, workload_of
from tuner.analytic.curve_template import passage_of
from tuner.analytic.laws import NINETY_PERCENT
from tuner.analytic.started_runs import StartedRun, observed_by
from tuner.recordings.file import load_recording, write_recording
from tuner.recordings.recording import Recording

Array = npt.NDArray[np.float64]

#: Where a network's targets lie among the best values of its configurations.
_QUANTILES = (0.35, 0.6, 0.85)


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Curves of one workload.

    Args:
        kind: `recordings`, `networks` or `made scripts`.
        family: Workloads that are counted as one.
        recording: The curves and the target.
    """

    kind: str
    family: str
    recording: Recording


#: The mean and the standard deviation of log samples to target, for each run of a study.
Forecaster = Callable[[Sequence[FirstPart]], Sequence[tuple[float, float]]]


@dataclass(frozen=True, kw_only=True)
class Row:
    """How good forecasts are.

    Args:
        kind: Of the curves.
        family: Of the curves; empty for the mean over the families of a kind.
        num_predictions: Forecasts of runs that reach the target.
        error: Root mean square, in e-folds.
        bias: Mean of true minus forecast, in e-folds.
        log_loss: Mean, in nats.
        coverage: Share of 90% intervals that hold the truth.
    """

    kind: str
    family: str
    num_predictions: int
    error: float
    bias: float
    log_loss: float
    coverage: float


def recorded_workloads(folder: Path) -> list[Workload]:
    """Those of a folder of recordings; none if it is absent."""
    paths = sorted(folder.glob("*.jsonl.gz"))
    return [
        Workload(kind="recordings", family=workload_of(path), recording=load_recording(path))
        for path in paths
    ]


def network_workloads(folder: Path | None) -> Iterator[Workload]:
    """Small networks, each with three targets.

    Args:
        folder: Holds the curves of earlier runs, and gets those of networks that are trained now.
    """
    for task in TASKS:
        path = None if folder is None else folder / f"{task.name}.jsonl.gz"
        if path is not None and path.exists():
            recording = load_recording(path)
        else:
            typer.echo(f"training {task.name}", err=True)
            recording = record(task)
            if path is not None:
                write_recording(recording, path)
        for target in targets_of(recording):
            yield Workload(kind="networks", family=task.name, recording=replace(recording, target=target))


def targets_of(recording: Recording) -> list[float]:
    """Quantiles of the best values of a recording's runs, interpolated between two runs.

    So no target is the best value of a run by construction, which it would reach only at its best score.
    Where most runs come equally far, quantiles are equal, and count once.
    """
    sign = 1.0 if recording.maximize else -1.0
    best = [float((sign * run.curve[:, 2]).max()) for run in recording.runs if len(run.curve)]
    return [sign * float(value) for value in np.unique(np.quantile(best, _QUANTILES))]


def made_workloads(num: int) -> Iterator[Workload]:
    """Made scripts, whose shapes take turns."""
    for seed in range(num):
        script = made_script(seed)
        yield Workload(kind="made scripts", family=script.shape, recording=script.recording)


def template_forecasts(study: Sequence[FirstPart]) -> list[tuple[float, float]]:
    """What the template says of each run of a study."""
    observed = observed_by(
        [
            StartedRun(
                row=row,
                passage=passage_of(part.samples, part.progress),
                samples_to_target=None,
                ended=False,
            )
            for row, part in enumerate(study)
        ]
    )
    sds = np.hypot(observed.noise_sd, observed.common_sd)
    return list(zip(observed.values.tolist(), sds.tolist(), strict=True))


def judged(
    workloads: Sequence[Workload], num_studies: int, forecaster: Forecaster = template_forecasts
) -> list[Row]:
    """A row for each family, in the order of the workloads; families without predictions are left out.

    Args:
        workloads: The curves.
        num_studies: Of each workload.
        forecaster: What is judged.
    """
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for workload in workloads:
        recording = workload.recording
        # The studies of a workload do not depend on the other workloads.
        rng = np.random.default_rng([*f"{recording.name} {recording.target:.6g}".encode()])
        for study in studies_of(recording, num_studies, rng):
            for part, (mean, sd) in zip(study, forecaster(study), strict=True):
                if part.log_samples_to_target is not None:
                    errors = found.setdefault((workload.kind, workload.family), [])
                    errors.append((part.log_samples_to_target - mean, sd))
    return [_row(kind, family, np.array(errors)) for (kind, family), errors in found.items()]


def _row(kind: str, family: str, errors: Array) -> Row:
    """Measures of the errors of log samples and their standard deviations, `(num, 2)`."""
    error, sd = errors.T
    log_loss = 0.5 * (error / sd) ** 2 + np.log(sd) + 0.5 * math.log(2.0 * math.pi)
    return Row(
        kind=kind,
        family=family,
        num_predictions=len(errors),
        error=float(np.sqrt((error**2).mean())),
        bias=float(error.mean()),
        log_loss=float(log_loss.mean()),
        coverage=float((np.abs(error) <= NINETY_PERCENT * sd).mean()),
    )


def means_of(rows: Sequence[Row]) -> list[Row]:
    """Means over the families of each kind; predictions are added up."""
    found = []
    for kind in dict.fromkeys(row.kind for row in rows):
        own = [row for row in rows if row.kind == kind]
        means = {
            name: float(np.mean([getattr(row, name) for row in own]))
            for name in ("error", "bias", "log_loss", "coverage")
        }
        total = sum(row.num_predictions for row in own)
        found.append(Row(kind=kind, family="", num_predictions=total, **means))
    return found


def main(
    recordings: Annotated[Path, typer.Option(help="Folder of recordings (*.jsonl.gz).")] = RECORDINGS,
    networks: Annotated[bool, typer.Option("--networks", help="Train small networks, too.")] = False,
    curves: Annotated[
        Path | None, typer.Option(help="With --networks: folder that stores their curves for later runs.")
    ] = None,
    made: Annotated[int, typer.Option(min=0, help="Number of made scripts.")] = 36,
    studies: Annotated[int, typer.Option(min=1, help="Studies of each workload and target.")] = 30,
    as_json: Annotated[bool, typer.Option("--json", help="One object on stdout.")] = False,
) -> None:
    """Forecast unfinished learning curves, and compare with the truth."""
    workloads = recorded_workloads(recordings)
    if not workloads:
        typer.echo(f"no recordings in {recordings}: they are left out", err=True)
    if networks:
        workloads += network_workloads(curves)
    workloads += made_workloads(made)
    families = judged(workloads, studies)
    kinds = means_of(families)
    if as_json:
        tables = {"families": families, "kinds": kinds}
        typer.echo(
            json.dumps({name: [asdict(row) for row in rows] for name, rows in tables.items()}, indent=1)
        )
        return
    typer.echo("kind          family                       predictions  error   bias  log loss  coverage")
    for row in [*families, *kinds]:
        typer.echo(
            f"{row.kind:13} {row.family or 'mean':28} {row.num_predictions:11} {row.error:6.3f} "
            f"{row.bias:+6.3f} {row.log_loss:9.3f} {row.coverage:9.2f}"
        )


if __name__ == "__main__":
    typer.run(main)
