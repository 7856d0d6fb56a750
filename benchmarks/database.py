"""CPU time and memory that a large study costs the commands that read it.

    python -m benchmarks.database
    .ci/with_postgres.sh python -m benchmarks.database --json

For each number of probes, a study with curves of 100 points is stored. Then `status`, `trials` and `run` are
called. `run` finds its budget used up, so it only reads the study, fits the models and writes the report.
The study with one probe shows what the commands cost in any case; the table states the difference to it.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.soak_load import POSTGRES, postgres_database
from search_spaces import Configuration
from storage import open_storage
from storage.recovery import write_recovery
from tuner.domain.ledger import ProbeRecord, StudyRecord
from tuner.domain.measurement import CurvePoint, Measurement, Outcome, Purpose
from tuner.recordings.file import write_recording
from tuner.recordings.recording import RecordedRun, Recording
from tuner.service.opening import open_job

NUM_PROBES = (50, 200, 800, 2000)
_NUM_SLICES = 4
_POINTS_OF_A_SLICE = 25
_TARGET = 0.01
_BATCH = 32
#: Learning rates of the recording; more probes than these repeat configurations.
_RATES = [round(0.001 * 1.002**k, 9) for k in range(max(NUM_PROBES))]

_COMMON = f"""
[goal]
metric = "loss"
target = {_TARGET}
[budget]
probes = 1
time = "1s"
[baseline]
batch_size = {_BATCH}
learning_rate = 0.001
"""
_JOBS = {
    "recorded": '[probe]\nkind = "recorded"\nrecording = "runs.jsonl"\n',
    "command": (
        '[workload]\ncommand = "{python} train.py --lr {learning_rate} --batch-size {batch_size}"\n'
        "epoch_samples = 10000\n[space]\nbatch_size = [32]\n"
        "learning_rate = { low = 1e-3, high = 0.1 }\n"
    ),
}


def write_jobs(folder: Path) -> dict[str, Path]:
    """Writes a recorded job and a command job to a folder; returns their job files by kind."""
    (folder / "train.py").write_text("import argparse\n")
    points = [_point(k, 0) for k in range(1, _NUM_SLICES * _POINTS_OF_A_SLICE + 1)]
    curve = np.array([[p.training_seconds, p.step, p.value] for p in points])
    curve = np.vstack([curve, [1.5 * curve[-1, 0], 1.5 * curve[-1, 1], _TARGET / 2]])
    runs = [
        RecordedRun(configuration=_configuration(number), step_seconds=0.01, curve=curve)
        for number in range(len(_RATES))
    ]
    recording = Recording(
        name="made",
        source="benchmarks/database.py",
        metric="loss",
        maximize=False,
        target=_TARGET,
        runs=tuple(runs),
    )
    write_recording(recording, folder / "runs.jsonl")
    jobs = {}
    for kind, text in _JOBS.items():
        jobs[kind] = folder / f"{kind}.toml"
        jobs[kind].write_text(text + _COMMON)
    return jobs


def _configuration(number: int) -> Configuration:
    rate = _RATES[number % len(_RATES)]
    return Configuration(nodes=1, batch_size=_BATCH, learning_rate=rate, strategy="all_reduce")


def _point(k: int, number: int) -> CurvePoint:
    value = math.exp(-k / (60 + number % 40))
    return CurvePoint(training_seconds=0.2 * k, step=20 * k, samples=20 * k * _BATCH, value=value)


def _slices(number: int) -> tuple[Measurement, ...]:
    """Returns the slices of a paused probe."""
    made = []
    for first in range(1, _NUM_SLICES * _POINTS_OF_A_SLICE, _POINTS_OF_A_SLICE):
        points = tuple(_point(k, number) for k in range(first, first + _POINTS_OF_A_SLICE))
        last = points[-1]
        made.append(
            Measurement(
                configuration=_configuration(number),
                purpose=Purpose.STATISTICS,
                outcome=Outcome.PAUSED,
                training_seconds=last.training_seconds,
                step=last.step,
                samples=last.samples,
                charged_seconds=0.2 * _POINTS_OF_A_SLICE,
                curve=points,
            )
        )
    return tuple(made)


def fill(url: str, job: Path, num_probes: int) -> None:
    """Stores a study of a job with so many paused probes."""
    opened = open_job(job)
    study = StudyRecord(
        study_id=1,
        name=opened.job.name,
        job_name=opened.job.name,
        fingerprint=opened.fingerprint,
        job=opened.job.model_dump(mode="json"),
        created_at=time.time(),
    )
    records = [
        ProbeRecord(
            probe_id=number + 1,
            study_id=1,
            configuration=_configuration(number),
            purpose=Purpose.STATISTICS,
            trial_number=number,
            slices=_slices(number),
            outcome=Outcome.PAUSED,
            reason="",
            lease=None,
            created_at=float(number),
        )
        for number in range(num_probes)
    ]
    file = write_recovery([(study, records)], job.parent, job.stem)
    with open_storage(url) as store:
        store.recover(file)
    file.unlink()


#: Program that runs a command of Paceline and writes the status of its process to `status.txt` at the end.
#: The peak memory in `os.wait4` includes that of the parent process before it started the program.
_PROGRAM = """
import atexit, pathlib, sys
status = pathlib.Path("status.txt").absolute()
atexit.register(lambda: status.write_text(pathlib.Path("/proc/self/status").read_text()))
from cli import main
main()
"""


def cost(folder: Path, *arguments: str) -> tuple[float, float]:
    """Runs a command of Paceline; returns its CPU seconds and its peak memory in MB."""
    with (folder / "output.txt").open("w") as output:
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, *arguments],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 3):
        said = (folder / "output.txt").read_text()[-2000:]
        raise RuntimeError(f"{' '.join(arguments)} ended with {process.returncode}: {said}")
    lines = (folder / "status.txt").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    return usage.ru_utime + usage.ru_stime, peak / 1024


def measure(folder: Path, url: str, kind: str, job: Path, num_probes: int) -> dict[str, Any]:
    """Fills a database and returns what the commands cost on it."""
    fill(url, job, num_probes)
    # The first call creates the Optuna trials, as the study was not made by a search.
    cost(folder, "run", job.name, "--storage", url)
    row: dict[str, Any] = {"job": kind, "probes": num_probes}
    for command in ("status", "trials", "run"):
        seconds, megabytes = cost(folder, command, job.name, "--storage", url)
        row |= {f"{command}_cpu_seconds": seconds, f"{command}_peak_megabytes": megabytes}
    return row


@contextmanager
def _databases(folder: Path) -> Iterator[dict[str, str]]:
    urls = {"sqlite": f"sqlite:///{folder}/study.db"}
    if not os.environ.get(POSTGRES):
        yield urls
        return
    with postgres_database(os.environ[POSTGRES]) as url:
        yield {**urls, "postgresql": url}


def rows(
    sizes: Sequence[int], databases: Sequence[str] = (), kinds: Sequence[str] = tuple(_JOBS)
) -> list[dict[str, Any]]:
    """Measures databases, jobs and sizes; the costs of a study with one probe are subtracted.

    Args:
        sizes: Numbers of probes.
        databases: Databases to measure; empty for all that are available.
        kinds: Kinds of jobs to measure.
    """
    found = []
    for size in (1, *sizes):
        for kind in kinds:
            with tempfile.TemporaryDirectory() as name, _databases(Path(name)) as urls:
                for database, url in urls.items():
                    if databases and database not in databases:
                        continue
                    job = write_jobs(Path(name))[kind]
                    row = {"database": database, **measure(Path(name), url, kind, job, size)}
                    print(json.dumps(row), file=sys.stderr)
                    found.append(row)
    least = {(row["database"], row["job"]): row for row in found if row["probes"] == 1}
    for row in found:
        first = least[row["database"], row["job"]]
        if row is not first:
            row |= {key: row[key] - first[key] for key in row if key.endswith(("_seconds", "_megabytes"))}
    return found


def main(
    probes: Annotated[list[int] | None, typer.Option(help="Number of probes; repeatable.")] = None,
    database: Annotated[list[str] | None, typer.Option(help="sqlite or postgresql; repeatable.")] = None,
    job: Annotated[list[str] | None, typer.Option(help="recorded or command; repeatable.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Measures what `status`, `trials` and `run` cost beyond a study with one probe."""
    found = rows(probes or NUM_PROBES, database or (), job or tuple(_JOBS))
    if as_json:
        print(json.dumps(found, indent=1))
        return
    print("1 probe: all that the commands cost; more probes: the difference to this")
    print("database    job       probes  status CPU s  trials CPU s  run CPU s  run peak MB")
    for row in found:
        print(
            f"{row['database']:10}  {row['job']:8}  {row['probes']:6}  {row['status_cpu_seconds']:12.2f}  "
            f"{row['trials_cpu_seconds']:12.2f}  {row['run_cpu_seconds']:9.1f}  "
            f"{row['run_peak_megabytes']:11.0f}"
        )


if __name__ == "__main__":
    typer.run(main)
