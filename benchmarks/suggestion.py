"""How long one suggestion of the model takes, by how much it has to weigh.

    OMP_NUM_THREADS=1 python -m benchmarks.suggestion [FILE] [--slices 200]

Searches a recording until it has so many slices; prints the median and the longest seconds of the last tenth
of the decisions. Without one, a training job of some 500 configurations is weighed, whose slices are made
from a known law: the first decision, and the median and the longest of those after it.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.made_search import made_state
from benchmarks.replay_problem import problem
from benchmarks.replay_search import ReplayedSearch, steps
from tuner.search.believer import Believer
from tuner.search.model_policy import ModelPolicy
from tuner.search.policy import Stop
from tuner.search.slope_priors import NEUTRAL


def listed_seconds(recording: Path, num_slices: int) -> list[tuple[int, float]]:
    """Slices known and seconds of each decision of one search, which goes on until it has so many slices."""
    search = ReplayedSearch(problem(recording, "seconds", trainings=1_000_000_000))
    policy = ModelPolicy(Believer(prior=NEUTRAL))
    found = []
    for state, decision, seconds in steps(search, policy):
        found.append((len(state.slices), seconds))
        if len(state.slices) >= num_slices or isinstance(decision.action, Stop):
            break
    return found


def made_seconds(num_slices: int, repeats: int = 7) -> tuple[int, list[float]]:
    """Configurations weighed, and seconds of the first decision and later ones in states alike in size."""
    policy, found = ModelPolicy(), []
    for seed in range(repeats):
        state = made_state(num_slices, seed=seed)
        started = time.perf_counter()
        decision = policy.decide(state)
        found.append(time.perf_counter() - started)
        assert decision.beliefs is not None, "runs were made, so that something is believed"
    return len(decision.beliefs.configurations), found


def main(
    recording: Annotated[
        Path | None, typer.Argument(help="A recording, the more configurations the better; none: a made job.")
    ] = None,
    slices: Annotated[int, typer.Option(help="How many slices a decision weighs in the end.")] = 200,
) -> None:
    """Print how long decisions took."""
    if recording is None:
        num_configurations, seconds = made_seconds(slices)
        figures: dict[str, Any] = {
            "configurations": num_configurations,
            "slices": slices,
            "first_seconds": seconds[0],
            "median_seconds": float(np.median(seconds[1:])),
            "longest_seconds": max(seconds[1:]),
        }
    else:
        found = listed_seconds(recording, slices)
        last = [seconds for known, seconds in found if known > 0.9 * found[-1][0]]
        figures = {
            "recording": recording.name,
            "slices": found[-1][0],
            "median_seconds": float(np.median(last)),
            "longest_seconds": max(last),
        }
    typer.echo(json.dumps(figures))


if __name__ == "__main__":
    typer.run(main)
