"""Long load, kill and fuzz runs of the product, started by hand.

    python -m benchmarks.soak                                # all five, ten minutes each
    python -m benchmarks.soak kill fuzz --minutes 5 --seed 3

Each run writes `soak_NAME.json` into the output folder. The command exits with 1 if an invariant was broken.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.soak_api import run_api
from benchmarks.soak_fuzz import run_fuzz
from benchmarks.soak_kill import run_kill
from benchmarks.soak_load import run_load
from benchmarks.soak_processes import run_processes
from benchmarks.soak_record import SoakRecord, write_result
from benchmarks.soak_service import run_service

RESULTS = Path(__file__).with_name("results")


class Run(StrEnum):
    """What can be run."""

    LOAD = "load"
    KILL = "kill"
    FUZZ = "fuzz"
    PROCESSES = "processes"
    SERVICE = "service"
    API = "api"


RUNS: dict[Run, Callable[[SoakRecord], None]] = {
    Run.LOAD: run_load,
    Run.KILL: run_kill,
    Run.FUZZ: run_fuzz,
    Run.PROCESSES: run_processes,
    Run.SERVICE: run_service,
    Run.API: run_api,
}


def main(
    runs: Annotated[list[Run] | None, typer.Argument(help="Which runs; all by default.")] = None,
    minutes: Annotated[float, typer.Option(min=0.01, help="Length of each run.")] = 10.0,
    seed: Annotated[int, typer.Option(min=0, help="Of all random draws.")] = 0,
    output: Annotated[Path, typer.Option(help="Folder for the result files.", show_default=False)] = RESULTS,
) -> None:
    """Run load, kill, fuzz, process and service tests for a long time."""
    num_broken = 0
    for run in runs or list(Run):
        record = soak(run, minutes=minutes, seed=seed, output=output)
        num_broken += record.counts["broken"]
    if num_broken:
        raise typer.Exit(1)


def soak(
    run: Run, *, minutes: float, seed: int, output: Path, report: Callable[[str], None] | None = None
) -> SoakRecord:
    """Carries out one run and writes its file, also where the run is interrupted."""
    record = SoakRecord(name=run.value, seed=seed, seconds=60 * minutes, report=report or _report)
    command = f"python -m benchmarks.soak {run.value} --minutes {minutes:g} --seed {seed}"
    try:
        RUNS[run](record)
    finally:
        path = output / f"soak_{run.value}.json"
        write_result(path, record.to_dict(command))
        record.report(f"{run.value}: {record.counts['broken']} broken invariants; wrote {path}")
    return record


def _report(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    typer.run(main)
