"""Seconds a step on 6 to 16 nodes as the model that jobs use foretells them, from 12 timed steps.

    OMP_NUM_THREADS=1 python -m benchmarks.topology_job [--file PATH] [--draws 8] [--json]

Of Pollux's table of throughput those steps that use 4, or 2, devices of every node; fitted to draws of 12 on
at most 2, and at most 4, nodes. `positions` tells hops within nodes and between them apart, as the model does
where nodes are machines of their own; `alike` takes all hops for the same, as it does elsewhere.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.step_time import FIT_NODES, NUM_PROBES, PARAMETER_BYTES, RECORDING
from search_spaces import Configuration
from tuner.analytic.step_time_model import fit_seconds
from tuner.domain.cluster import Cluster
from tuner.domain.measurement import Measurement, Outcome, Purpose, RankTiming, Spread

_DEVICES = (4, 2)
_FAR_NODES = 6
_NORMAL_95 = 1.6449
#: What one timing varies by beside what the model is unsure of.
_SCATTER_SD = 0.08


@dataclass(frozen=True, kw_only=True)
class Row:
    """One workload's predictions over all draws.

    Args:
        app: The workload.
        devices_per_node: Ranks on every node.
        fit_nodes: Most nodes that were timed.
        model: `positions` or `alike`.
        mean_error: Mean of |predicted / measured - 1|.
        coverage_90: Share of measurements inside 90% intervals.
    """

    app: str
    devices_per_node: int
    fit_nodes: int
    model: str
    mean_error: float
    coverage_90: float


def timing(nodes: int, devices: int, batch_size_per_rank: int, seconds: float) -> Measurement:
    """A timing of all-reduce on whole nodes."""

    def spread(mean: float) -> Spread:
        return Spread(median=mean, p10=mean, p90=mean, mean=mean, std=0.1 * mean, count=40)

    ranks = nodes * devices
    what = Configuration(
        nodes=nodes, batch_size=batch_size_per_rank * ranks, learning_rate=0.1, strategy="all_reduce"
    )
    one = RankTiming(
        rank=0,
        batch_size=batch_size_per_rank,
        compute=spread(seconds),
        sync=spread(0.0),
        input=spread(0.0),
        step=spread(seconds),
        count=ranks,
    )
    return Measurement(configuration=what, purpose=Purpose.TIMING, outcome=Outcome.STOPPED, ranks=(one,))


def read_timings(path: Path, app: str, devices: int) -> tuple[list[Measurement], list[Measurement]]:
    """Steps on few nodes to choose probes from, and those on many that are foretold."""
    near, far = [], []
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            nodes, placement = int(row["num_nodes"]), row["placement"]
            whole = int(row["num_replicas"]) == nodes * devices and set(placement) <= {str(devices)}
            if row["app"] != app or not whole:
                continue
            found = timing(nodes, devices, int(float(row["local_batch_size"])), float(row["step_seconds"]))
            if row["kind"] == "placements":
                near.append(found)
            elif nodes >= _FAR_NODES:
                far.append(found)
    return near, far


def foretold(
    app: str, devices: int, near: Sequence[Measurement], far: Sequence[Measurement], draws: int
) -> Iterator[Row]:
    """Both models from the same draws of probes."""
    counts = sorted({m.configuration.nodes for m in [*near, *far]})
    truth = np.array([math.log(m.batch_seconds / m.configuration.batch_size) for m in far if m.batch_seconds])
    asked = [m.configuration for m in far]
    for fit_nodes in FIT_NODES:
        pool = [m for m in near if m.configuration.nodes <= fit_nodes]
        for model in ("placed", "alike"):
            cluster = Cluster(
                node_counts=tuple(counts), devices_per_node=devices, nodes_share_host=model == "alike"
            )
            errors, covered = [], []
            for seed in range(draws):
                rng = np.random.default_rng(seed)
                chosen = rng.choice(len(pool), min(NUM_PROBES, len(pool)), replace=False)
                fitted = fit_seconds([pool[i] for i in chosen], cluster, int(PARAMETER_BYTES[app]))
                mean, covariance = fitted.log_seconds_per_sample(asked)
                errors.append(np.abs(np.exp(mean - truth) - 1))
                sd = np.sqrt(np.diag(covariance) + _SCATTER_SD**2)
                covered.append(np.abs(mean - truth) < _NORMAL_95 * sd)
            yield Row(
                app=app,
                devices_per_node=devices,
                fit_nodes=fit_nodes,
                model=model,
                mean_error=float(np.mean(errors)),
                coverage_90=float(np.mean(covered)),
            )


def main(
    file: Annotated[Path, typer.Option(help="Pollux's table of throughput.")] = RECORDING,
    draws: Annotated[int, typer.Option(min=1, help="Draws of probes.")] = 8,
    as_json: Annotated[bool, typer.Option("--json", help="A list of objects on stdout.")] = False,
) -> None:
    """Foretell steps on many nodes."""
    rows = [
        row
        for app in PARAMETER_BYTES
        for devices in _DEVICES
        for row in foretold(app, devices, *read_timings(file, app, devices), draws)
    ]
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in rows], indent=1))
        return
    for row in rows:
        typer.echo(
            f"{row.app:12} {row.devices_per_node} devices a node, timed on <= {row.fit_nodes} nodes, "
            f"{row.model:6}: mean error {row.mean_error:.0%}, 90% intervals hold {row.coverage_90:.0%}"
        )
    for model in ("placed", "alike"):
        errors = [row.mean_error for row in rows if row.model == model]
        typer.echo(f"{model}: mean of the {len(errors)} mean errors {np.mean(errors):.0%}")


if __name__ == "__main__":
    typer.run(main)
