"""The benchmark of samples to target: what it reads, what it may see, and what it reaches on the tables."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.batch_problems import Problem, early_noise, mlperf_problems, pollux_problems
from benchmarks.mlperf_tables import read_workloads
from benchmarks.models.batch_scaling import PRIORS
from benchmarks.pollux_tables import read_runs
from benchmarks.samples_to_target import RECORDINGS, leave_one_out, predict

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = ("app", "batch_size", "epoch", "iteration", "progress", "metric", "grad_sqr", "grad_var")
BATCHES = (100, 200, 400, 800, 1600)
KEYS = {"source", "workload", "batch_size", "predicted", "measured", "lower", "upper"}

recorded = pytest.mark.skipif(
    not (RECORDINGS / "mlperf-convergence.csv").is_file(),
    reason=f"no recorded tables of convergence at {RECORDINGS}",
)


def write_pollux(path: Path, noise: Callable[[float], float] = lambda epoch: 100.0 * epoch) -> Path:
    """cifar10 with a metric that follows progress, and steps that follow the noise scale."""
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for batch in BATCHES:
            steps = 0.0
            for epoch in range(1, 41):
                scale = noise(epoch)
                steps += 1000 * (scale + batch) / (scale + 100) * 100 / batch
                table.writerow(
                    ["cifar10", batch, epoch, steps, 1000 * epoch, 0.96 - 0.9 / epoch, 1.0, scale / 100]
                )
    return path


def write_mlperf(path: Path) -> Path:
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["version", "benchmark", "batch_size", "raw"])
        for batch in BATCHES:
            mean = 20 * (1 + batch / 4000)
            table.writerow(["1.0.0", "made", batch, json.dumps([mean - 1, mean, mean + 1])])
        table.writerow(["1.1.0", "made", 800, json.dumps([24.0, 25.0])])
        table.writerow(["2.0.0", "made", 800, json.dumps([8.0, 9.0])])
    return path


def test_a_list_of_predictions_is_printed(tmp_path: Path) -> None:
    tables = ["--pollux", write_pollux(tmp_path / "p.csv"), "--mlperf", write_mlperf(tmp_path / "m.csv")]
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.samples_to_target", "--json", *map(str, tables)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    rows = json.loads(ended.stdout)
    assert all(set(row) >= KEYS for row in rows)
    assert {row["batch_size"] for row in rows} == {800, 1600}
    assert all(row["lower"] < row["predicted"] < row["upper"] for row in rows)


def test_nothing_after_the_first_quarter_is_seen_of_the_noise(tmp_path: Path) -> None:
    runs = list(read_runs(write_pollux(tmp_path / "p.csv"))["cifar10"].values())[:3]
    changed = write_pollux(tmp_path / "q.csv", lambda epoch: 100.0 * epoch if epoch <= 5 else 1e-3)
    others = list(read_runs(changed)["cifar10"].values())[:3]
    np.testing.assert_array_equal(
        early_noise(runs, 20 * 100_000.0).inverse, early_noise(others, 20 * 100_000.0).inverse
    )


def test_a_target_that_a_large_batch_never_reaches_is_predicted_and_left_unmeasured(tmp_path: Path) -> None:
    path = write_pollux(tmp_path / "p.csv")
    lines = path.read_text().splitlines()
    short = [line for line in lines if not (line.startswith("cifar10,1600") and int(line.split(",")[2]) > 9)]
    path.write_text("\n".join(short) + "\n")
    rows = [row for problem in pollux_problems(path) for row in predict(problem, PRIORS)]
    assert {row.batch_size for row in rows if row.measured is None} == {1600}
    assert all(row.predicted > 0 for row in rows)


def test_a_version_that_contradicts_earlier_ones_begins_a_workload(tmp_path: Path) -> None:
    found = read_workloads(write_mlperf(tmp_path / "m.csv"))
    assert set(found) == {"made", "made v2.0.0"}
    assert len(found["made"][800]) == 5
    assert list(found["made v2.0.0"]) == [800]


def recorded_problems() -> list[Problem]:
    return [
        *pollux_problems(RECORDINGS / "pollux-convergence.csv"),
        *mlperf_problems(RECORDINGS / "mlperf-convergence.csv"),
    ]


@recorded
def test_large_batches_are_predicted_within_fifteen_per_cent_and_intervals_cover() -> None:
    rows = [row for problem in recorded_problems() for row in predict(problem, PRIORS)]
    assert np.median([row.error for row in rows]) < 0.15
    assert 0.85 <= np.mean([row.covered for row in rows]) <= 0.95


@recorded
@pytest.mark.slow
def test_priors_chosen_without_a_workload_predict_it_within_fifteen_per_cent() -> None:
    rows = leave_one_out(recorded_problems())
    assert np.median([row.error for row in rows]) < 0.15
    # Nine workloads, whose batches miss together: known to about 5%.
    assert 0.8 <= np.mean([row.covered for row in rows]) <= 0.97
