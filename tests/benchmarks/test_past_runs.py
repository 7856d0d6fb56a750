"""The benchmark of imported runs: what it imports, and that it can be repeated."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from benchmarks.made_scripts_curves import BATCH_SIZES, LEARNING_RATES, configurations, made_script
from benchmarks.past_runs import (
    KINDS,
    NUM_RUNS,
    PROBLEMS,
    imported_runs,
    main,
    misleading_script,
    report,
    searched,
    similar_script,
    unrelated_script,
)


def test_a_similar_script_differs_in_all_but_its_form() -> None:
    script = made_script(3)
    other = similar_script(script)
    assert (other.shape, other.recipe.start, other.recipe.best) == (
        script.shape,
        script.recipe.start,
        script.recipe.best,
    )
    for name in ("needed_samples", "best_rate", "noise_batch", "step_seconds", "noise"):
        assert getattr(other.recipe, name) != getattr(script.recipe, name)
    what = configurations()[10]
    assert list(other.run(what).curve[:, 2]) != list(script.run(what).curve[:, 2])


def test_an_unrelated_script_has_another_shape() -> None:
    assert all(unrelated_script(made_script(seed)).shape != made_script(seed).shape for seed in range(12))


def test_a_misleading_script_has_a_best_rate_far_from_that_of_made_scripts() -> None:
    for seed in range(6):
        plain, other = (make(made_script(seed)).recipe for make in (unrelated_script, misleading_script))
        assert abs(math.log(other.best_rate / plain.best_rate)) == pytest.approx(math.log(20.0))
        assert abs(math.log(other.needed_samples / plain.needed_samples)) == pytest.approx(math.log(10.0))


def test_imported_runs_have_configurations_that_the_job_does_not_offer() -> None:
    runs = imported_runs(made_script(3), 0)
    assert len(runs.probes) == NUM_RUNS
    assert not any(runs.is_same_hardware)
    for probe in runs.probes:
        assert probe.configuration.batch_size not in BATCH_SIZES
        assert probe.configuration.learning_rate not in LEARNING_RATES


def test_the_report_is_of_ratios_to_the_search_without_imports() -> None:
    rows = [
        {"problem": "one", "none": 2.0, "similar": 1.0, "unrelated": 2.0, "misleading": 1.0},
        {"problem": "one", "none": 1.0, "similar": 2.0, "unrelated": 2.0, "misleading": 1.0},
        {"problem": "one"},
    ]
    arrived = {f"{kind} arrived": True for kind in KINDS}
    table = report([{**row, **(arrived if "none" in row else {})} for row in rows])["costs"]
    assert [(row["imported"], row["jobs"]) for row in table] == [(kind, 2) for kind in KINDS[1:]]
    assert table[0]["cost"] == pytest.approx(1.0)
    assert table[0]["error"] == pytest.approx(math.log(2.0))
    assert table[1]["cost"] == pytest.approx(math.sqrt(2.0))


@pytest.mark.slow
def test_the_same_search_is_made_again_and_written(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(main)
    path = tmp_path / "a.json"
    ended = CliRunner().invoke(app, ["--jobs", "1", "--first", "1", "--output", str(path)])
    assert ended.exit_code == 0, ended.output
    written = json.loads(path.read_text())
    assert [row["problem"] for row in written["runs"]] == list(PROBLEMS)
    assert written["runs"][0] == searched(("one", 1))
