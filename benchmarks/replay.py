"""Replays recorded searches: the model against Optuna's samplers and against picks without probes.

    python -m benchmarks.replay FILE... --goal seconds|dollars --samplers model,tpe,tpe-sha,gp,random,static
        --seeds 30 --processes 2 [--prior neutral|textbook|learnt:FILE|reversed] [--trainings 1] [--json]

All costs are in units of the best configuration's own cost (training alone). For dollars no training may
take longer than the median of those that arrive. A search is over where the model stops or has spent 60 of
these units; Optuna's samplers, which never stop, get 100. `to 20%` is what was spent when the recommendation
came within 20% of the best to stay there; regret the recommendation's true cost over the best; what was not
reached counts as infinite: `-` in the table, null in JSON. `total` is from replays of their own with
`goal.trainings = 1`: all that was spent when the first run arrived in time. Coverage and width are those of
90% intervals, cut off at the recording's end, of the recommendation and 10 others that have not arrived, at
2, 4, 8 and 16 units. `static` is the model's pick by text-book slopes, unless another prior is given;
`largest`, shown with it, is the largest cluster at a linear learning rate.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.replay_beliefs import LEARNT, PRIORS, make_policy
from benchmarks.replay_measures import measured
from benchmarks.replay_optuna import BASELINES, OptunaReplay
from benchmarks.replay_problem import MANY_TRAININGS, Goal, Problem, problem
from benchmarks.replay_search import replay
from benchmarks.replay_static import LARGEST, STATIC, largest_of, pick_trace, static_pick
from benchmarks.replay_table import table
from benchmarks.replay_trace import Trace
from tuner.domain.errors import TunerError
from tuner.search.slope_priors import NEUTRAL, TEXTBOOK

MODEL = "model"
SAMPLERS = (MODEL, *BASELINES, STATIC)
#: Where a search ends that has not ended by itself, in the best configuration's cost.
MODEL_LIMIT, BASELINE_LIMIT = 60.0, 100.0


@dataclass(frozen=True, kw_only=True)
class Task:
    """One search to replay.

    Args:
        path: The recording.
        goal: What is made small.
        trainings: How many trainings the answer serves.
        sampler: Who searches.
        seed: Of the search.
        prior: Of the model.
    """

    path: Path
    goal: Goal
    trainings: int
    sampler: str
    seed: int = 0
    prior: str = "neutral"


def execute(task: Task) -> Trace:
    """Replays one search."""
    posed = problem(task.path, task.goal, task.trainings)
    if task.sampler == STATIC:
        return pick_trace(posed, static_pick(posed, task.prior))
    if task.sampler == LARGEST:
        return pick_trace(posed, largest_of(posed))
    if task.sampler in BASELINES:
        return OptunaReplay(posed, task.sampler, task.seed).run(BASELINE_LIMIT)
    policy = make_policy(task.seed, task.prior)
    return replay(posed, policy, limit=MODEL_LIMIT, seed=task.seed)


def tasks_of(arm: Task, seeds: int, trainings: Iterable[int]) -> list[Task]:
    """All searches of one sampler on one recording; what does not depend on chance is searched once."""
    chances = range(1 if arm.sampler in (STATIC, LARGEST) else seeds)
    return [replace(arm, seed=seed, trainings=many) for many in trainings for seed in chances]


def row_of(arm: Task, tasks: Sequence[Task], traces: Sequence[Trace]) -> dict[str, Any]:
    """The figures of one sampler on one recording."""
    done = list(zip(tasks, traces, strict=True))
    posed: Problem = problem(arm.path, arm.goal)
    return measured(
        posed,
        arm.sampler,
        arm.prior,
        [trace for task, trace in done if task.trainings != 1],
        [trace for task, trace in done if task.trainings == 1],
    )


def _rows(arms: Sequence[tuple[Task, list[Task]]], processes: int) -> list[dict[str, Any]]:
    """Carries all searches out, each process on one core: the matrices are small."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(max_workers=processes, mp_context=context) as pool:
        started = [(arm, tasks, pool.map(execute, tasks)) for arm, tasks in arms]
        try:
            return [row_of(arm, tasks, list(traces)) for arm, tasks, traces in started]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _prior_of(sampler: str, prior: str) -> str:
    """Without slopes there is nothing to pick by before a probe."""
    return TEXTBOOK.name if sampler == STATIC and prior == NEUTRAL.name else prior


def _checked(given: Sequence[str], allowed: Sequence[str], option: str) -> None:
    for name in given:
        if name not in allowed:
            raise typer.BadParameter(f"{name!r} is none of {', '.join(allowed)}", param_hint=option)


def main(
    files: Annotated[list[Path], typer.Argument(help="Recordings.", exists=True, dir_okay=False)],
    goal: Annotated[Goal, typer.Option(help="What is made small.")] = "seconds",
    samplers: Annotated[str, typer.Option(help=f"Some of {','.join(SAMPLERS)}.")] = ",".join(SAMPLERS),
    seeds: Annotated[int, typer.Option(min=1, help="Searches of each sampler.")] = 30,
    processes: Annotated[int, typer.Option(min=1, help="Searches at a time.")] = 1,
    prior: Annotated[str, typer.Option(help="neutral, textbook, reversed or learnt:FILE.")] = "neutral",
    trainings: Annotated[
        int | None, typer.Option(help="Only replays whose answer serves so many trainings; both if absent.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A list of objects on stdout.")] = False,
) -> None:
    """Replay searches on recordings."""
    names = samplers.split(",")
    _checked(names, SAMPLERS, "--samplers")
    if not prior.startswith(LEARNT):
        _checked([prior], [*PRIORS, f"{LEARNT}FILE"], "--prior")
    if STATIC in names:
        names.insert(names.index(STATIC) + 1, LARGEST)
    wanted = (MANY_TRAININGS, 1) if trainings is None else (trainings,)
    arms = [
        Task(path=path, goal=goal, trainings=0, sampler=name, prior=_prior_of(name, prior))
        for path in files
        for name in names
    ]
    try:
        rows = _rows([(arm, tasks_of(arm, seeds, wanted)) for arm in arms], processes)
    except TunerError as error:
        raise typer.BadParameter(str(error), param_hint="FILE") from error
    typer.echo(json.dumps(rows, indent=1) if as_json else table(rows))


if __name__ == "__main__":
    typer.run(main)
