"""Tunes a job for real with several seeds, and holds tuning plus training against plain trainings.

    python -m benchmarks.job examples/fashion_mnist.toml --budget 10m --seeds 5 --json

For each seed, one after the other in one process: the job is tuned until a run reaches the target, then
the present settings are trained alone, then the largest number of nodes at a linearly scaled rate. All are
charged by the same rule (start-up, training, scoring). Scored are predictions for the run that arrived
which were stored when at most a quarter of it was done.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from search_spaces import Configuration
from storage import open_storage
from tuner.domain.ledger import EARLY_SHARE, PredictionRecord
from tuner.search.events import SearchEvent
from tuner.search.runs import Run
from tuner.search.state import run_of
from tuner.service.opening import OpenedJob, open_job
from tuner.service.run import RunOptions, run_job
from tuner.service.training import train_configuration


def largest_linear(opened: OpenedJob) -> Configuration:
    """The present settings' batch a rank on the largest number of nodes, the rate scaled with the batch."""
    baseline = opened.job.baseline_configuration()
    if baseline is None:
        raise typer.BadParameter("the job needs a [baseline]")
    nodes = max(opened.cluster.node_counts)
    factor = nodes / baseline.nodes
    return baseline.replaced(
        nodes=nodes,
        batch_size=int(baseline.batch_size * factor),
        learning_rate=baseline.learning_rate * factor,
    )


def tune_once(opened: OpenedJob, folder: Path, budget_seconds: float | None) -> dict[str, Any]:
    """One seed: tune, then both plain trainings."""
    url = f"sqlite:///{folder / 'study.db'}"
    began = time.monotonic()
    with open_storage(url) as store:
        result = run_job(opened, store, RunOptions(output=folder / "tuned", verify=True), listen)
        wall_seconds = time.monotonic() - began
        predictions = store.ledger.predictions(result.study.study_id)
    recommendation = result.recommendation
    row: dict[str, Any] = {
        "seed": opened.job.seed,
        "configuration": recommendation.choice.configuration.as_dict(),
        "stop_reason": result.stop.kind.value,
        "tuning_and_training_seconds": recommendation.tuning.seconds,
        "wall_seconds": wall_seconds,
        "seconds_by_purpose": dict(recommendation.tuning.seconds_by_purpose),
        "seconds_by_part": dict(recommendation.tuning.seconds_by_part),
        "num_probes": recommendation.tuning.num_probes,
        "training_seconds": None,
        "predictions": [],
    }
    verified = recommendation.verified
    if verified is not None and verified.reached:
        row["training_seconds"] = verified.training_seconds
        row["predictions"] = early_predictions(
            predictions, recommendation.choice.configuration, verified.training_seconds
        )
    for name, configuration in (
        ("baseline", opened.job.baseline_configuration()),
        ("largest_linear", largest_linear(opened)),
    ):
        assert configuration is not None
        row[name] = train_alone(opened, configuration, folder / name, budget_seconds)
    return row


def early_predictions(
    predictions: list[PredictionRecord], configuration: Configuration, measured: float
) -> list[dict[str, Any]]:
    """The predictions of a run that were made in good time, oldest first."""
    return [
        {
            "share_observed": p.seconds_observed / measured,
            "lower": p.quantiles[0.05],
            "median": p.quantiles[0.5],
            "upper": p.quantiles[0.95],
            "measured": measured,
            "covered": p.quantiles[0.05] <= measured <= p.quantiles[0.95],
            "ratio": p.quantiles[0.95] / p.quantiles[0.05],
        }
        for p in predictions
        if p.configuration == configuration and p.seconds_observed <= EARLY_SHARE * measured
    ]


def train_alone(
    opened: OpenedJob, configuration: Configuration, folder: Path, limit_seconds: float | None
) -> dict[str, Any]:
    """One plain training to the target, by the same prober and charged by the same rule."""
    folder.mkdir(parents=True)
    with open_storage(f"sqlite:///{folder / 'study.db'}") as store:
        state = train_configuration(opened, store, configuration, folder, listen, limit_seconds=limit_seconds)
    run: Run | None = run_of(state, configuration)
    return {
        "configuration": configuration.as_dict(),
        "charged_seconds": state.spent.seconds,
        "training_seconds": run.seconds_to_target if run else None,
        "reached": bool(run and run.arrived),
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians with spread over seeds; ratios are taken seed by seed."""
    early = [p for row in rows for p in row["predictions"]]
    last = [row["predictions"][-1] for row in rows if row["predictions"]]
    found: dict[str, Any] = {
        "seeds": len(rows),
        "reached": sum(row["training_seconds"] is not None for row in rows),
        "coverage_90_last_early_prediction": _mean([p["covered"] for p in last]),
        "interval_ratio_last_early_prediction": _median([p["ratio"] for p in last]),
        "coverage_90_all_early_predictions": _mean([p["covered"] for p in early]),
        "interval_ratio_all_early_predictions": _median([p["ratio"] for p in early]),
        "num_early_predictions": len(early),
    }
    for name in ("baseline", "largest_linear"):
        ratios = [
            row["tuning_and_training_seconds"] / row[name]["charged_seconds"]
            for row in rows
            if row["training_seconds"] is not None
        ]
        found[f"total_against_{name}"] = _spread(ratios)
        found[f"{name}_reached"] = sum(row[name]["reached"] for row in rows)
        found[f"{name}_charged_seconds"] = _spread([row[name]["charged_seconds"] for row in rows])
        found[f"training_against_{name}"] = _spread(
            [
                row["training_seconds"] / row[name]["training_seconds"]
                for row in rows
                if row["training_seconds"] and row[name]["training_seconds"]
            ]
        )
    found["tuning_and_training_seconds"] = _spread([r["tuning_and_training_seconds"] for r in rows])
    found["training_seconds"] = _spread([r["training_seconds"] for r in rows if r["training_seconds"]])
    return found


def _mean(values: list[Any]) -> float | None:
    return float(np.mean(values)) if values else None


def _median(values: list[float]) -> float | None:
    return float(np.median(values)) if values else None


def _spread(values: list[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {
        "median": float(np.median(values)),
        "smallest": float(np.min(values)),
        "largest": float(np.max(values)),
    }


def each_seed(
    opened: OpenedJob, seeds: int, measure: Callable[[OpenedJob, Path], dict[str, Any]]
) -> list[dict[str, Any]]:
    """What is measured of the job with every seed from 0, each in a folder of its own, told as it comes."""
    rows = []
    for seed in range(seeds):
        print(f"seed {seed}", file=sys.stderr, flush=True)
        seeded = replace(
            opened,
            job=opened.job.model_copy(update={"seed": seed}),
            fingerprint=f"{opened.fingerprint[:12]}{seed:04d}",
        )
        with tempfile.TemporaryDirectory(prefix="paceline-bench-") as folder:
            rows.append(measure(seeded, Path(folder)))
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return rows


def print_result(result: dict[str, Any], *, as_json: bool) -> None:
    """Prints it as a list of one object, or all but its runs as lines."""
    if as_json:
        print(json.dumps([result], indent=2))
        return
    for key, value in result.items():
        if key != "runs":
            print(f"{key}: {value}")


def listen(event: SearchEvent) -> None:
    if event.kind != "progress":
        print(f"  {event.kind}: {event.text}", file=sys.stderr, flush=True)


def main(
    job: Annotated[Path, typer.Argument(help="The job file.")],
    budget: Annotated[str | None, typer.Option(help="Longest time of one tuning.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds, from 0.")] = 5,
    limit: Annotated[float, typer.Option(help="Training seconds after which a plain training ends.")] = 600.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print what tuning cost, what it gained, and how its predictions held."""
    opened = open_job(job, time_budget=budget)
    rows = each_seed(opened, seeds, lambda seeded, folder: tune_once(seeded, folder, limit))
    result = {"job": opened.job.name, **summary(rows), "runs": rows}
    print_result(result, as_json=as_json)


if __name__ == "__main__":
    typer.run(main)
