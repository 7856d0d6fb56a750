"""Tunes real scripts with and without imported runs, through the command line and on the real clock.

    python -m benchmarks.past_runs_scripts [--seeds 6] [--processes 3] [--scripts NAMES] [--output FILE]

Each script of `benchmarks/own_scripts_jobs` is tuned by `paceline run` alone, after `paceline import-runs`
with runs of a similar script, and after one with runs of an unrelated script. With 3 processes, the three
searches of a script and seed run at the same time, so that they share what else the machine does.

A similar script is the same one with other samples, best rate, noise scale and noise: factors are log-normal
with a standard deviation of 0.4. An unrelated one is another script of the same metric. Ten runs are
imported, of batch sizes and rates that the job does not offer; a third of them ended early.

The cost is the wall time of the search plus that of all further trainings of its answer, which are computed.
Stated are the geometric mean of the costs over those without imports and its standard error.
"""

from __future__ import annotations

import csv
import itertools
import json
import math
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.own_scripts_jobs.pretended import RECIPES, Recipe
from benchmarks.own_scripts_runs import ScriptJob, tune
from benchmarks.past_runs import BATCH_SIZES, LEARNING_RATES, NUM_RUNS

KINDS = ("none", "similar", "unrelated")
SCRIPTS = ("epoch_line", "json_lines", "keras_fit", "percent")
_DIFFERS_SD, _ENDED_SHARE = 0.4, 1 / 3
_MOST_SCORES = 400


def imported_recipe(script: ScriptJob, kind: str, seed: int) -> Recipe:
    """The recipe of the runs that are imported.

    Args:
        script: The script that is tuned.
        kind: `similar` or `unrelated`.
        seed: Of the choice.
    """
    rng = np.random.default_rng([91, seed])
    if kind == "similar":
        needed, rate, batch, noise = np.exp(_DIFFERS_SD * rng.standard_normal(4))
        recipe = script.recipe
        return replace(
            recipe,
            needed_samples=recipe.needed_samples * needed,
            best_rate=recipe.best_rate * rate,
            noise_batch=recipe.noise_batch * batch,
            noise=recipe.noise * noise,
        )
    metric = script.job["goal"]["metric"]
    others = [
        name
        for name in RECIPES
        if name != script.name and ScriptJob.named(name).job["goal"]["metric"] == metric
    ]
    return RECIPES[others[int(rng.integers(len(others)))]]


def write_runs(recipe: Recipe, seed: int, path: Path) -> None:
    """Writes a table of runs as a CSV file.

    Args:
        recipe: What ran.
        seed: Of the choice of runs, and of their noise.
        path: The file.
    """
    rng = np.random.default_rng([92, seed])
    grid = list(itertools.product(BATCH_SIZES, LEARNING_RATES))
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["run", "batch_size", "learning_rate", "samples", "value"])
        for number, place in enumerate(rng.permutation(len(grid))[:NUM_RUNS]):
            batch, rate = grid[place]
            scores = list(itertools.islice(recipe.scores(batch, rate, 1000 + seed), _MOST_SCORES))
            if rng.random() < _ENDED_SHARE:
                scores = scores[: max(int(len(scores) * rng.uniform(0.2, 0.9)), 1)]
            writer.writerows([number, batch, rate, score.samples, score.value] for score in scores)


def import_runs(script: ScriptJob, kind: str, seed: int, job: Path) -> None:
    """Imports runs into the study of a job, as a user would.

    Raises:
        subprocess.CalledProcessError: The import failed.
    """
    table, mapping = job.with_name("past.csv"), job.with_name("mapping.toml")
    write_runs(imported_recipe(script, kind, seed), seed, table)
    mapping.write_text(
        'metric = "value"\nsamples = "samples"\nbatch_size = "batch_size"\nlearning_rate = "learning_rate"\n'
    )
    paceline = Path(sys.executable).with_name("paceline")
    command = [str(paceline), "import-runs", job.name, "--from", table.name, "--mapping", mapping.name]
    with job.with_name("import.txt").open("w") as output:
        subprocess.run(command, cwd=job.parent, stdout=output, stderr=output, check=True)


def searched(script: ScriptJob, seed: int, kind: str, folder: Path) -> dict[str, Any]:
    """One search, with its cost in seconds."""

    def prepare(job: Path) -> None:
        if kind != "none":
            import_runs(script, kind, seed, job)

    tuning = tune(script, seed, folder / f"{script.name}-{seed}-{kind}", prepare=prepare)
    chosen = tuning.chosen
    seconds = math.inf if chosen is None else script.seconds_to_target(*chosen, seed)
    measured = tuning.answer is not None and tuning.answer["choice"]["measured_seconds"] is not None
    further = int(script.job["goal"]["trainings"]) - measured
    cost = tuning.wall_seconds + further * seconds
    if not math.isfinite(cost):
        cost = tuning.wall_seconds + script.budget_seconds
    print(f"{script.name} seed {seed} {kind}: {tuning.wall_seconds:.0f} s", file=sys.stderr, flush=True)
    return {
        "script": script.name,
        "seed": seed,
        "imported": kind,
        "exit": tuning.exit_code,
        "search_seconds": tuning.wall_seconds,
        "answer_seconds": seconds if math.isfinite(seconds) else None,
        "cost_seconds": cost,
    }


def table(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Costs relative to those without imports: geometric means with their standard errors."""
    by_kind = {kind: {(r["script"], r["seed"]): r for r in rows if r["imported"] == kind} for kind in KINDS}
    found = []
    for kind in KINDS[1:]:
        line: dict[str, Any] = {"imported": kind, "searches": len(by_kind[kind])}
        for name in ("cost_seconds", "search_seconds"):
            logs = [math.log(r[name] / by_kind["none"][key][name]) for key, r in by_kind[kind].items()]
            line[name] = math.exp(float(np.mean(logs)))
            line[f"{name} error"] = (
                float(np.std(logs, ddof=1) / math.sqrt(len(logs))) if len(logs) > 1 else None
            )
        line["answers"] = sum(r["answer_seconds"] is not None for r in by_kind[kind].values())
        found.append(line)
    return found


def main(
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds, from 0.")] = 6,
    processes: Annotated[int, typer.Option(min=1, help="Searches at once; they mostly sleep.")] = 3,
    scripts: Annotated[str, typer.Option(help="Names of scripts.")] = ",".join(SCRIPTS),
    output: Annotated[Path | None, typer.Option(help="Write the JSON object to this file.")] = None,
) -> None:
    """Tune scripts with and without imported runs, and compare the costs."""
    tasks = [
        (ScriptJob.named(name), seed, kind)
        for name in scripts.split(",")
        for seed in range(seeds)
        for kind in KINDS
    ]
    with tempfile.TemporaryDirectory(prefix="past-runs-") as folder, ThreadPoolExecutor(processes) as pool:
        rows = list(pool.map(lambda task: searched(*task, Path(folder)), tasks))
    result = {"costs": table(rows), "runs": rows}
    text = json.dumps(result, indent=1, allow_nan=False)
    if output is not None:
        output.write_text(f"{text}\n")
    for line in result["costs"]:
        typer.echo(json.dumps(line))


if __name__ == "__main__":
    typer.run(main)
