"""Predicts recorded runs that a replayed search has not probed, and counts the intervals that hold.

    python -m benchmarks.predictions_recorded FILE... --seeds 4

A search replays each recording until its policy stops, for one training or for many. Then the time to target
of recorded configurations that it has not started, drawn with the seed, is predicted as `paceline predict`
does. A run that never reached the target counts as inside if its interval ends after the recorded training.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.replay_beliefs import make_believer
from benchmarks.replay_problem import MANY_TRAININGS, Problem, problem
from benchmarks.replay_search import ReplayedSearch, steps
from tuner.advice.alternatives import alternative
from tuner.search.model_policy import ModelPolicy

#: Predictions after each search, and the cost at which a search ends, in the best training's cost.
_NUM_PREDICTIONS, _LIMIT = 20, 60.0


def check_recording(posed: Problem, seed: int) -> list[dict[str, Any]]:
    """Searches a recording, then predicts configurations that the search has not started."""
    believer = make_believer(seed, "textbook")
    policy, search = ModelPolicy(believer), ReplayedSearch(posed)
    for _ in steps(search, policy):
        if search.spent > _LIMIT * posed.best:
            break
    state = search.state()
    beliefs = believer.believe(state)
    if beliefs is None or not state.runs:
        return []
    others = [c for c in posed.recording.configurations() if c not in state.runs]
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(others), size=min(_NUM_PREDICTIONS, len(others)), replace=False)
    rows = []
    for configuration in (others[i] for i in chosen):
        if configuration not in beliefs.configurations:
            continue
        forecast = alternative(state, beliefs, configuration)
        truth = posed.seconds[configuration]
        end = float(posed.recording.run(configuration).curve[-1, 0])
        arrived = math.isfinite(truth)
        lower, upper = forecast.seconds.lower, forecast.seconds.upper
        rows.append(
            {
                "truth": truth if arrived else None,
                "lower": lower,
                "upper": upper,
                "chance": forecast.probability_of_reaching,
                "inside": bool(lower <= truth <= upper if arrived else upper > end),
                "z": _z(forecast.seconds.median, upper, lower, truth) if arrived else None,
                "width": upper / lower,
            }
        )
    return rows


def _z(median: float, upper: float, lower: float, truth: float) -> float:
    """Error of a prediction in standard deviations, on a logarithmic scale."""
    side = upper / median if truth > median else median / lower
    return math.log(truth / median) / max(math.log(side), 1e-9) * 1.645


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Coverage and width of all rows, and of those that reached the target."""
    arrived = [row for row in rows if row["truth"] is not None]
    return {
        "predictions": len(rows),
        "inside": _mean([row["inside"] for row in rows]),
        "arrived": len(arrived),
        "arrived_inside": _mean([row["inside"] for row in arrived]),
        "median_width": float(np.median([row["width"] for row in rows])) if rows else None,
        "z_sd": float(np.sqrt(np.mean([row["z"] ** 2 for row in arrived]))) if arrived else None,
        "mean_chance": _mean([row["chance"] for row in rows]),
    }


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def main(
    files: Annotated[list[Path], typer.Argument(help="Recordings.")],
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds, from 0.")] = 4,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print how many intervals held the recorded time, by recording and number of trainings."""
    results = []
    for path in files:
        for trainings in (1, MANY_TRAININGS):
            posed = problem(path, "seconds", trainings)
            rows = [row for seed in range(seeds) for row in check_recording(posed, seed)]
            results.append({"recording": path.stem.split(".")[0], "trainings": trainings, **summary(rows)})
            if not as_json:
                print(results[-1], flush=True)
    if as_json:
        print(json.dumps(results, indent=2))


if __name__ == "__main__":
    typer.run(main)
