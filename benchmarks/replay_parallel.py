"""Several recorded probes at once: time that passes, and what is paid, with 1, 2 and 4 of them.

    python -m benchmarks.replay_parallel FILE... --goal seconds|dollars --parallel 1,2,4 --seeds 10
        [--capacity N] [--processes 2] [--json]

The product's own loop searches each recording; its recorded prober lets time pass on a clock of events, so
that a slice ends when it would have, beside the others. Deciding takes no time on it. `passed` is time,
once however many were under way; `paid` is what all slices were charged in the goal's unit; both in those of
the best configuration alone. `arrives`: until the first training arrived (`goal.trainings = 1`); `to 20%`:
until the recommendation was within 20% of the best to stay there, many trainings being asked for; a search
ends where it stops or has paid 60 of these units. Nodes at once are those of the largest configuration, if
not stated.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import optuna
import typer

from benchmarks.memory_ledger import MemoryLedger
from benchmarks.replay_beliefs import make_policy, recommended
from benchmarks.replay_problem import MANY_TRAININGS, Goal, Problem, problem
from search_spaces import Configuration
from tuner.domain.ledger import FitRecord, PredictionRecord
from tuner.probes.recorded import RecordedProber
from tuner.recordings.recording import NEUTRAL_EPOCH_SAMPLES
from tuner.search.context import SearchContext
from tuner.search.loop import Search
from tuner.search.optuna_trials import StudyTrials
from tuner.search.policy import Decision, Start, Stop, StopKind
from tuner.search.state import SearchState

LIMIT, NEAR = 60.0, 1.2


@dataclass(frozen=True, kw_only=True)
class Task:
    """One search.

    Args:
        path: The recording.
        goal: What is made small.
        trainings: How many trainings the answer serves.
        parallel: Slices at once.
        capacity: Nodes at once; None for those of the largest configuration.
        seed: Of the search.
    """

    path: Path
    goal: Goal
    trainings: int
    parallel: int
    capacity: int | None
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Came:
    """What a search came to, in units of the best configuration; infinite where it did not.

    Args:
        passed: Time until the answer.
        paid: All that had been charged by then.
        most_nodes: The most nodes that were held at once.
    """

    passed: float
    paid: float
    most_nodes: int


class _Forgetful(MemoryLedger):
    """Keeps no predictions and fits, which nobody reads here."""

    def add_predictions(self, predictions: Sequence[PredictionRecord]) -> None:
        del predictions

    def add_fit(self, fit: FitRecord) -> None:
        del fit


class _Watched:
    """A policy that is watched at every decision, and stopped at a limit."""

    def __init__(self, posed: Problem, seed: int) -> None:
        self._posed = posed
        self._policy = make_policy(seed, "neutral")
        self.seen: list[tuple[float, float, Configuration | None]] = []
        self.most_nodes = 0

    def decide(self, state: SearchState) -> Decision:
        """See `Policy`."""
        decision = self._policy.decide(state)
        paid = paid_of(self._posed, state)
        self.seen.append((state.elapsed_seconds, paid, recommended(decision)))
        held = sum(active.num_nodes for active in state.capacity.under_way)
        if isinstance(decision.action, Start):
            held += state.cluster.nodes_held(decision.action.configuration)
        self.most_nodes = max(self.most_nodes, held)
        if paid >= LIMIT * self._posed.best:
            return replace(decision, action=Stop(kind=StopKind.BUDGET, reason="the benchmark's limit"))
        return decision


def paid_of(posed: Problem, state: SearchState) -> float:
    """All that was charged, in the goal's unit."""
    return state.spent.seconds if posed.goal == "seconds" else state.spent.dollars


def execute(task: Task) -> Came:
    """Carries one search out."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    posed = problem(task.path, task.goal, task.trainings)
    policy = _Watched(posed, task.seed)
    ledger = _Forgetful()
    with tempfile.TemporaryDirectory(prefix="paceline-replay-") as folder:
        context = SearchContext(
            job=posed.job,
            cluster=replace(posed.job.resolved_cluster(), capacity=task.capacity),
            study=ledger.open_study("replay", "replay", {}),
            ledger=ledger,
            trials=StudyTrials(optuna.create_study(), posed.job),
            folder=Path(folder),
            epoch_samples=NEUTRAL_EPOCH_SAMPLES,
            owner="replay",
            parallel=task.parallel,
            sleep=lambda _seconds: None,
        )
        search = Search(context, RecordedProber(posed.recording, target=posed.job.goal.target), policy)
        search.run()
        state = search.state()
    passed, paid = _until_near(posed, policy.seen)
    if task.trainings == 1:
        arrived = any(
            run.arrived and np.isfinite(posed.costs[run.configuration]) for run in state.runs.values()
        )
        passed = state.elapsed_seconds if arrived else float("inf")
        paid = paid_of(posed, state) if arrived else float("inf")
    best_seconds = min((c / posed.price(k), k) for k, c in posed.costs.items() if c == posed.best)[0]
    return Came(passed=passed / best_seconds, paid=paid / posed.best, most_nodes=policy.most_nodes)


def _until_near(
    posed: Problem, seen: Sequence[tuple[float, float, Configuration | None]]
) -> tuple[float, float]:
    """Time and payment from which the recommendation is near the best and stays so."""
    found = (float("inf"), float("inf"))
    for passed, paid, configuration in reversed(seen):
        if posed.regret(configuration) > NEAR:
            break
        found = (passed, paid)
    return found


def row_of(tasks: Sequence[Task], came: Sequence[Came]) -> dict[str, Any]:
    """The figures of one arm."""
    row: dict[str, Any] = {
        "recording": tasks[0].path.name.partition(".")[0],
        "goal": tasks[0].goal,
        "parallel": tasks[0].parallel,
        "capacity": tasks[0].capacity,
    }
    for name, trainings in (("to_20_percent", MANY_TRAININGS), ("arrives", 1)):
        chosen = [c for task, c in zip(tasks, came, strict=True) if task.trainings == trainings]
        for what in ("passed", "paid"):
            values = [getattr(c, what) for c in chosen]
            row[f"{name}_{what}"] = {
                "median": _finite(np.median(values)),
                "p90": _finite(np.quantile(values, 0.9, method="higher")),
            }
    row["most_nodes"] = max(c.most_nodes for c in came)
    return row


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The figures for people."""
    lines = [
        f"{'recording':14} {'goal':8} {'at once':>7} {'nodes':>6}   {'to 20%: passed':>14} {'p90':>6} "
        f"{'paid':>6}   {'arrives: passed':>15} {'p90':>6} {'paid':>6}"
    ]
    for row in rows:
        near, nearest = row["to_20_percent_passed"], row["arrives_passed"]
        lines.append(
            f"{row['recording']:14} {row['goal']:8} {row['parallel']:>7} {row['most_nodes']:>6}   "
            f"{_number(near['median']):>14} {_number(near['p90']):>6} "
            f"{_number(row['to_20_percent_paid']['median']):>6}   {_number(nearest['median']):>15} "
            f"{_number(nearest['p90']):>6} {_number(row['arrives_paid']['median']):>6}"
        )
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def main(
    files: Annotated[list[Path], typer.Argument(help="Recordings.", exists=True, dir_okay=False)],
    goal: Annotated[Goal, typer.Option(help="What is made small.")] = "seconds",
    parallel: Annotated[str, typer.Option(help="Probes at once, such as 1,2,4.")] = "1,2,4",
    seeds: Annotated[int, typer.Option(min=1, help="Searches of each.")] = 10,
    capacity: Annotated[int | None, typer.Option(help="Nodes at once.")] = None,
    processes: Annotated[int, typer.Option(min=1, help="Searches at a time.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="A list of objects on stdout.")] = False,
) -> None:
    """Search recordings with several probes at once."""
    arms = [
        [
            Task(path=path, goal=goal, trainings=many, parallel=int(at_once), capacity=capacity, seed=seed)
            for many in (MANY_TRAININGS, 1)
            for seed in range(seeds)
        ]
        for path in files
        for at_once in parallel.split(",")
    ]
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(max_workers=processes, mp_context=context) as pool:
        rows = [row_of(tasks, list(pool.map(execute, tasks))) for tasks in arms]
    typer.echo(json.dumps(rows, indent=1) if as_json else table(rows))


if __name__ == "__main__":
    typer.run(main)
