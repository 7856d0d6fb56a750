"""How well noise statistics of a run's beginning foretell the noise scale of the whole run.

    python -m benchmarks.noise_growth [--pollux PATH] [--json]

Pollux's networks, each to three targets: the samples model that jobs use sees one or three small batches up
to 10, 25 or 50% of their runs, with the noise scales recorded along them. Its noise scale is held against the
one that samples to target at all batches show, T(B) = s (1 + B/N). Beside it: growth held at 0, one noise
scale along the run; and the mean of what was measured, its first fifth left out, taken for N (give or take
0.8). Pollux trained by AdaScale: rates follow the noise, so that the law has no penalty of rates here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import typer

from benchmarks.pollux_tables import EASIER, FALLING, TARGETS, Run, read_runs
from search_spaces import Configuration
from tuner.analytic import samples_model
from tuner.analytic.noise_growth import UNKNOWNS
from tuner.analytic.rate_edge import RunEvidence
from tuner.analytic.regression import Parameter
from tuner.analytic.samples_model import RatePrior, fit_samples
from tuner.domain.measurement import NoiseStatistic

Array = npt.NDArray[np.float64]

RECORDINGS = Path(__file__).resolve().parents[2] / "shared" / "recordings"
_SHARES, _NUM_RUNS = (0.1, 0.25, 0.5), (1, 3)
#: Recorded noise is a mean over an epoch; where the gradient is lost in it, nothing.
_NUM_ESTIMATES, _LOST = 100, 1e11
_MEAN_SD = 0.8
GROWING, CONSTANT, MEAN = "growing", "constant", "mean measured"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One prediction of log N.

    Args:
        app: The network.
        target: Of its metric.
        num_runs: How many batches were seen.
        share: How much of their runs.
        model: How it was predicted.
        predicted: log N.
        sd: Its standard deviation.
        measured: log N that all batches show.
    """

    app: str
    target: float
    num_runs: int
    share: float
    model: str
    predicted: float
    sd: float
    measured: float


def shown_by_all(batches: Array, samples: Array) -> float:
    """log N of the best T = s (1 + B / N), in log least squares."""
    logs = np.linspace(0.0, 16.0, 801)
    left = np.log(samples) - np.log1p(batches / np.exp(logs)[:, None])
    return float(logs[np.argmin(left.var(axis=1))])


def evidence_of(run: Run, samples_to_target: float, share: float, span: tuple[float, float]) -> RunEvidence:
    """The first share of a run as the samples model sees it.

    Args:
        run: Of Pollux's table.
        samples_to_target: Where it arrives.
        share: How much of it is seen.
        span: The metric where runs begin, and at the target.
    """
    samples = run.steps * run.batch_size
    seen = (samples > 0) & (samples <= share * samples_to_target)
    usable = seen & (run.noise_scales < _LOST)
    statistics = zip(samples[usable], run.noise_scales[usable], strict=True)
    # AdaScale follows the best rate of each batch by itself, so the configuration states none.
    return RunEvidence(
        configuration=Configuration(batch_size=run.batch_size),
        samples=samples[seen],
        progress=(run.metric[seen] - span[0]) / (span[1] - span[0]),
        noise=tuple(
            NoiseStatistic(samples=int(s), noise=float(n), squared_gradient=1.0, num_estimates=_NUM_ESTIMATES)
            for s, n in statistics
        ),
    )


def rows_of(app: str, runs: Mapping[int, Run], target: float) -> Iterator[Row]:
    """Every prediction for one network and target."""
    crossed = {b: run.crossing(target, falling=app in FALLING) for b, run in runs.items()}
    arrived = {b: found[0] * b for b, found in crossed.items() if found is not None}
    batches, samples = np.array(list(arrived), dtype=float), np.array(list(arrived.values()))
    measured = shown_by_all(batches, samples)
    start = float(np.median([run.metric[0] for run in runs.values()]))
    for num_runs in _NUM_RUNS:
        for share in _SHARES:
            evidence = [
                evidence_of(runs[b], arrived[b], share, (start, target)) for b in sorted(arrived)[:num_runs]
            ]
            evidence = [run for run in evidence if run.noise]
            if not evidence:
                continue
            for model in (GROWING, CONSTANT, MEAN):
                predicted, sd = _predicted(evidence, model)
                yield Row(
                    app=app,
                    target=target,
                    num_runs=num_runs,
                    share=share,
                    model=model,
                    predicted=predicted,
                    sd=sd,
                    measured=measured,
                )


def _predicted(evidence: list[RunEvidence], model: str) -> tuple[float, float]:
    """log N and its standard deviation."""
    if model == MEAN:
        noise = evidence[-1].noise
        later = noise[len(noise) // 5 :] if len(noise) >= 5 else noise
        return math.log(np.mean([s.noise for s in later])), _MEAN_SD
    sizes = {"batch_size": 64.0, "largest_batch_size": 256.0, "epoch_samples": 5e4}
    prior = RatePrior(log_rate=math.log(0.1), sd=2.0, exponent=1.0, **sizes)
    held = (Parameter(name=UNKNOWNS[0].name, mean=0.0, sd=1e-3), *UNKNOWNS[1:])
    with patch.object(samples_model, "UNKNOWNS", held if model == CONSTANT else UNKNOWNS):
        fitted = fit_samples(evidence, prior)
    return fitted.parameters()["log noise scale"]


def summary(rows: list[Row]) -> str:
    """Errors of log N: root mean square, mean, and how many a 90% interval holds."""
    errors = np.array([row.predicted - row.measured for row in rows])
    held = np.mean(np.abs(errors) < 1.645 * np.array([row.sd for row in rows]))
    rms = np.sqrt(np.mean(errors**2))
    return f"rms error {rms:.2f}, mean {errors.mean():+.2f}, 90% intervals hold {held:.0%}"


def main(
    pollux: Annotated[Path, typer.Option(help="Pollux's table of convergence.")] = RECORDINGS
    / "pollux-convergence.csv",
    as_json: Annotated[bool, typer.Option("--json", help="A list of objects on stdout.")] = False,
) -> None:
    """Foretell noise scales of whole runs."""
    rows = [
        row
        for app, runs in read_runs(pollux).items()
        for target in (TARGETS[app], *EASIER[app])
        for row in rows_of(app, runs, target)
    ]
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in rows], indent=1))
        return
    for model in (GROWING, CONSTANT, MEAN):
        of_model = [row for row in rows if row.model == model]
        typer.echo(f"{model}: {summary(of_model)} ({len(of_model)} predictions)")
        for share in _SHARES:
            typer.echo(f"  first {share:.0%}: {summary([row for row in of_model if row.share == share])}")


if __name__ == "__main__":
    typer.run(main)
