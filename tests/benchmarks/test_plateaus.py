"""The benchmark of plateaus: which prefixes count, and what it fits and judges."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from benchmarks.plateaus import (
    Prefixes,
    chances,
    judged,
    log_loss,
    logistic,
    main,
    prefixes_of,
    reliability,
    workload_of,
)
from search_spaces import Configuration
from tuner.recordings.file import write_recording
from tuner.recordings.recording import RecordedRun, Recording


def write(path: Path, lasts: list[float], *, num_scores: int = 20, sign: float = 1.0) -> Path:
    """A recording whose runs approach a last value each; the target is 0.9, or -0.9 where less is better."""
    steps = np.unique(np.ceil(np.geomspace(10, 10_000, num_scores)))
    runs = tuple(
        RecordedRun(
            configuration=Configuration(nodes=1, batch_size=32, learning_rate=0.01 * (place + 1)),
            step_seconds=0.01,
            curve=np.stack([0.01 * steps, steps, sign * last * (1 - np.exp(-steps / 3_000))], axis=1),
            end=None if last > 0.95 else "one pass",
        )
        for place, last in enumerate(lasts)
    )
    recording = Recording(
        name="made", metric="value", maximize=sign > 0, target=sign * 0.9, runs=runs, startup_seconds=1.0
    )
    write_recording(recording, path)
    return path


def test_recordings_of_one_training_with_other_clocks_are_one_workload() -> None:
    names = ["bank-cnn-quick", "bank-cnn-slow", "bank-cnn", "trimtuner-rnn"]
    assert [workload_of(Path(f"{name}.jsonl.gz")) for name in names] == ["bank-cnn"] * 3 + ["trimtuner-rnn"]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_runs_that_arrive_and_runs_that_never_do_are_distinguished(tmp_path: Path, sign: float) -> None:
    arriving = prefixes_of([write(tmp_path / "a.jsonl.gz", [1.2, 1.3], sign=sign)])
    never = prefixes_of([write(tmp_path / "b.jsonl.gz", [0.5, 0.6], sign=sign)])
    assert len(arriving.never) == 8
    assert not arriving.never.any()
    # Prefixes in the last half of a run that does not arrive are left out.
    assert 0 < len(never.never) <= 8
    assert never.never.all()
    assert arriving.features.shape == (8, 3)


def test_runs_that_never_arrive_count_only_where_they_are_recorded_further(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl.gz", [1.2, 0.5, 0.6, 0.7])
    twice, hundredfold = (prefixes_of([path], further=further) for further in (2.0, 100.0))
    assert hundredfold.never.sum() < twice.never.sum()
    assert (hundredfold.never == 0).sum() == (twice.never == 0).sum()


def test_recordings_without_long_runs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="none of 1 recordings"):
        prefixes_of([write(tmp_path / "a.jsonl.gz", [1.2], num_scores=4)])


def test_the_regression_finds_the_coefficients_that_made_the_outcomes() -> None:
    rng = np.random.default_rng(0)
    features = np.stack([np.ones(20_000), rng.normal(size=20_000), rng.uniform(size=20_000)], axis=1)
    truth = np.array([1.0, 0.7, -2.0])
    never = (rng.random(20_000) < chances(features, truth)).astype(float)
    np.testing.assert_allclose(logistic(features, never), truth, atol=0.15)


def test_a_workload_is_judged_by_a_regression_on_the_others() -> None:
    log_folds = np.tile([-1.0, 1.0], 50)
    prefixes = Prefixes(
        features=np.stack([np.ones(100), log_folds, np.zeros(100)], axis=1),
        never=np.concatenate([(log_folds > 0)[:50], (log_folds < 0)[50:]]).astype(float),
        stated=np.full(100, 0.5),
        workloads=np.repeat(["one", "other"], 50),
    )
    for workload in judged(prefixes):
        # The other workload says the opposite, and half of both never arrive.
        assert workload.left_out is not None
        assert workload.left_out > 1.0
        assert workload.product == pytest.approx(math.log(2.0))
        assert workload.base_rate == pytest.approx(math.log(2.0))


def test_reliability_compares_stated_chances_with_shares() -> None:
    prefixes = Prefixes(
        features=np.ones((4, 3)),
        never=np.array([0.0, 1.0, 1.0, 1.0]),
        stated=np.array([0.12, 0.18, 0.95, 1.0]),
        workloads=np.repeat(["one"], 4),
    )
    low, high = reliability(prefixes)
    assert (low.num_prefixes, low.stated, low.never) == (2, pytest.approx(0.15), 0.5)
    assert (high.num_prefixes, high.stated, high.never) == (2, pytest.approx(0.975), 1.0)


def test_log_loss_is_that_of_the_chance_given_to_what_happened() -> None:
    never = np.array([1.0, 0.0])
    assert log_loss(never, np.array([0.8, 0.4])) == pytest.approx(-0.5 * (math.log(0.8) + math.log(0.6)))


def test_the_command_prints_coefficients_workloads_and_reliability(tmp_path: Path) -> None:
    write(tmp_path / "one-quick.jsonl.gz", [1.2, 1.1, 0.5])
    write(tmp_path / "two.jsonl.gz", [1.3, 0.6, 0.4])
    app = typer.Typer()
    app.command()(main)
    found = CliRunner().invoke(app, ["--recordings", str(tmp_path), "--json"])
    assert found.exit_code == 0
    result = json.loads(found.stdout)
    assert [workload["name"] for workload in result["workloads"]] == ["one", "two"]
    assert set(result["coefficients"]) == {"constant", "log_folds", "progress"}
    plain = CliRunner().invoke(app, ["--recordings", str(tmp_path)])
    assert plain.exit_code == 0
    assert "product: log odds = 3.70 +0.75 log f -4.20 progress" in plain.stdout
