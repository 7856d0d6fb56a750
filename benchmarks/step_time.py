"""Seconds a step on 6 to 16 nodes, predicted from 12 timed steps on at most 2, and at most 4, nodes.

    python -m benchmarks.step_time [--json] [--file PATH ...] [--draws 20] [--without-waits]

It takes about a minute with OMP_NUM_THREADS=1; more threads only get into each other's way at these sizes.
The predictor is the one that `run` uses: `tuner.analytic.step_fit.fit_steps`, which `fit_seconds` calls with
what probes measured.

A file has one measured step a row: app, kind, num_nodes, num_replicas, placement (a digit a node: devices
used there; empty: spread evenly), local_batch_size, step_seconds, sync_seconds. Probes are drawn from `kind`
placements, predictions are compared with `kind` scalability. Pollux's model is fitted to the same probes.

`mean_error` and `p90_error` are of |predicted / measured - 1| over all predictions of all draws;
`coverage_90` is the share of measurements inside 90% intervals, `interval_ratio` the median of their upper
over their lower ends. `pollux_mean_error` is Pollux's model fitted by least squares to the logarithms of the
steps; `pollux_adaptdl_mean_error` as adaptdl does it, with the waits and its penalties. `floor_error` is our
model's mean error after a fit to 100 of the predicted measurements themselves: the measurements scatter so
much that no probes on fewer nodes can do much better.

Parameter bytes are known before any probe: ResNet-18 for 32 x 32 images has 11.17 million of them, ResNet-50
25.56 million (He et al. 2016), BERT base 110 million (Devlin et al. 2019), and DeepSpeech2 as adaptdl trains
it (5 bidirectional layers of 800 gated recurrent units behind two convolutions) 41.1 million, 4 bytes each.
Other apps get a nominal 100 MB; then the bandwidth is only relative.
"""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.step_placements import all_reduce_steps, placements_of, spread_evenly, steps_at
from benchmarks.step_time_pollux import fit_pollux
from tuner.analytic.mixed_posterior import MixedPosterior
from tuner.analytic.step_fit import TimedSteps, fit_steps
from tuner.analytic.step_rows import Steps
from tuner.domain.cluster import Cluster

Array = npt.NDArray[np.float64]

_RECORDINGS = Path(__file__).resolve().parents[2] / "shared" / "recordings"
RECORDING = _RECORDINGS / "pollux-throughput.csv"
RECORDINGS = (RECORDING, _RECORDINGS / "pollux-throughput-bert.csv")
PARAMETER_BYTES = {
    "cifar10": 4 * 11.17e6,
    "imagenet": 4 * 25.56e6,
    "deepspeech2": 4 * 41.1e6,
    "bert": 4 * 110e6,
}
NOMINAL_BYTES = 1e8
#: What Pollux measured on: 16 machines with 4 devices each.
CLUSTER = Cluster(node_counts=tuple(range(1, 17)), devices_per_node=4, nodes_share_host=False)
NUM_PROBES = 12
FIT_NODES = (2, 4)
NUM_FLOOR = 100
_NORMAL_95 = 1.6449


@dataclass(frozen=True, kw_only=True)
class Timed:
    """Measured steps of one app: where, their seconds and the seconds of waiting in them, `(num,)`."""

    steps: Steps
    step_seconds: Array
    wait_seconds: Array

    def at(self, rows: npt.NDArray[np.intp]) -> Timed:
        """Some of them."""
        return Timed(
            steps=steps_at(self.steps, rows),
            step_seconds=self.step_seconds[rows],
            wait_seconds=self.wait_seconds[rows],
        )


def fit_product(timed: Timed, parameter_bytes: float, *, waits: bool = True) -> tuple[MixedPosterior, float]:
    """The predictor of `run`, fitted to timed steps on `CLUSTER`.

    Args:
        timed: What was timed.
        parameter_bytes: Bytes of the model's parameters.
        waits: Whether the fit sees the timed waits.
    """
    num = len(timed.steps)
    observed = TimedSteps(
        steps=timed.steps,
        seconds=timed.step_seconds,
        own_sd=np.zeros(num),
        wait_seconds=timed.wait_seconds if waits else np.full(num, np.nan),
    )
    return fit_steps(observed, CLUSTER, int(parameter_bytes))


def read_timed(*paths: Path) -> dict[tuple[str, str], Timed]:
    """Measured steps of some files, by (app, kind)."""
    groups: dict[tuple[str, str], list[dict[str, str]]] = defaultdict(list)
    for path in paths:
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                groups[row["app"], row["kind"]].append(row)
    return {key: _timed(rows) for key, rows in groups.items()}


def _timed(rows: list[dict[str, str]]) -> Timed:
    counts = [
        [int(digit) for digit in row["placement"]]
        or spread_evenly(int(row["num_replicas"]), int(row["num_nodes"]))
        for row in rows
    ]
    batches = np.array([float(row["local_batch_size"]) for row in rows])
    return Timed(
        steps=all_reduce_steps(placements_of(counts), batches),
        step_seconds=np.array([float(row["step_seconds"]) for row in rows]),
        wait_seconds=np.array([float(row["sync_seconds"]) for row in rows]),
    )


def predict_once(probes: Timed, asked: Timed, parameter_bytes: float, *, waits: bool) -> dict[str, Array]:
    """One draw: errors of both models, and whether and how widely our intervals hold, each `(num,)`."""
    posterior, between_moments_sd = fit_product(probes, parameter_bytes, waits=waits)
    mean, covariance = posterior.predict(asked.steps.inputs())
    sd = np.sqrt(np.diag(covariance) + between_moments_sd**2)
    pollux = fit_pollux(probes.steps, probes.step_seconds).seconds(asked.steps)
    with_waits = fit_pollux(probes.steps, probes.step_seconds, probes.wait_seconds, penalties=True)
    measured = asked.step_seconds
    return {
        "error": np.abs(np.exp(mean) / measured - 1),
        "pollux_error": np.abs(pollux / measured - 1),
        "adaptdl_error": np.abs(with_waits.seconds(asked.steps) / measured - 1),
        "covered": (np.abs(np.log(measured) - mean) <= _NORMAL_95 * sd).astype(float),
        "ratio": np.exp(2 * _NORMAL_95 * sd),
    }


def measure(app: str, near: Timed, far: Timed, *, fit_nodes: int, draws: int, waits: bool) -> dict[str, Any]:
    """All draws of probes on at most so many nodes."""
    parameter_bytes = PARAMETER_BYTES.get(app, NOMINAL_BYTES)
    allowed = np.flatnonzero(near.steps.placements.num_nodes <= fit_nodes)
    found = []
    for seed in range(draws):
        rows = np.random.default_rng(seed).choice(allowed, min(NUM_PROBES, len(allowed)), replace=False)
        found.append(predict_once(near.at(rows), far, parameter_bytes, waits=waits))
    every = {name: np.concatenate([one[name] for one in found]) for name in found[0]}
    return {
        "app": app,
        "fit_nodes": fit_nodes,
        "mean_error": float(np.mean(every["error"])),
        "p90_error": float(np.quantile(every["error"], 0.9)),
        "coverage_90": float(np.mean(every["covered"])),
        "interval_ratio": float(np.median(every["ratio"])),
        "worst_draw_error": max(float(np.mean(one["error"])) for one in found),
        "pollux_mean_error": float(np.mean(every["pollux_error"])),
        "pollux_p90_error": float(np.quantile(every["pollux_error"], 0.9)),
        "pollux_adaptdl_mean_error": float(np.mean(every["adaptdl_error"])),
        "draws": draws,
        "num_predictions": len(every["error"]),
    }


def floor_error(far: Timed, parameter_bytes: float) -> float:
    """Mean error of the model after a fit to some of the measurements that it is compared with."""
    num = len(far.step_seconds)
    seen = far.at(np.random.default_rng(0).choice(num, min(NUM_FLOOR, num), replace=False))
    mean, _ = fit_product(seen, parameter_bytes)[0].predict(far.steps.inputs())
    return float(np.mean(np.abs(np.exp(mean) / far.step_seconds - 1)))


def show(rows: list[dict[str, Any]]) -> None:
    """A table for people, on standard output."""
    table = Table("app", "fit on nodes", "mean error", "90th percentile", "coverage of 90%", "interval ratio")
    for name in ("Pollux, mean", "Pollux with waits, mean", "floor"):
        table.add_column(name)
    for row in rows:
        shares = ("mean_error", "p90_error", "coverage_90")
        others = ("pollux_mean_error", "pollux_adaptdl_mean_error", "floor_error")
        table.add_row(
            row["app"],
            f"<= {row['fit_nodes']}",
            *(f"{row[name]:.1%}" for name in shares),
            f"{row['interval_ratio']:.2f}",
            *(f"{row[name]:.1%}" for name in others),
        )
    Console(width=130).print(table)


def main(
    file: Annotated[
        list[Path] | None,
        typer.Option(help="Table of measured steps; may be repeated.  [default: both of Pollux's]"),
    ] = None,
    draws: Annotated[int, typer.Option(min=1, help="Random draws of probes, seeds from 0.")] = 20,
    without_waits: Annotated[bool, typer.Option(help="Hide the timed waits from our fit.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compares predicted seconds a step with measured ones, and with those of Pollux's model."""
    paths = file or list(RECORDINGS)
    for path in paths:
        if not path.is_file():
            raise typer.BadParameter(f"no table of measured steps at {path}", param_hint="--file")
    timed = read_timed(*paths)
    apps = sorted({app for app, kind in timed if (app, "scalability") in timed and kind == "placements"})
    if not apps:
        raise typer.BadParameter(
            f"{', '.join(map(str, paths))}: no app with rows of both kinds: placements and scalability",
            param_hint="--file",
        )
    rows = []
    for app in apps:
        near, far = timed[app, "placements"], timed[app, "scalability"]
        floor = floor_error(far, PARAMETER_BYTES.get(app, NOMINAL_BYTES))
        for fit_nodes in FIT_NODES:
            row = measure(app, near, far, fit_nodes=fit_nodes, draws=draws, waits=not without_waits)
            rows.append(row | {"floor_error": floor})
    if as_json:
        print(json.dumps(rows, indent=2))
    else:
        show(rows)


if __name__ == "__main__":
    typer.run(main)
