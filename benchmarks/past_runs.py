"""Searches that start with imported runs: of a similar job, and of an unrelated one.

    python -m benchmarks.past_runs [--jobs 60] [--first 0] [--processes 1] [--json] [--output FILE]

Each made script (`benchmarks.made_scripts`) whose target some configuration reaches is searched on a
virtual clock: without imported runs, and with runs of a similar, of an unrelated and of a misleading script.
The searches are else equal. Every script is searched for one training, which the search itself does (`one`),
and as a script with a long start-up whose answer serves 20 trainings (`twenty`).

- A similar script has the curve's shape and the start and the best score of the searched one. It needs other
  samples, and has another best rate, noise scale, speed, noise and bend of each configuration: factors are
  log-normal with a standard deviation of 0.4.
- An unrelated script is any other made script with another shape.
- A misleading one is an unrelated script whose best rate is 20 times as large or as small as it would be, and
  which needs 10 times as many samples, or as few.

Ten runs are imported, with batch sizes and learning rates that the searched job does not offer. A third of
them were ended early. Imported seconds are not used.

The cost is what the search spends until the first training reaches the target, or, with 20 trainings, the
search with all further trainings of its answer. A search that does not get there is counted with its whole
budget. Stated are the geometric mean of the costs over those of the same searches without imports, and its
standard error, over jobs.
"""

from __future__ import annotations

import itertools
import json
import math
import multiprocessing
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.made_scripts import lines, script_prober, virtual_context
from benchmarks.made_scripts_curves import BASELINE, MadeScript, made_script, short_script
from tuner.domain.checkpoints import write_atomically
from tuner.domain.ledger import ProbeRecord
from tuner.domain.measurement import CurvePoint, Measurement, Outcome, Purpose
from tuner.search.believer import Believer
from tuner.search.imported_runs import ImportedRuns, laws_of_imports
from tuner.search.law_priors import NO_PAST
from tuner.search.loop import Search
from tuner.search.model_policy import ModelPolicy

Row = dict[str, Any]

KINDS = ("none", "similar", "unrelated", "misleading")
#: Trainings that the answer serves: one, or 20 of a short script.
PROBLEMS = ("one", "twenty")
#: Of imported runs; the searched jobs offer none of these.
BATCH_SIZES, LEARNING_RATES = (24, 48, 96, 192, 384), (0.002, 0.0056, 0.018, 0.056, 0.18, 0.56)
NUM_RUNS, _ENDED_SHARE = 10, 1 / 3
#: Standard deviation of the logarithm by which a similar script differs in each respect.
_DIFFERS_SD = 0.4
#: Factors by which a misleading script has another best rate, and needs other samples.
_MISLEADS = (20.0, 10.0)


def similar_script(script: MadeScript) -> MadeScript:
    """A script of the same family: another size, best rate, noise scale, speed, noise and bends."""
    rng = np.random.default_rng([81, script.seed])
    needed, rate, batch, speed, noise = np.exp(_DIFFERS_SD * rng.standard_normal(5))
    recipe = script.recipe
    return replace(
        script,
        seed=script.seed + 1_000_003,
        recipe=replace(
            recipe,
            needed_samples=recipe.needed_samples * needed,
            best_rate=recipe.best_rate * rate,
            noise_batch=recipe.noise_batch * batch,
            step_seconds=recipe.step_seconds * speed,
            sample_seconds=recipe.sample_seconds * speed,
            noise=recipe.noise * noise,
        ),
    )


def unrelated_script(script: MadeScript) -> MadeScript:
    """A random script with another shape."""
    rng = np.random.default_rng([82, script.seed])
    while True:
        other = made_script(int(rng.integers(1_000, 1_000_000)))
        if other.shape != script.shape:
            return other


def misleading_script(script: MadeScript) -> MadeScript:
    """An unrelated script with another best rate and size than those of all made scripts."""
    other, rng = unrelated_script(script), np.random.default_rng([84, script.seed])
    rate, needed = (factor ** rng.choice([-1.0, 1.0]) for factor in _MISLEADS)
    recipe = replace(
        other.recipe,
        best_rate=other.recipe.best_rate * rate,
        needed_samples=other.recipe.needed_samples * needed,
    )
    return replace(other, recipe=recipe, edge_rate=other.edge_rate * rate)


_OTHERS = {"similar": similar_script, "unrelated": unrelated_script, "misleading": misleading_script}


def imported_runs(script: MadeScript, seed: int) -> ImportedRuns:
    """Ten runs of a script, a third of them ended early.

    Args:
        script: What ran.
        seed: Of what ran, and how far.
    """
    rng = np.random.default_rng([83, seed])
    grid = list(itertools.product(BATCH_SIZES, LEARNING_RATES))
    probes = []
    for number, place in enumerate(rng.permutation(len(grid))[:NUM_RUNS], start=1):
        batch, rate = grid[place]
        configuration = BASELINE.replaced(batch_size=batch, learning_rate=rate)
        recorded = script.run(configuration)
        curve = recorded.curve
        if rng.random() < _ENDED_SHARE:
            curve = curve[: max(int(len(curve) * rng.uniform(0.2, 0.9)), 1)]
        points = tuple(
            CurvePoint(
                training_seconds=float(seconds),
                step=int(step),
                samples=round(step * batch),
                value=float(value),
            )
            for seconds, step, value in curve
        )
        last = points[-1]
        measurement = Measurement(
            configuration=configuration,
            purpose=Purpose.TRAINING,
            outcome=Outcome.PAUSED,
            curve=points,
            step=last.step,
            samples=last.samples,
            training_seconds=last.training_seconds,
        )
        probes.append(
            ProbeRecord(
                probe_id=number,
                study_id=0,
                configuration=configuration,
                purpose=Purpose.TRAINING,
                trial_number=None,
                slices=(measurement,),
                outcome=Outcome.PAUSED,
                reason="",
                lease=None,
                created_at=0.0,
            )
        )
    return ImportedRuns(probes=tuple(probes), is_same_hardware=(False,) * len(probes))


def cost(script: MadeScript, kind: str, folder: Path) -> tuple[float, bool]:
    """Seconds of a search with its further trainings, and whether it got there.

    Args:
        script: What is searched.
        kind: One of `KINDS`.
        folder: Of the probes.
    """
    job = script.job()
    cluster = replace(job.resolved_cluster(), cores_per_host=1)
    prober = script_prober(script, cluster)
    context = virtual_context(script, job, cluster, prober, folder)
    past = NO_PAST
    if kind != "none":
        runs = imported_runs(_OTHERS[kind](script), script.seed)
        past = laws_of_imports(job, cluster, runs, context.epoch_samples)
    search = Search(context, prober, ModelPolicy(Believer(seed=script.seed, past=past)))
    result = search.run()
    state = search.state()
    answer = result.beliefs.recommended if result.beliefs else None
    seconds = math.inf if answer is None else script.seconds_to_target(answer)
    arrived = any(run.arrived for run in state.runs.values())
    if script.trainings == 1:
        return (state.spent.seconds, True) if arrived else (script.budget_seconds, False)
    total = state.spent.seconds + (script.trainings - arrived) * seconds
    return (total, True) if math.isfinite(total) else (state.spent.seconds + script.budget_seconds, False)


def searched(task: tuple[str, int]) -> Row:
    """The searches of one script, over the seconds of its best training.

    Args:
        task: One of `PROBLEMS`, and the script's seed.
    """
    problem, seed = task
    script = made_script(seed) if problem == "one" else short_script(seed)
    row: Row = {"problem": problem, "seed": seed, "shape": script.shape}
    if not math.isfinite(script.best_seconds):
        return row
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            seconds, has_arrived = cost(script, kind, Path(folder))
        row[kind], row[f"{kind} arrived"] = seconds / script.best_seconds, has_arrived
    return row


def report(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Costs relative to those without imports: geometric means with their standard errors."""
    table = []
    for problem, kind in itertools.product(PROBLEMS, KINDS[1:]):
        own = [row for row in rows if row["problem"] == problem and "none" in row]
        if not own:
            continue
        logs = np.array([math.log(row[kind] / row["none"]) for row in own])
        error = float(logs.std(ddof=1) / math.sqrt(len(logs))) if len(logs) > 1 else math.nan
        table.append(
            {
                "trainings": problem,
                "imported": kind,
                "jobs": len(own),
                "cost": float(np.exp(logs.mean())),
                "error": error if math.isfinite(error) else None,
                "cheaper": int((logs < -0.01).sum()),
                "costlier": int((logs > 0.01).sum()),
                "worst": float(np.exp(logs.max())),
                "arrived": sum(row[f"{kind} arrived"] for row in own),
                "without": sum(row["none arrived"] for row in own),
            }
        )
    return {"costs": table}


def main(
    jobs: Annotated[int, typer.Option(min=1, help="Number of made scripts of each kind.")] = 60,
    first: Annotated[int, typer.Option(min=0, help="Seed of the first of them.")] = 0,
    processes: Annotated[int, typer.Option(min=1, help="Concurrent searches.")] = 1,
    problems: Annotated[str, typer.Option(help="Which problems.")] = ",".join(PROBLEMS),
    as_json: Annotated[bool, typer.Option("--json", help="One object on stdout.")] = False,
    output: Annotated[Path | None, typer.Option(help="Write the JSON object to this file.")] = None,
) -> None:
    """Search made scripts with and without imported runs, and compare the costs."""
    unknown = sorted(set(problems.split(",")) - set(PROBLEMS))
    if unknown:
        raise typer.BadParameter(f"problems are {', '.join(PROBLEMS)}, not {', '.join(unknown)}")
    tasks = [(problem, seed) for problem in problems.split(",") for seed in range(first, first + jobs)]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=processes, mp_context=context) as pool:
        rows = list((pool.map if processes > 1 else map)(searched, tasks))
    tables = report(rows)
    text = json.dumps({**tables, "runs": rows}, indent=1, allow_nan=False)
    if output is not None:
        write_atomically(output, lambda file: file.write(f"{text}\n".encode()))
    typer.echo(text if as_json else "\n".join(lines(tables)))


if __name__ == "__main__":
    typer.run(main)
