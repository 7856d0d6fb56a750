"""How long one suggestion of the model takes over a list of recorded runs, by how much it has to weigh.

    OMP_NUM_THREADS=1 python -m benchmarks.suggestion FILE [--slices 200]

Searches a recording until it has so many slices; prints the median and the longest seconds of the last tenth
of the decisions.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.replay_problem import problem
from benchmarks.replay_search import ReplayedSearch, steps
from tuner.search.model_policy import ModelPolicy
from tuner.search.policy import Stop
from tuner.search.slope_priors import NEUTRAL, SearchSettings


def listed_seconds(recording: Path, num_slices: int) -> list[tuple[int, float]]:
    """Slices known and seconds of each decision of one search, which goes on until it has so many slices."""
    search = ReplayedSearch(problem(recording, "seconds", trainings=1_000_000_000))
    policy = ModelPolicy(seed=0, settings=SearchSettings(prior=NEUTRAL))
    found = []
    for state, decision, seconds in steps(search, policy):
        found.append((len(state.slices), seconds))
        if len(state.slices) >= num_slices or isinstance(decision.action, Stop):
            break
    return found


def main(
    recording: Annotated[Path, typer.Argument(help="a recording, the more configurations the better")],
    slices: Annotated[int, typer.Option(help="how many slices a decision weighs in the end")] = 200,
) -> None:
    """Prints how long decisions took."""
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
