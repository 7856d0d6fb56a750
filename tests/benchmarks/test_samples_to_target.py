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

from benchmarks import samples_to_target
from benchmarks.batch_problems import (
    LARGEST_FITTED,
    Problem,
    mlperf_problems,
    pollux_problems,
    steplaw_problems,
    tuned,
    with_early_noise,
)
from benchmarks.mlperf_tables import read_workloads
from benchmarks.pollux_tables import read_runs
from benchmarks.samples_to_target import RECORDINGS, predict
from benchmarks.steplaw_tables import read_losses, sequences_to
from tuner.analytic.samples_model import RatePrior
from tuner.search import beliefs

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = ("app", "batch_size", "epoch", "iteration", "progress", "metric", "grad_sqr", "grad_var")
BATCHES = (100, 200, 400, 800, 1600)
STEPLAW_BATCHES = (32, 64, 128, 256, 512, 1024, 2048)
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


def sequences_by_law(batch: float) -> float:
    """A U in the batch with its minimum near 180 sequences."""
    return 1e6 * (1 + batch / 1000 + (60 / batch) ** 2)


def write_steplaw(path: Path) -> Path:
    """Final losses 2 + (sequences / what the batch needs)^-0.28, each at a good and at a bad rate."""
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["parameters", "tokens", "batch_tokens", "learning_rate", "steps", "loss"])
        for batch in STEPLAW_BATCHES:
            for budget in (5e5, 2e6, 8e6, 32e6):
                loss = 2 + (budget / sequences_by_law(batch)) ** -0.28
                for rate, worse in ((1e-3, 0.0), (1e-2, 0.3)):
                    table.writerow(
                        [int(1e8), budget * 2048, batch * 2048, rate, int(budget / batch), loss + worse]
                    )
    return path


def test_sequences_to_a_loss_are_those_of_the_best_rate(tmp_path: Path) -> None:
    [losses] = read_losses(write_steplaw(tmp_path / "s.csv")).values()
    found = sequences_to(losses, 2.7)
    assert set(found) == set(STEPLAW_BATCHES)
    for batch, sequences in found.items():
        assert sequences == pytest.approx(0.7 ** (-1 / 0.28) * sequences_by_law(batch), rel=1e-6)


def test_a_batch_that_never_has_the_loss_is_left_out(tmp_path: Path) -> None:
    [losses] = read_losses(write_steplaw(tmp_path / "s.csv")).values()
    easiest = 2 + (32e6 / sequences_by_law(256)) ** -0.28
    assert 2048 not in sequences_to(losses, easiest + 1e-3)


def test_step_law_fits_small_batches_and_asks_for_large_ones(tmp_path: Path) -> None:
    problems = list(steplaw_problems(write_steplaw(tmp_path / "s.csv")))
    assert len(problems) == 5
    for problem in problems:
        assert {run.configuration.batch_size for run in problem.fitted} == {32, 64, 128, 256}
        assert all(batch > LARGEST_FITTED for batch in problem.batch_sizes)
        for row in predict(problem):
            # The noise scale is expected at 2,048; the law has 1,000, and four small batches hardly tell.
            assert row.factor < 1.4
            assert row.covered


def test_predictions_are_those_of_the_model_that_a_search_fits(tmp_path: Path) -> None:
    assert samples_to_target.fit_samples is beliefs.fit_samples
    problem = next(iter(mlperf_problems(write_mlperf(tmp_path / "m.csv"))))
    prior = RatePrior(
        log_rate=0.0, sd=2.0, batch_size=400.0, exponent=0.5, epoch_samples=1e6, largest_batch_size=1600.0
    )
    model = beliefs.fit_samples(problem.fitted, prior)
    rows = list(predict(problem))
    mean, _ = model.log_samples([tuned(row.batch_size) for row in rows])
    np.testing.assert_allclose([row.predicted * problem.unit for row in rows], np.exp(mean))


def test_a_list_of_predictions_is_printed(tmp_path: Path) -> None:
    tables = ["--pollux", write_pollux(tmp_path / "p.csv"), "--mlperf", write_mlperf(tmp_path / "m.csv")]
    tables += ["--steplaw", write_steplaw(tmp_path / "s.csv")]
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
    assert {row["batch_size"] for row in rows if row["source"] != "steplaw"} == {800, 1600}
    assert {row["batch_size"] for row in rows if row["source"] == "steplaw"} == {512, 1024, 2048}
    assert all(row["lower"] < row["predicted"] < row["upper"] for row in rows)


def test_nothing_after_the_first_quarter_is_seen_of_the_noise(tmp_path: Path) -> None:
    run = read_runs(write_pollux(tmp_path / "p.csv"))["cifar10"][100]
    samples = 20 * 100_000.0
    changed = write_pollux(tmp_path / "q.csv", lambda epoch: 100.0 * epoch if epoch <= 5 else 1e-3)
    other = read_runs(changed)["cifar10"][100]
    seen, unseen = with_early_noise(run, samples).noise, with_early_noise(other, samples).noise
    assert seen == unseen
    assert len(seen) == 5
    assert all(statistic.samples <= samples / 4 for statistic in seen)


def test_a_target_that_a_large_batch_never_reaches_is_predicted_and_left_unmeasured(tmp_path: Path) -> None:
    path = write_pollux(tmp_path / "p.csv")
    lines = path.read_text().splitlines()
    short = [line for line in lines if not (line.startswith("cifar10,1600") and int(line.split(",")[2]) > 9)]
    path.write_text("\n".join(short) + "\n")
    rows = [row for problem in pollux_problems(path) for row in predict(problem)]
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
def test_large_batches_are_predicted_within_twelve_per_cent_and_intervals_cover() -> None:
    rows = [row for problem in recorded_problems() for row in predict(problem)]
    assert len(rows) == 59
    assert np.median([row.error for row in rows]) < 0.12
    assert 0.85 <= np.mean([row.covered for row in rows]) <= 0.98


@recorded
def test_step_law_s_large_batches_are_predicted_within_a_factor_of_one_tenth() -> None:
    rows = [row for p in steplaw_problems(RECORDINGS / "steplaw-dense.csv") for row in predict(p)]
    unseen = [row for row in rows if row.is_unseen]
    assert {row.workload for row in unseen} == {"268M", "537M", "1074M"}
    for found in (rows, unseen):
        assert np.median([row.factor for row in found]) < 1.10
        assert np.mean([row.covered for row in found]) >= 0.85
