"""Holds what samplers recommend for a job, each with the same budget, against each other and plain choices.

    python -m benchmarks.job_samplers examples/fashion_mnist.toml --budget 2m --seeds 3 --json

For each seed, one after the other in one process, every sampler searches for the same budget as if the
answer served many trainings (with one, it would end at the first run that arrives), and what it recommends
is trained alone to the target. So are the present settings, the largest number of nodes at a linearly
scaled rate, and some configurations drawn from the space, whose median says what no search at all finds.
All are charged by the same rule.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, get_args

import numpy as np
import typer

from benchmarks.job import each_seed, largest_linear, listen, print_result, train_alone
from search_spaces import Configuration
from storage import open_storage
from tuner.domain.errors import InfeasibleError
from tuner.service.opening import OpenedJob, open_job
from tuner.service.run import RunOptions, run_job
from tuner.service.training import SamplerName

#: Many trainings: the search goes on until its budget is spent, or nothing pays back.
_TRAININGS = 1000


def search(opened: OpenedJob, sampler: SamplerName, folder: Path, limit: float) -> dict[str, Any]:
    """One search for the whole budget, and a training of what it recommends."""
    many = opened.job.model_copy(
        update={"goal": opened.job.goal.model_copy(update={"trainings": _TRAININGS})}
    )
    searched = replace(
        opened, job=many, fingerprint=f"{opened.fingerprint[:10]}{sampler:>6}".replace(" ", "0")
    )
    folder.mkdir()
    with open_storage(f"sqlite:///{folder / 'study.db'}") as store:
        try:
            result = run_job(searched, store, RunOptions(output=folder / "tuned", sampler=sampler), listen)
        except InfeasibleError as error:
            return {"reached": False, "training_seconds": None, "configuration": None, "error": str(error)}
    tuning = result.recommendation.tuning
    return {
        "stop_reason": result.stop.kind.value,
        "tuning_seconds": tuning.seconds,
        "seconds_by_purpose": dict(tuning.seconds_by_purpose),
        "num_probes": tuning.num_probes,
        **train_alone(opened, result.recommendation.choice.configuration, folder / "alone", limit),
    }


def drawn(opened: OpenedJob, num: int) -> list[Configuration]:
    """Configurations of the space, each value as likely as its neighbours."""
    space = opened.job.search_space()
    rng = np.random.default_rng(opened.job.seed)
    found = (space.sample(rng) for _ in range(num))
    return [configuration for configuration in found if configuration is not None]


def one_seed(
    opened: OpenedJob, samplers: list[SamplerName], num_drawn: int, folder: Path, limit: float
) -> dict[str, Any]:
    """Everything that one seed compares."""
    row: dict[str, Any] = {"seed": opened.job.seed}
    for sampler in samplers:
        row[sampler] = search(opened, sampler, folder / sampler, limit)
    baseline = opened.job.baseline_configuration()
    assert baseline is not None, "the largest number of nodes needs present settings"
    row["baseline"] = train_alone(opened, baseline, folder / "baseline", limit)
    row["largest_linear"] = train_alone(opened, largest_linear(opened), folder / "largest", limit)
    row["drawn"] = [
        train_alone(opened, configuration, folder / f"drawn{i}", limit)
        for i, configuration in enumerate(drawn(opened, num_drawn))
    ]
    return row


def summary(rows: list[dict[str, Any]], samplers: list[SamplerName]) -> dict[str, Any]:
    """Training seconds to the target: median, smallest, largest; infinite where it was not reached."""
    found: dict[str, Any] = {"seeds": len(rows)}
    for name in (*samplers, "baseline", "largest_linear"):
        found[name] = _spread([_seconds(row[name]) for row in rows])
    found["drawn"] = _spread([_seconds(training) for row in rows for training in row["drawn"]])
    for sampler in samplers:
        parts = [row[sampler].get("seconds_by_purpose", {}) for row in rows]
        for purpose in sorted({purpose for part in parts for purpose in part}):
            found[f"{sampler}_seconds_of_{purpose}_probes"] = _spread(
                [part.get(purpose, 0.0) for part in parts]
            )
    return found


def _seconds(training: dict[str, Any]) -> float:
    return float(training["training_seconds"]) if training["reached"] else math.inf


def _spread(values: list[float]) -> dict[str, float | None] | None:
    if not values:
        return None
    spread = {"median": np.median(values), "smallest": np.min(values), "largest": np.max(values)}
    return {name: float(v) if math.isfinite(v) else None for name, v in spread.items()}


def main(
    job: Annotated[Path, typer.Argument(help="The job file.")],
    budget: Annotated[str, typer.Option(help="Time of each search.")] = "2m",
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds, from 0.")] = 3,
    samplers: Annotated[str, typer.Option(help="model and Optuna's: tpe, gp, random.")] = "model,tpe",
    drawn_trainings: Annotated[int, typer.Option("--drawn", help="Trainings drawn from the space.")] = 3,
    limit: Annotated[float, typer.Option(help="Training seconds after which a training ends.")] = 120.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print what each sampler's recommendation takes to the target."""
    chosen = [name for name in get_args(SamplerName) if name in samplers.split(",")]
    if len(chosen) != len(samplers.split(",")):
        raise typer.BadParameter(f"samplers are {', '.join(get_args(SamplerName))}, not {samplers}")
    opened = open_job(job, time_budget=budget)
    rows = each_seed(
        opened, seeds, lambda seeded, folder: one_seed(seeded, chosen, drawn_trainings, folder, limit)
    )
    result = {"job": opened.job.name, "budget": budget, "limit": limit, **summary(rows, chosen), "runs": rows}
    print_result(result, as_json=as_json)


if __name__ == "__main__":
    typer.run(main)
