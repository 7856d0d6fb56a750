"""Trains a job to its target by every strategy, with and without a delayed rank: curves in one figure.

    python -m benchmarks.convergence examples/fashion_mnist.toml --output OUT

writes `.json` (every scoring) and `.svg` (against training time and against samples). Runs that are in the
JSON already are kept, so that a run that was cut off goes on. The seconds are those of this machine: ranks
that share cores slow each other, which hides part of what barriers cost.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.convergence_figure import figure
from search_spaces import STRATEGIES, Configuration, with_knobs
from tuner.domain.measurement import Outcome, Purpose, crossing
from tuner.job import Job, load_job
from tuner.launchers import LocalLauncher
from tuner.probes import Until
from tuner.probes.training import TrainingProber


def delayed(job: Job, rank: int | None) -> Job:
    """The job, with a rank whose steps are delayed by U[0, 300] ms (Jin et al. 2016), or with none."""
    data = job.model_dump(mode="json")
    data["cluster"]["emulate"] = {"delay": [] if rank is None else [{"ranks": [rank], "low": 0, "high": 0.3}]}
    return Job.model_validate(data)


def train(
    job: Job, folder: Path, launcher: LocalLauncher, what: Configuration, limit_samples: int
) -> dict[str, Any]:
    """One training to the target, or to a number of samples."""
    prober = TrainingProber(job, folder, launcher)
    with tempfile.TemporaryDirectory() as place:
        handle = prober.start(what, Purpose.TRAINING, Until(samples=limit_samples), Path(place))
        while (measured := prober.poll(handle)).outcome is Outcome.RUNNING:
            time.sleep(0.05)
    crossed = crossing(
        [p for p in measured.curve if p.samples > 0], job.goal.target, maximize=job.goal.maximize
    )
    return {
        "configuration": what.as_dict(),
        "outcome": measured.outcome.value,
        "error": measured.error,
        "samples_to_target": crossed[0] if crossed else None,
        "seconds_to_target": crossed[1] if crossed else None,
        "batch_seconds": measured.batch_seconds,
        "staleness_steps": measured.staleness_steps,
        "bytes_per_step": measured.bytes_per_step,
        "lost_ranks": list(measured.lost_ranks),
        "charged_seconds": measured.charged_seconds,
        "curve": [asdict(point) for point in measured.curve],
    }


def main(
    job_path: Annotated[Path, typer.Argument(help="A job file.")],
    output: Annotated[Path, typer.Option(help="Where to, without ending.")],
    nodes: Annotated[int, typer.Option(help="Ranks.")] = 4,
    batch_size: Annotated[int, typer.Option(help="Global batch size.")] = 128,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 0.02,
    strategies: Annotated[str, typer.Option(help="Names, or all.")] = "all",
    delay_rank: Annotated[int, typer.Option(help="Which rank is delayed in the second half.")] = 1,
    limit_samples: Annotated[int, typer.Option(help="Where a run is given up.")] = 400_000,
) -> None:
    """Train by every strategy, and draw the curves."""
    job = load_job(job_path)
    names = list(STRATEGIES) if strategies == "all" else strategies.split(",")
    data_file = output.with_suffix(".json")
    found: dict[str, Any] = json.loads(data_file.read_text()) if data_file.exists() else {"runs": []}
    found["command"] = " ".join(["python", "-m", "benchmarks.convergence", *sys.argv[1:]])
    found["target"], found["metric"] = job.goal.target, job.goal.metric
    with LocalLauncher(threads_per_rank=job.cluster.threads_per_rank) as launcher:
        for rank in (None, delay_rank):
            for name in names:
                if any(r["strategy"] == name and r["delay_rank"] == rank for r in found["runs"]):
                    continue
                what = with_knobs(
                    Configuration(
                        nodes=nodes, batch_size=batch_size, learning_rate=learning_rate, strategy=name
                    )
                )
                run = train(delayed(job, rank), job_path.parent, launcher, what, limit_samples)
                found["runs"].append({"strategy": name, "delay_rank": rank, **run})
                data_file.write_text(json.dumps(found, indent=1) + "\n")
                typer.echo(
                    f"{name} delay_rank={rank}: {run['outcome']}, {run['samples_to_target']} samples, "
                    f"{run['seconds_to_target']} s, {run['batch_seconds']} s a batch"
                )
    output.with_suffix(".svg").write_text(figure(found))


if __name__ == "__main__":
    typer.run(main)
