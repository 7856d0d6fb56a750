"""The benchmark of curve shapes: its studies, its measures, and the networks that it trains."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from benchmarks import curve_shapes
from benchmarks.curve_shapes import (
    Row,
    Workload,
    judged,
    main,
    means_of,
    network_workloads,
    recorded_workloads,
    targets_of,
    template_forecasts,
)
from benchmarks.curve_shapes_networks import BATCH_SIZES, TASKS, Data, Task, record, score
from benchmarks.curve_shapes_studies import FirstPart, studies_of
from search_spaces import Configuration
from tuner.recordings.file import write_recording
from tuner.recordings.recording import RecordedRun, Recording

TARGET = 0.9
#: Samples of the scores of all curves here.
SAMPLES = 32.0 * np.unique(np.ceil(np.geomspace(10, 10_000, 40)))


def recording_of(lasts: Sequence[float], *, sign: float = 1.0, metric: str = "value") -> Recording:
    """Runs that approach a last value each, some faster; the target is 0.9, or -0.9 if less is better."""
    runs = tuple(
        RecordedRun(
            configuration=Configuration(nodes=1, batch_size=32, learning_rate=0.01 * (place + 1)),
            step_seconds=0.01,
            curve=np.stack(
                [SAMPLES, SAMPLES / 32, sign * last * (1 - np.exp(-SAMPLES / (20_000 * (place + 1))))], axis=1
            ),
        )
        for place, last in enumerate(lasts)
    )
    return Recording(name="made", metric=metric, maximize=sign > 0, target=sign * TARGET, runs=runs)


def arrivals(recording: Recording) -> list[float]:
    """Log samples of the first score at the target, of the runs that have one."""
    sign = 1.0 if recording.maximize else -1.0
    past = [np.flatnonzero(sign * run.curve[:, 2] >= TARGET) for run in recording.runs]
    return [math.log(SAMPLES[found[0]]) for found in past if len(found)]


def studies(recording: Recording, num: int = 60) -> list[list[FirstPart]]:
    return list(studies_of(recording, num, np.random.default_rng(0)))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_runs_of_a_study_stop_before_they_arrive(sign: float) -> None:
    recording = recording_of([1.2, 1.1, 1.3, 0.5, 0.6], sign=sign)
    parts = [part for study in studies(recording) for part in study]
    arriving = [part for part in parts if part.log_samples_to_target is not None]
    # What a run needs is what its whole curve shows, and its first part ends before that.
    assert {part.log_samples_to_target for part in arriving} == set(arrivals(recording))
    assert all(math.log(part.samples[-1]) < (part.log_samples_to_target or 0.0) for part in arriving)
    assert all(part.progress.max() < 1.0 for part in parts)
    assert all(len(part.samples) == len(part.progress) >= 2 for part in parts)


def test_the_number_of_scores_of_a_first_part_is_log_uniform() -> None:
    recording = recording_of([1.2, 1.2, 1.2])
    lengths = np.array([len(part.samples) for study in studies(recording, 1_000) for part in study])
    # 26 to 32 scores are before the target. Of numbers log-uniform from 2 to 30, log 3 / log 15 are below 6.
    assert np.mean(lengths < 6) == pytest.approx(math.log(3) / math.log(15), abs=0.05)
    assert (lengths.min(), lengths.max()) == (2, 32)


def test_a_study_has_runs_that_arrive_and_not_always_others() -> None:
    counts = [
        (
            sum(part.log_samples_to_target is not None for part in study),
            sum(part.log_samples_to_target is None for part in study),
        )
        for study in studies(recording_of([1.2] * 9 + [0.5] * 5), 200)
    ]
    assert {arriving for arriving, _ in counts} == set(range(1, 8))
    assert {others for _, others in counts} == {0, 1, 2, 3}
    assert np.mean([others > 0 for _, others in counts]) == pytest.approx(0.7, abs=0.1)


@pytest.mark.parametrize("lasts", [[1.2, 1.2, 0.5], [0.5] * 6])
def test_there_is_no_study_where_too_few_runs_arrive(lasts: list[float]) -> None:
    assert studies(recording_of(lasts)) == []


def test_progress_of_a_known_metric_starts_within_its_bounds() -> None:
    recording = recording_of([0.95, 0.96, 0.97, 0.98], metric="accuracy")
    parts = [part for study in studies(recording) for part in study]
    # Accuracies start at 0 here; a start below that would show progress at the first score already.
    assert max(part.progress[0] for part in parts) < 0.05


def workloads() -> list[Workload]:
    return [
        Workload(kind="recordings", family=family, recording=recording_of(lasts))
        for family, lasts in (("one", [1.2, 1.3, 1.1]), ("other", [1.4, 1.2, 1.1, 0.5]))
    ]


def exact(study: Sequence[FirstPart]) -> list[tuple[float, float]]:
    return [(part.log_samples_to_target or 0.0, 1.0) for part in study]


def test_exact_forecasts_have_no_error_and_the_log_loss_of_their_density() -> None:
    for row in judged(workloads(), 10, exact):
        assert (row.error, row.bias, row.coverage) == (0.0, 0.0, 1.0)
        assert row.log_loss == pytest.approx(0.5 * math.log(2 * math.pi))
        assert row.num_predictions >= 10


@pytest.mark.parametrize(("sd", "coverage"), [(1e3, 1.0), (1e-3, 0.0)])
def test_coverage_is_the_share_of_intervals_that_hold_the_truth(sd: float, coverage: float) -> None:
    def early(study: Sequence[FirstPart]) -> list[tuple[float, float]]:
        return [(mean - 0.5, sd) for mean, _ in exact(study)]

    for row in judged(workloads(), 10, early):
        assert [row.bias, row.error] == pytest.approx([0.5, 0.5])
        assert row.coverage == coverage


def test_families_are_judged_alike_whatever_the_other_families_are() -> None:
    one, other = workloads()
    assert judged([one, other], 5) == judged([one], 5) + judged([other], 5)


def test_a_family_without_predictions_is_left_out() -> None:
    plateau = Workload(kind="recordings", family="plateau", recording=recording_of([0.5] * 5))
    assert [row.family for row in judged([*workloads(), plateau], 3)] == ["one", "other"]


def test_the_template_forecasts_later_than_what_was_seen() -> None:
    for study in studies(recording_of([1.2, 1.1, 1.3, 0.5]), 20):
        for part, (mean, sd) in zip(study, template_forecasts(study), strict=True):
            assert mean > math.log(part.samples[-1])
            assert 0.0 < sd < 3.0


def test_means_are_over_the_families_of_a_kind() -> None:
    def row(kind: str, family: str, num: int, error: float) -> Row:
        return Row(
            kind=kind,
            family=family,
            num_predictions=num,
            error=error,
            bias=-error,
            log_loss=2 * error,
            coverage=error,
        )

    rows = [row("networks", "a", 1, 0.2), row("networks", "b", 99, 0.6), row("made scripts", "c", 5, 0.3)]
    networks, made = means_of(rows)
    # Each family counts alike, whatever its number of predictions.
    assert (networks.kind, networks.num_predictions) == ("networks", 100)
    found = (networks.error, networks.bias, networks.log_loss, networks.coverage)
    assert found == pytest.approx((0.4, -0.4, 0.8, 0.4))
    assert made == replace(rows[2], family="")


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_targets_are_quantiles_of_the_best_values(sign: float) -> None:
    recording = recording_of(np.linspace(0.5, 1.2, 24).tolist(), sign=sign)
    bests = np.array([(sign * run.curve[:, 2]).max() for run in recording.runs])
    targets = sign * np.array(targets_of(recording))
    assert [float(np.mean(bests >= target)) for target in targets] == pytest.approx(
        [0.65, 0.4, 0.15], abs=0.04
    )
    assert not set(targets) & set(bests)


def tiny_data() -> Data:
    inputs = torch.randn(600, 4, generator=torch.Generator().manual_seed(0))
    classes = (inputs[:, 0] > 0).long()
    return Data(inputs[:512], classes[:512], inputs[512:], classes[512:])


TINY = Task(
    name="tiny",
    metric="accuracy",
    data=tiny_data,
    model=lambda: torch.nn.Linear(4, 2),
    learning_rates=(0.01, 0.1),
    num_epochs=8,
)


@pytest.mark.slow
def test_every_configuration_of_a_network_is_trained_to_its_end() -> None:
    num_threads = torch.get_num_threads()
    recording = record(TINY)
    assert torch.get_num_threads() == num_threads
    grid = {(run.configuration["batch_size"], run.configuration["learning_rate"]) for run in recording.runs}
    assert grid == {(batch_size, rate) for batch_size in BATCH_SIZES for rate in (0.01, 0.1)}
    for run in recording.runs:
        samples = run.curve[:, 1] * run.configuration.batch_size
        np.testing.assert_array_equal(samples, 512 * np.arange(1, len(samples) + 1))
        assert run.end == ("every class is right" if run.curve[-1, 2] == 1.0 else "8 epochs")
    assert recording.target == max(run.curve[:, 2].max() for run in recording.runs) > 0.9


@pytest.mark.slow
def test_a_training_can_be_repeated_and_ends_where_it_diverges() -> None:
    task = replace(
        TINY,
        metric="loss",
        data=lambda: Data(*(t.double().float() for t in tiny_data())),
        model=lambda: torch.nn.Linear(4, 1),
        learning_rates=(0.01, 1e30),
    )
    first, again = record(task), record(task)
    for run, other in zip(first.runs, again.runs, strict=True):
        np.testing.assert_array_equal(run.curve[:, 1:], other.curve[:, 1:])
        assert np.isfinite(run.curve).all()
        diverges = run.configuration["learning_rate"] == 1e30
        assert run.end == ("the loss is not finite" if diverges else "8 epochs")
    assert first.target == min(run.curve[:, 2].min() for run in first.runs if len(run.curve))


@pytest.mark.parametrize("task", TASKS, ids=[task.name for task in TASKS])
def test_an_untrained_network_scores_as_chance_does(task: Task) -> None:
    torch.manual_seed(0)
    data = task.data()
    model = task.model()
    assert model(data.inputs[:3]).shape[0] == 3
    if task.metric == "accuracy":
        assert score(task, model, data) < 0.65
    else:
        # A network that says nearly nothing has the variance of the targets as its loss.
        assert score(task, model, data) == pytest.approx(float(data.validation_targets.var()), rel=0.2)


def test_stored_curves_of_networks_are_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curve_shapes, "TASKS", (TINY,))
    trained = list(network_workloads(tmp_path / "curves"))
    monkeypatch.setattr(curve_shapes, "record", lambda task: pytest.fail(f"{task.name} was trained again"))
    stored = list(network_workloads(tmp_path / "curves"))
    assert len(trained) == len(stored) == 3
    for one, other in zip(trained, stored, strict=True):
        assert (one.kind, one.family) == ("networks", "tiny")
        assert one.recording.target == other.recording.target
        for run, again in zip(one.recording.runs, other.recording.runs, strict=True):
            np.testing.assert_array_equal(run.curve, again.curve)


def test_recordings_of_one_training_with_other_clocks_are_one_family(tmp_path: Path) -> None:
    for name in ("net-quick", "net-slow"):
        write_recording(recording_of([1.2, 1.3, 1.1]), tmp_path / f"{name}.jsonl.gz")
    assert [workload.family for workload in recorded_workloads(tmp_path)] == ["net", "net"]


def test_the_command_prints_families_and_the_means_of_kinds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curve_shapes, "TASKS", (TINY,))
    write_recording(recording_of([1.2, 1.3, 1.1]), tmp_path / "one.jsonl.gz")
    app = typer.Typer()
    app.command()(main)
    few = ["--recordings", str(tmp_path), "--made", "2", "--studies", "3"]
    found = CliRunner().invoke(app, [*few, "--networks", "--json"])
    assert found.exit_code == 0
    assert "training tiny" in found.stderr
    result = json.loads(found.stdout)
    kinds = [row["kind"] for row in result["kinds"]]
    assert [kind for kind in kinds if kind != "networks"] == ["recordings", "made scripts"]
    assert {"one", "early", "power"} <= {row["family"] for row in result["families"]}
    plain = CliRunner().invoke(app, few)
    assert plain.exit_code == 0
    assert plain.stdout.splitlines()[0].split() == [
        *("kind", "family", "predictions", "error", "bias", "log", "loss", "coverage")
    ]
    assert [line.split()[0] for line in plain.stdout.splitlines()[-2:]] == ["recordings", "made"]


def test_an_absent_folder_of_recordings_is_noted_and_skipped(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(main)
    flags = ["--recordings", str(tmp_path / "absent"), "--made", "2", "--studies", "2", "--json"]
    found = CliRunner().invoke(app, flags)
    assert found.exit_code == 0
    assert "no recordings in" in found.stderr
    assert [row["kind"] for row in json.loads(found.stdout)["kinds"]] == ["made scripts"]
