from __future__ import annotations

import json
import math
import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.own_scripts import _plain, direct_difference, table, verdicts
from benchmarks.own_scripts_jobs.pretended import RECIPES, TRACE_VARIABLE, Score
from benchmarks.own_scripts_judge import advice, judged, readings
from benchmarks.own_scripts_runs import ScriptJob, StoredSlice, Tuning, batch_and_rate, train_directly
from search_spaces import Configuration
from tuner.domain.measurement import CurvePoint, Measurement, Outcome, Purpose
from tuner.job.loading import load_job

UNREACHABLE = {"plateau", "overfits"}
LATE = {"keras_fit", "progress_bar"}
RESUMABLE = {"csv_folders", "json_lines", "overfits"}

#: What a script prints or writes for its score number n from 1, with the rate 0.01 and 128 samples a batch.
SHOWN = {
    "epoch_line": "epoch {n:3d}/200  lr 0.01  test accuracy {value:.4f}\n",
    "percent": "[Epoch {before}] lr=0.01 | Acc@1: {percent:.2f}%\n",
    "keras_fit": " - val_accuracy: {value:.4f}\nEpoch {after}/200\n",
    "progress_bar": "it/s]INFO:train:step={step} ",
    "csv_folders": "{before},{last_step},,{value}",
    "json_lines": '{{"step": {step}, "samples": {samples}, "value": {value}}}\n',
    "step_in_epoch": "Epoch(val) [{n}][8/8]    accuracy/top1: {percent:.4f} ",
    "epoch_seconds": "{n:7d}  ",
    "plateau": "\x1b[1mepoch={n}\x1b[0m ",
    "overfits": "step {step}: train loss ",
}
#: Further along in the same line.
THEN = {
    "progress_bar": "acc={value:.4f}\n",
    "epoch_seconds": "  {value:11.4f}  ",
    "plateau": "val_acc=\x1b[32m{value:.4f}\x1b[0m\n",
    "overfits": ", val loss {value:.4f}\n",
}
BATCH, RATE, SEED = 128, 0.01, 5


def true_scores(name: str, number: int) -> list[Score]:
    scores = RECIPES[name].scores(BATCH, RATE, SEED)
    return [next(scores) for _ in range(number)]


def run_until(script: ScriptJob, folder: Path, number: int, *, resume: bool = False) -> list[dict[str, Any]]:
    """Runs a script until it scored so often, ends it with SIGTERM, and returns the trace of its clock."""
    trace = folder / f"trace{int(resume)}.jsonl"
    trace.touch()
    script.copied(folder, SEED)
    command = script.command(BATCH, RATE, SEED, folder)
    if resume:
        command += script.job["workload"]["resume"].format(checkpoint=folder / "saved").split()
    with (folder / "output.txt").open("a") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, TRACE_VARIABLE: str(trace), "PACELINE_METRICS": str(folder / "metrics.txt")},
            stdout=output,
            stderr=output,
        )
        until = time.monotonic() + 20
        while trace.read_text().count("\n") <= number and time.monotonic() < until:
            assert process.poll() is None, (folder / "output.txt").read_text()
            time.sleep(0.01)
        time.sleep(0.05)  # what was scored is written a moment later
        process.terminate()
        process.wait(10)
    return [json.loads(line) for line in trace.read_text().splitlines()]


def written(script: ScriptJob, folder: Path) -> str:
    """All that a script printed or wrote for its reader."""
    files = [folder / "output.txt", folder / "metrics.txt", *sorted(folder.rglob("metrics.csv"))]
    return "".join(path.read_text() for path in files if path.exists())


def shown(name: str, number: int, score: Score) -> list[str]:
    fields = {
        "n": number,
        "before": number - 1,
        "after": number + 1,
        "step": score.step,
        "last_step": score.step - 1,
        "samples": score.samples,
        "value": score.value,
        "percent": 100 * score.value,
    }
    return [form[name].format(**fields) for form in (SHOWN, THEN) if name in form]


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_a_direct_run_reports_what_the_recipe_says_when_it_says(name: str, tmp_path: Path) -> None:
    script, scores = ScriptJob.named(name), true_scores(name, 2)
    trace = run_until(script, tmp_path, 2)
    assert trace[0] == {"step": 0, "value": None, "time": trace[0]["time"]}
    for score, line in zip(scores, trace[1:3], strict=True):
        assert (line["step"], line["value"]) == (score.step, score.value)
        assert line["time"] - trace[0]["time"] == pytest.approx(score.seconds, rel=0.05, abs=0.3)
    text = written(script, tmp_path)
    for number, score in enumerate(scores, start=1):
        for part in shown(name, number, score):
            assert part in text
            text = text[text.index(part) + (0 if name == "keras_fit" else len(part)) :]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(RESUMABLE))
def test_a_resumed_script_continues_the_same_curve(name: str, tmp_path: Path) -> None:
    script = ScriptJob.named(name)
    first = run_until(script, tmp_path, 1)
    second = run_until(script, tmp_path, 1, resume=True)
    before = len(first) - 1
    score = true_scores(name, before + 1)[-1]
    assert second[0]["step"] >= first[-1]["step"] > 0
    assert (second[1]["step"], second[1]["value"]) == (score.step, score.value)
    if name == "csv_folders":
        assert len(list(tmp_path.rglob("version_*/metrics.csv"))) == 2


def test_only_the_scripts_with_a_resume_key_resume() -> None:
    assert {name for name in RECIPES if "resume" in ScriptJob.named(name).job["workload"]} == RESUMABLE


@pytest.mark.parametrize("name", RECIPES)
def test_a_job_file_is_valid_and_its_budget_is_short(name: str, tmp_path: Path) -> None:
    script = ScriptJob.named(name)
    job = load_job(script.copied(tmp_path, 3))
    assert (job.name, job.seed) == (name, 3)
    assert 60 <= script.budget_seconds <= 90
    assert job.command is not None
    assert job.command.epoch_samples in (None, script.recipe.epoch_samples)


@pytest.mark.parametrize("name", RECIPES)
def test_targets_are_reached_by_the_scripts_that_can(name: str) -> None:
    script = ScriptJob.named(name)
    times = {pair: script.seconds_to_target(*pair, 0) for pair in script.grid()}
    baseline = script.seconds_to_target(*script.baseline, 0)
    if name in UNREACHABLE:
        assert all(map(math.isinf, [*times.values(), baseline]))
    else:
        assert min(times.values()) < 15 < script.budget_seconds
        assert 1.5 * min(times.values()) < baseline < 40
        assert times[script.best_of_grid(0)] == min(times.values())


@pytest.mark.parametrize("name", sorted(LATE))
def test_late_scores_stay_near_chance_for_most_of_the_samples(name: str) -> None:
    script = ScriptJob.named(name)
    recipe, target = script.recipe, script.job["goal"]["target"]
    assert target / recipe.best == pytest.approx(0.98, abs=0.002)
    scores = list(recipe.scores(*script.baseline, 0))
    end = next(score.samples for score in scores if script.passes(score.value))
    rise = [(s.samples / end, (s.value - recipe.start) / (recipe.best - recipe.start)) for s in scores]
    assert max(share for place, share in rise if place <= 0.62) < 0.1
    assert min(share for place, share in rise if place >= 1) > 0.95


def test_an_overfitting_loss_turns_back() -> None:
    recipe = RECIPES["overfits"]
    values = [score.value for score in recipe.scores(64, 0.003, 0)]
    assert min(values) < 2 < values[-1]


def test_scores_depend_on_the_seed_by_little_noise() -> None:
    recipe = RECIPES["epoch_line"]
    values = {recipe.score(100, 64, 0.1, seed) for seed in range(5)}
    assert len(values) > 1
    assert max(values) - min(values) < 8 * recipe.noise


def test_training_directly_measures_the_wall_clock_up_to_the_target() -> None:
    script = easy("json_lines", target=5.0)
    measured = train_directly(script, 64, 0.003, 0, limit=20)
    assert measured == pytest.approx(script.seconds_to_target(64, 0.003, 0), rel=0.05, abs=0.3)


def test_a_direct_training_that_does_not_arrive_is_ended() -> None:
    assert train_directly(easy("json_lines", target=-5.0), 64, 0.003, 0, limit=0.5) is None


def easy(name: str, target: float) -> ScriptJob:
    script = ScriptJob.named(name)
    return replace(script, job={**script.job, "goal": {**script.job["goal"], "target": target}})


SCRIPT = ScriptJob.named("percent")
CONFIGURATION = Configuration(nodes=1, batch_size=64, learning_rate=0.1, strategy="all_reduce")


def right_points(number: int) -> list[CurvePoint]:
    scores = SCRIPT.recipe.scores(*batch_and_rate(CONFIGURATION), 0)
    found = [next(scores) for _ in range(number)]
    return [
        CurvePoint(training_seconds=s.seconds + 0.1, step=s.step, samples=s.samples, value=s.value)
        for s in found
    ]


def made_slice(points: Sequence[CurvePoint] = (), *, charged: float = 5.0, probe: int = 1) -> StoredSlice:
    measurement = Measurement(
        configuration=CONFIGURATION,
        purpose=Purpose.TRAINING,
        outcome=Outcome.PAUSED,
        curve=tuple(points),
        samples=points[-1].samples if points else 0,
        charged_seconds=charged,
    )
    return StoredSlice(probe=probe, finished_at=0.0, measurement=measurement)


def made_tuning(*slices: StoredSlice, answered: bool = True) -> Tuning:
    answer = {
        "choice": {
            "configuration": {"batch_size": 64, "learning_rate": 0.1},
            "seconds": {"median": 7.0},
            "probability_of_reaching": 0.9,
        },
        "verified": {"reached": True},
    }
    return Tuning(
        script="percent",
        seed=0,
        exit_code=0,
        wall_seconds=80.0,
        answer=answer if answered else None,
        slices=slices,
    )


def failed_bars(tuning: Tuning) -> set[str]:
    return {bar for bar, good in judged(SCRIPT, tuning)["bars"].items() if not good}


def test_a_right_reading_passes_every_bar() -> None:
    points = right_points(6)
    row = judged(SCRIPT, made_tuning(made_slice(points[:3]), made_slice(points[3:])))
    assert all(row["bars"].values())
    assert row["largest_clock_error"] == pytest.approx(0.1)
    assert (row["num_scores"], row["num_slices"]) == (6, 2)
    assert (row["stated_seconds"], row["stated_chance"], row["claims_arrival"]) == (7.0, 0.9, True)


def test_percent_read_as_a_fraction_has_a_wrong_unit() -> None:
    points = [replace(point, value=100 * point.value) for point in right_points(4)]
    row = judged(SCRIPT, made_tuning(made_slice(points)))
    assert row["wrong_units"] == 4
    assert not row["bars"]["unit"]


def test_epochs_from_0_read_as_those_from_1_are_in_a_wrong_place() -> None:
    epoch = SCRIPT.recipe.epoch_samples
    points = [replace(point, samples=point.samples - epoch) for point in right_points(4)]
    assert failed_bars(made_tuning(made_slice(points))) == {"first"}
    # So is a curve whose first epoch was dropped.
    assert failed_bars(made_tuning(made_slice(right_points(4)[1:]))) == {"first"}


@pytest.mark.parametrize("factor", [0.1, 0.8, 1.3])
def test_seconds_that_differ_from_the_truth_are_a_wrong_clock(factor: float) -> None:
    points = [replace(p, training_seconds=factor * p.training_seconds) for p in right_points(6)]
    assert failed_bars(made_tuning(made_slice(points))) == {"clock"}


def test_a_place_within_a_batch_and_a_clock_within_start_up_are_right() -> None:
    points = [
        replace(p, samples=p.samples + 60, training_seconds=p.training_seconds + 0.15)
        for p in right_points(3)
    ]
    assert failed_bars(made_tuning(made_slice(points))) == set()


def test_only_the_first_score_of_each_probe_is_a_first_score() -> None:
    points = right_points(4)
    tuning = made_tuning(made_slice(points[:2]), made_slice(points, probe=2), made_slice(points[2:]))
    assert [reading.is_first for reading in readings(SCRIPT, tuning)] == [True, *3 * [False]] * 2


def test_a_search_that_read_nothing_is_not_right() -> None:
    assert failed_bars(made_tuning(made_slice(), answered=False)) == {"unit", "first", "clock"}
    assert failed_bars(made_tuning()) == {"answer", "unit", "first", "clock"}


def test_a_silent_slice_counts_unless_it_is_the_first_or_ended_by_the_budget() -> None:
    points = right_points(4)
    silent, left = made_slice(probe=2), SCRIPT.budget_seconds - 10
    assert failed_bars(made_tuning(silent, made_slice(points))) == set()
    assert failed_bars(made_tuning(made_slice(points), silent)) == {"slices"}
    ended = made_slice(probe=2, charged=left)
    assert failed_bars(made_tuning(made_slice(points, charged=10), ended)) == set()
    # A slice that gets no further than the one before has reported nothing new.
    again = replace(made_slice(), measurement=replace(made_slice(points).measurement, curve=()))
    assert failed_bars(made_tuning(made_slice(points), again)) == {"slices"}


@pytest.mark.parametrize(("beyond", "failed"), [(6.7, set()), (6.9, {"budget"})])
def test_an_overrun_of_the_grace_and_5_percent_is_allowed(beyond: float, failed: set[str]) -> None:
    tuning = made_tuning(made_slice(right_points(4), charged=SCRIPT.budget_seconds + beyond))
    assert failed_bars(tuning) == failed
    assert judged(SCRIPT, tuning)["overrun_seconds"] == pytest.approx(beyond)


def test_advice_compares_the_answer_with_the_truth_of_all_three() -> None:
    found = advice(SCRIPT, made_tuning(made_slice(right_points(4))))
    seconds = SCRIPT.seconds_to_target(64, 0.1, 0)
    assert found["answer_seconds"] == seconds
    assert found["answer_over_baseline"] == seconds / SCRIPT.seconds_to_target(32, 0.02, 0) < 1
    assert found["answer_over_grid"] >= 1
    assert advice(SCRIPT, made_tuning(answered=False))["answer_over_grid"] is None


def made_row(**tuned: Any) -> dict[str, Any]:
    tuning = made_tuning(made_slice(right_points(3)))
    row = {**judged(SCRIPT, tuning), **advice(SCRIPT, tuning), "direct": []}
    return {**row, **tuned}


def test_the_tables_show_what_failed_and_one_bad_seed_fails_a_script() -> None:
    bad = made_row(bars={**made_row()["bars"], "unit": False}, exit_code=None)
    lines = table([made_row(), bad])
    assert lines[1].split()[8:11] == ["ok", "ok", "ok"]
    assert lines[2].split()[2] == "hung"
    assert lines[2].split()[8:11] == ["WRONG", "ok", "ok"]
    assert verdicts([made_row(), bad])[1].split()[:7] == ["percent", *3 * ["pass"], "FAIL", *2 * ["pass"]]


def test_direct_runs_that_differ_from_the_recipe_are_shown() -> None:
    run = {"computed_seconds": 10.0, "measured_seconds": 10.5}
    assert direct_difference(made_row(direct=[run])) == pytest.approx(0.05)
    lost = {"computed_seconds": 10.0, "measured_seconds": None}
    assert direct_difference(made_row(direct=[run, lost])) == math.inf
    assert direct_difference(made_row()) is None


def test_json_says_never_for_an_infinite_time() -> None:
    assert _plain({"a": (1.0, math.inf)}) == {"a": [1.0, "never"]}
