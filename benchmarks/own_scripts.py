"""Tunes small scripts that report in different ways, and compares what Paceline read with the truth.

    python -m benchmarks.own_scripts --seeds 3 --processes 2
    python -m benchmarks.own_scripts --scripts keras_fit,percent --quick

The scripts are in `benchmarks/own_scripts_jobs`, each with the job file that a user would write. They sleep
a known time a step and report a known curve with seeded noise, so the truth is computed. Two (`plateau`,
`overfits`) never reach their targets; two (`keras_fit`, `progress_bar`) rise late. `paceline run` tunes each
as a subprocess. The present settings, the answer and the best of a grid are also trained directly, without
Paceline, which checks the computed seconds (`direct`: largest relative difference).

Bars: budget (overrun of the slices' seconds at most the grace and 5%), slices (none without a report, except
the first and those that the budget ended), answer (none without a score), and what was read: unit, first
(position of the first score of each probe) and clock (training seconds within 5% and 0.3 s). A script from
which nothing was read fails the last three.

Other columns: `/now` and `/grid` are the answer's true training time over that of the present settings and of
the best of the grid; `said/true` is the median that the answer states over the truth, `chance` the stated
probability of reaching the target, `arrived` whether the answer says that a run reached it.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.own_scripts_jobs.pretended import RECIPES
from benchmarks.own_scripts_judge import BARS, advice, judged, passed
from benchmarks.own_scripts_runs import ScriptJob, train_directly, tune

_RESULT = Path(__file__).with_name("results") / "own_scripts.json"
#: A direct training that takes longer by its recipe is not run: its seconds are the computed ones.
_LONGEST_DIRECT_SECONDS = 60.0
_DIRECT_MARGIN_SECONDS = 20.0

#: Header and width of each column of the table, and the row's value as text.
_COLUMNS = (
    ("script", 13),
    ("seed", 4),
    ("exit", 4),
    ("wall s", 6),
    ("over s", 6),
    ("over %", 6),
    ("silent", 6),
    ("scores", 6),
    ("unit", 5),
    ("first", 5),
    ("clock", 5),
    ("clock s", 7),
    ("/now", 5),
    ("/grid", 5),
    ("said/true", 9),
    ("chance", 6),
    ("direct", 6),
    ("arrived", 7),
)


def one_tuning(script: ScriptJob, seed: int, folder: Path) -> dict[str, Any]:
    """A row: a search, and direct trainings of its answer, the present settings and the best of the grid."""
    print(f"{script.name} seed {seed}: tuning", file=sys.stderr, flush=True)
    tuning = tune(script, seed, folder / f"{script.name}-{seed}")
    row = {**judged(script, tuning), **advice(script, tuning)}
    print(f"{script.name} seed {seed}: exit {tuning.exit_code}", file=sys.stderr, flush=True)
    row["direct"] = [
        direct_training(script, pair, seed)
        for pair in dict.fromkeys((script.baseline, row["best_of_grid"], row["answer"]))
        if pair is not None and script.seconds_to_target(pair[0], pair[1], seed) <= _LONGEST_DIRECT_SECONDS
    ]
    return row


def direct_training(script: ScriptJob, pair: tuple[int, float], seed: int) -> dict[str, Any]:
    """Trains with a batch size and a rate, without Paceline, beside what the recipe says."""
    computed = script.seconds_to_target(pair[0], pair[1], seed)
    measured = train_directly(script, pair[0], pair[1], seed, computed + _DIRECT_MARGIN_SECONDS)
    return {"batch_and_rate": pair, "computed_seconds": computed, "measured_seconds": measured}


def direct_difference(row: dict[str, Any]) -> float | None:
    """Largest relative difference between measured and computed seconds; infinite if one never arrived."""
    return max(
        (
            math.inf
            if training["measured_seconds"] is None
            else abs(training["measured_seconds"] / training["computed_seconds"] - 1)
            for training in row["direct"]
        ),
        default=None,
    )


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A line for each search."""
    lines = ["  ".join(f"{name:>{width}}" for name, width in _COLUMNS)]
    for row in rows:
        said, true = row["stated_seconds"], row["answer_seconds"]
        wrong = {bar: "ok" if row["bars"][bar] else "WRONG" for bar in BARS}
        cells = (
            row["script"],
            row["seed"],
            "hung" if row["exit_code"] is None else row["exit_code"],
            _number(row["wall_seconds"], 0),
            _number(row["overrun_seconds"], 1),
            _number(row["overrun_percent"], 0),
            row["silent_slices"],
            row["num_scores"],
            *(wrong[bar] if row["num_scores"] else "none" for bar in ("unit", "first", "clock")),
            _number(row["largest_clock_error"], 1),
            _number(row["answer_over_baseline"], 2),
            _number(row["answer_over_grid"], 2),
            _number(None if said is None or true in (None, math.inf) else said / true, 2),
            _number(row["stated_chance"], 2),
            _number(direct_difference(row), 3),
            "yes" if row["claims_arrival"] else "no",
        )
        lines.append(
            "  ".join(f"{cell!s:>{width}}" for cell, (_, width) in zip(cells, _COLUMNS, strict=True))
        )
    return lines


def verdicts(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A line for each script: the bars that all its searches passed, and medians of the advice."""
    lines = ["  ".join([f"{'script':>13}", *(f"{bar:>6}" for bar in BARS), "  /now", " /grid"])]
    for name in dict.fromkeys(row["script"] for row in rows):
        own = [row for row in rows if row["script"] == name]
        cells = [f"{'pass' if good else 'FAIL':>6}" for good in passed(own).values()]
        ratios = [_number(_median(own, key), 2) for key in ("answer_over_baseline", "answer_over_grid")]
        lines.append("  ".join([f"{name:>13}", *cells, *(f"{ratio:>6}" for ratio in ratios)]))
    return lines


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The bars and the medians of each script."""
    by_script = {}
    for name in dict.fromkeys(row["script"] for row in rows):
        own = [row for row in rows if row["script"] == name]
        by_script[name] = {
            "bars": passed(own),
            "answer_over_baseline": _median(own, "answer_over_baseline"),
            "answer_over_grid": _median(own, "answer_over_grid"),
        }
    return by_script


def _median(rows: Sequence[dict[str, Any]], key: str) -> float | None:
    values = [row[key] for row in rows if row[key] is not None]
    return float(np.median(values)) if values else None


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _plain(value: Any) -> Any:
    """JSON has no infinity: what never reaches the target is "never"."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return "never" if isinstance(value, float) and math.isinf(value) else value


def main(
    scripts: Annotated[str, typer.Option(help="Names of scripts; all by default.")] = ",".join(RECIPES),
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds, from 0.")] = 3,
    processes: Annotated[int, typer.Option(min=1, help="Searches at once; they mostly sleep.")] = 2,
    quick: Annotated[bool, typer.Option("--quick", help="One seed.")] = False,
    output: Annotated[Path, typer.Option(help="The JSON file.")] = _RESULT,
    folder: Annotated[Path | None, typer.Option(help="Keep studies and messages here.")] = None,
) -> None:
    """Print what was read from each script, and write it as JSON."""
    names = scripts.split(",")
    unknown = [name for name in names if name not in RECIPES]
    if unknown:
        raise typer.BadParameter(f"scripts are {', '.join(RECIPES)}, not {', '.join(unknown)}")
    tasks = [(ScriptJob.named(name), seed) for name in names for seed in range(1 if quick else seeds)]
    with (
        tempfile.TemporaryDirectory(prefix="own-scripts-") as temporary,
        ThreadPoolExecutor(processes) as pool,
    ):
        rows = list(pool.map(lambda task: one_tuning(task[0], task[1], folder or Path(temporary)), tasks))
    output.write_text(json.dumps(_plain({"scripts": summary(rows), "runs": rows}), indent=2) + "\n")
    print("\n".join([*table(rows), "", *verdicts(rows)]))


if __name__ == "__main__":
    typer.run(main)
