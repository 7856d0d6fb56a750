"""The benchmark of made scripts: its truth, its prober, its figures, and that it can be repeated."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from benchmarks import made_scripts
from benchmarks.made_scripts import (
    Searched,
    fit,
    intervals,
    main,
    outcomes,
    reliability,
    report,
    script_prober,
    searched,
    totals,
)
from benchmarks.made_scripts_curves import SHAPES, MadeScript, configurations, made_script, short_script
from search_spaces import Configuration
from tuner.domain.ledger import PredictedAgainstMeasured, PredictionRecord
from tuner.domain.measurement import Outcome, Purpose
from tuner.probes import Until
from tuner.search.policy import StopKind

#: A power law whose script resumes, and one whose script starts over.
RESUMING, REPEATING = 25, 31


def simulated_seconds(script: MadeScript, configuration: Configuration) -> float:
    """Training seconds to target by running through the epochs one score at a time."""
    if configuration.learning_rate > script.edge_rate:
        return math.inf
    recipe, batch = script.recipe, configuration.batch_size
    num_scores = recipe.max_epochs * script.scores_per_epoch
    interval = recipe.epoch_samples / script.scores_per_epoch
    values = script.values(configuration, interval * np.arange(1.0, num_scores + 1.0))
    seconds, step_seconds = 0.0, recipe.step_seconds + recipe.sample_seconds * batch
    for value in values:
        seconds += interval / batch * step_seconds
        if value >= script.target:
            return seconds
    return math.inf


@pytest.mark.parametrize("seed", range(len(SHAPES)))
def test_the_truth_is_that_of_a_plain_simulation(seed: int) -> None:
    script = made_script(seed)
    assert script.shape == SHAPES[seed]
    found = [script.seconds_to_target(c) for c in configurations()[::4]]
    assert found == pytest.approx([simulated_seconds(script, c) for c in configurations()[::4]])


@pytest.mark.parametrize("seed", range(5, 47, 6))
def test_a_plateau_is_never_reached(seed: int) -> None:
    script = made_script(seed)
    assert script.shape == "plateau"
    assert script.best_seconds == math.inf
    assert math.isfinite(script.budget_seconds)


def test_most_other_targets_are_reached() -> None:
    scripts = [made_script(seed) for seed in range(12) if SHAPES[seed % 6] not in ("plateau", "overfits")]
    assert [script.seed for script in scripts if script.best_seconds == math.inf] == []
    assert {made_script(seed).best_seconds < math.inf for seed in range(4, 24, 6)} == {True, False}


@pytest.mark.parametrize("seed", range(4))
def test_a_short_script_starts_up_longer_than_it_trains(seed: int) -> None:
    script = short_script(seed)
    assert script.startup_seconds >= script.best_seconds
    assert 5.0 <= script.seconds_to_target(script.baseline) / script.best_seconds <= 50.0
    job = script.job()
    assert job.baseline_configuration() == script.baseline
    assert job.goal.trainings == script.trainings == 20


@pytest.mark.parametrize("seed", [RESUMING, REPEATING])
def test_every_slice_is_charged_a_start_up_and_what_it_repeats(seed: int, tmp_path: Path) -> None:
    script = made_script(seed)
    assert script.resumes == (seed == RESUMING)
    prober = script_prober(script, script.job().resolved_cluster())
    best = min(configurations(), key=script.seconds_to_target)
    first, second = (
        prober.poll(prober.start(best, Purpose.TRAINING, until, tmp_path))
        for until in (Until(scores=2), Until(samples=10**9))
    )
    assert (first.outcome, second.outcome) == (Outcome.PAUSED, Outcome.REACHED)
    assert len(first.curve) == 2
    assert second.training_seconds == pytest.approx(script.best_seconds)
    repeated = 0.0 if script.resumes else first.training_seconds
    assert second.repeated_seconds == pytest.approx(repeated)
    expected = 2 * script.startup_seconds + script.best_seconds + repeated
    assert first.charged_seconds + second.charged_seconds == pytest.approx(expected)
    assert prober.now() == pytest.approx(expected)


def test_a_rate_beyond_the_edge_diverges(tmp_path: Path) -> None:
    script = replace(made_script(RESUMING), edge_rate=0.05)
    fast = next(c for c in configurations() if c.learning_rate == 1.0)
    prober = script_prober(script, script.job().resolved_cluster())
    found = prober.poll(prober.start(fast, Purpose.TRAINING, Until(samples=10**9), tmp_path))
    assert found.outcome is Outcome.DIVERGED
    assert script.seconds_to_target(fast) == math.inf


def test_the_same_search_is_made_twice() -> None:
    for seed in (1, 3):
        once, again = searched(seed), searched(seed)
        assert once.row() == again.row()
        assert once.predictions == again.predictions
        assert once.has_arrived
        assert once.spent_seconds >= once.script.best_seconds
        tables = report([once])
        assert set(tables) == {"searches", "totals", "intervals", "chances"}
        kind = "resuming" if once.script.resumes else "repeating"
        for rows in tables.values():
            assert {row["jobs"] for row in rows} == {once.script.shape, kind, "all"}


def made(
    chances: list[float], *, arrives: bool = True, interval: tuple[float, ...] = (5.0, 10.0, 20.0)
) -> Searched:
    """A search with predictions of one run, of which an eighth is known."""
    truth = 16.0 if arrives else math.inf
    predictions = tuple(
        PredictedAgainstMeasured(
            prediction=PredictionRecord(
                study_id=1,
                configuration=configurations()[0],
                created_at=0.0,
                quantiles=dict(zip((0.05, 0.5, 0.95), interval, strict=True)),
                dollars={},
                probability_of_reaching=chance,
                num_slices=1,
                seconds_observed=2.0,
            ),
            measured_seconds=truth,
            share_observed=2.0 / truth,
        )
        for chance in chances
    )
    script = made_script(1 if arrives else 5)
    return Searched(
        script=script,
        spent_seconds=4.0 * script.unit_seconds,
        num_slices=1,
        num_probes=1,
        has_arrived=arrives,
        stop=StopKind.ARRIVED if arrives else StopKind.UNREACHABLE,
        answer_seconds=2.0 * script.best_seconds,
        regret_bound=3.0,
        predictions=predictions,
    )


def test_each_job_counts_as_one_in_a_range_of_chances() -> None:
    searches = [made([0.95]), made([0.91] * 9, arrives=False), made([0.2])]
    found = reliability(searches, 0.9, 1.0)
    assert found == {"num": 10, "num_jobs": 2, "stated": pytest.approx(0.93), "arrive": 0.5}
    assert reliability([made([1.0])], 0.9, 1.0)["num"] == 1
    assert reliability(searches, 0.3, 0.5)["stated"] is None


def test_intervals_are_those_of_runs_that_arrive() -> None:
    never = (math.inf, math.inf, math.inf)
    searches = [made([1.0]), made([1.0], interval=(1.0, 2.0, 4.0)), made([0.1], interval=never)]
    found = intervals([*searches, made([0.1], arrives=False)], 0.1, 0.25)
    assert (found["num"], found["infinite"], found["hold"]) == (3, 1, pytest.approx(1 / 3))
    assert (found["width"], found["median_over_true"]) == (4.0, pytest.approx(6.0 / 16.0))
    assert intervals(searches, 0.25, 0.9)["hold"] is None


def test_reachable_and_unreachable_jobs_are_counted_apart() -> None:
    found = outcomes([made([]), replace(made([]), stop=StopKind.UNREACHABLE), made([], arrives=False)])
    assert (found["spent_over_best"], found["regret"]) == (pytest.approx(4.0), pytest.approx(2.0))
    assert (found["reachable"], found["wrongly_called"]) == (2, 1)
    assert (found["unreachable"], found["called"], found["called_early"]) == (1, 1, 1)


def test_totals_compare_with_a_search_that_knows_the_best() -> None:
    """Four best trainings are spent, and nine more trainings take two each. A start-up is a tenth of one."""
    short = replace(made([]).script, trainings=10, startup_share=0.1)
    unit = short.best_seconds
    ended = replace(made([]), script=short, stop=StopKind.NO_GAIN, answer_seconds=2.0 * unit)
    found = totals([ended, replace(ended, regret_bound=1.5), made([], arrives=False)])
    assert found["total"] == pytest.approx((4.0 + 9 * 2.0) / 10.1)
    assert (found["reachable"], found["answers"], found["no_gain"]) == (2, 2, 2)
    assert (found["bound_held"], found["bound"], found["probes"]) == (0.5, pytest.approx(2.25), 1.0)


def test_the_fit_beats_the_base_rate_on_jobs_it_has_not_seen() -> None:
    fitted, product, base_rate = fit(range(2000, 2024))["odds"]
    assert fitted["loss"] < base_rate["loss"]
    assert fitted["of_log_folds"] > 0
    assert (product["constant"], product["of_log_folds"], product["of_progress"]) == made_scripts.PRODUCT


def test_the_command_writes_its_tables(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(main)
    output = tmp_path / "made.json"
    found = CliRunner().invoke(app, ["--jobs", "1", "--first", "7", "--json", "--output", str(output)])
    assert found.exit_code == 0
    result = json.loads(found.stdout)
    assert result == json.loads(output.read_text())
    assert set(result) == {"runs", "searches", "totals", "intervals", "chances"}
    assert result["runs"][0]["shape"] == "power"
    plain = CliRunner().invoke(app, ["--jobs", "1", "--first", "7"])
    assert "spent_over_best" in plain.stdout
