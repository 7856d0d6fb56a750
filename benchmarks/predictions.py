"""Checks whether `paceline predict` is right: predicts configurations that were not probed, and trains them.

    python -m benchmarks.predictions digits numpy_script own_script
    python -m benchmarks.predictions digits numpy_script own_script --explore
    python -m benchmarks.predictions digits numpy_script own_script --explore --clock fixed

Each job of `examples/` is searched with its own budget. Then ten configurations that the search has not
trained are drawn from its space with a seed, predicted as `paceline predict` does, and trained to the target
or to a cap. A 90% interval holds if it includes the measured training seconds. A training that reached the
cap counts as inside if its interval ends after the cap. `width` is the upper end of an interval over its
lower end. With `--folder`, an interrupted check resumes.

With `--explore`, each search uses its whole budget, as `paceline run --explore` does.

With `--clock fixed`, all trainings are real, but their seconds come from the fixed clock of
`benchmarks.golden`. Then other programs on the machine do not change the result.

`benchmarks.predictions_recorded` checks predictions of recorded runs.
"""

from __future__ import annotations

import itertools
import json
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.golden import FixedClock
from benchmarks.job import listen
from search_spaces import Configuration
from storage import Storage, open_storage
from tuner.advice.prediction import Prediction, predict
from tuner.domain.errors import TunerError
from tuner.probes import Prober
from tuner.search.state import run_of
from tuner.service.launchers import job_prober
from tuner.service.opening import OpenedJob, open_job
from tuner.service.predicting import StudyForecasts
from tuner.service.run import RunOptions, run_job
from tuner.service.training import train_configuration
from tuner.service.views import require_study

EXAMPLES = Path(__file__).parents[1] / "examples"
#: Configurations that are predicted for each example, and the training seconds at which a training ends.
_NUM_CONFIGURATIONS, _CAP_SECONDS = 10, 15.0


def unprobed(forecasts: StudyForecasts, num: int, seed: int) -> list[Configuration]:
    """Draws configurations of the space that the search has not trained."""
    trained = {probe.configuration for probe in forecasts.state.probes}
    found = [c for c in forecasts.space.candidates() if c not in trained]
    rng = np.random.default_rng(seed)
    return [found[i] for i in rng.choice(len(found), size=min(num, len(found)), replace=False)]


def predicted(forecasts: StudyForecasts, configurations: Sequence[Configuration]) -> list[Prediction]:
    """Predicts each configuration as `paceline predict` does, one at a time."""
    return [predict(forecasts.ending([c]), c) for c in configurations]


def row_of(prediction: Prediction, measured: float | None, cap: float) -> dict[str, Any]:
    """Compares a prediction with a measured training, which ended at the cap if `measured` is None."""
    seconds = prediction.forecast.seconds
    inside = seconds.upper > cap if measured is None else seconds.lower <= measured <= seconds.upper
    return {
        "configuration": prediction.forecast.configuration.as_dict(),
        "lower": seconds.lower,
        "median": seconds.median,
        "upper": seconds.upper,
        "probability_of_reaching": prediction.forecast.probability_of_reaching,
        "measured": measured,
        "cap": cap,
        "inside": bool(inside),
        "width": seconds.upper / seconds.lower,
    }


class Clock(StrEnum):
    """Where the seconds of a training come from."""

    REAL = "real"
    FIXED = "fixed"


def prober_of(opened: OpenedJob) -> Prober:
    """A prober whose seconds are those of the fixed clock."""
    return FixedClock(job_prober(opened), opened.cluster)


def check_example(
    name: str, folder: Path, seed: int, cap: float, clock: Clock, explore: bool
) -> dict[str, Any]:
    """Searches an example with its own budget, then predicts and trains configurations of its space."""
    make_prober = prober_of if clock is Clock.FIXED else job_prober
    opened = open_job(EXAMPLES / f"{name}.toml")
    folder.mkdir(parents=True, exist_ok=True)
    with open_storage(f"sqlite:///{folder / 'paceline.db'}") as store:
        try:
            study = require_study(store.ledger, opened)
            if not store.ledger.recommendations(study.study_id):
                raise LookupError
        except (TunerError, LookupError):
            study = run_job(
                opened,
                store,
                RunOptions(output=folder / "search", explore=explore),
                listen,
                make_prober=make_prober,
            ).study
        forecasts = StudyForecasts(opened, store.ledger, study)
        chosen = unprobed(forecasts, _NUM_CONFIGURATIONS, seed)
        predictions = predicted(forecasts, chosen)
        began = time.monotonic()
        rows = []
        for prediction in predictions:
            configuration = prediction.forecast.configuration
            measured = _trained(opened, store, configuration, folder, cap, make_prober)
            rows.append(row_of(prediction, measured, cap))
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
        state = forecasts.state
    return {
        "example": name,
        "clock": clock.value,
        "explored": explore,
        "probes": len(state.probes),
        "search_seconds": state.elapsed_seconds,
        "check_seconds": time.monotonic() - began,
        **summary(rows),
        "rows": rows,
    }


def _trained(
    opened: OpenedJob,
    store: Storage,
    configuration: Configuration,
    folder: Path,
    cap: float,
    make_prober: Callable[[OpenedJob], Prober],
) -> float | None:
    """Trains a configuration to the target; None if it did not get there before the cap."""
    number = str(zlib.crc32(configuration.key.encode()))
    state = train_configuration(
        opened,
        store,
        configuration,
        folder / f"train-{number}",
        listen,
        limit_seconds=cap,
        make_prober=make_prober,
    )
    run = run_of(state, configuration)
    seconds = run.seconds_to_target if run else None
    return seconds if seconds is not None and seconds <= cap else None


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Counts the intervals that held, and their median width."""
    return {
        "predictions": len(rows),
        "inside": sum(row["inside"] for row in rows),
        "censored": sum(row["measured"] is None for row in rows),
        "median_width": float(np.median([row["width"] for row in rows])) if rows else None,
    }


def main(
    examples: Annotated[list[str], typer.Argument(help="Names of examples.")],
    seed: Annotated[int, typer.Option(help="Seed of the configurations.")] = 0,
    clock: Annotated[Clock, typer.Option(help="Where seconds come from.")] = Clock.REAL,
    cap: Annotated[float, typer.Option(help="Training seconds at which a training ends.")] = _CAP_SECONDS,
    explore: Annotated[bool, typer.Option("--explore", help="Search with the whole budget.")] = False,
    folder: Annotated[Path | None, typer.Option(help="Folder of searches and trainings.")] = None,
    output: Annotated[Path | None, typer.Option(help="File to which the results are added.")] = None,
) -> None:
    """Print how many intervals held the real time, by example."""
    place = folder or Path(tempfile.mkdtemp(prefix="paceline-predictions-"))
    known = json.loads(output.read_text()) if output is not None and output.exists() else {"examples": []}
    results = {(one["example"], one["clock"], one.get("explored", False)): one for one in known["examples"]}
    for name in examples:
        place_of = place / f"{name}-{clock.value}{'-explored' if explore else ''}"
        found = check_example(name, place_of, seed, cap, clock, explore)
        results[name, clock.value, explore] = found
        print({key: value for key, value in found.items() if key != "rows"})
    data: dict[str, Any] = {"all": {}, "examples": list(results.values())}
    for kind, explored in itertools.product(Clock, (False, True)):
        chosen = [one for key, one in results.items() if key[1:] == (kind.value, explored)]
        label = f"{kind.value}{', explored' if explored else ''}"
        if chosen:
            data["all"][label] = summary([row for one in chosen for row in one["rows"]])
    print(data["all"])
    if output is not None:
        output.write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
