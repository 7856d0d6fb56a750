"""`import-runs`: what is stored, that it is a prior alone, and that no other command takes it for a study."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from search_spaces import Configuration
from storage import Storage
from tests.recorded_grid import write_job
from tests.tuner.search.synthetic import Law
from tests.tuner.search.world import configuration
from tests.tuner.service.desk import Desk, small_job
from tuner.domain.errors import JobError
from tuner.domain.recommendation import Recommendation
from tuner.report import recommendation_text
from tuner.service.importing import ImportOptions, import_rows, read_past_runs, summary_words
from tuner.service.imports import imported_runs, imported_study, imports_left_behind, store_runs
from tuner.service.opening import OpenedJob, find_study, has_other_study, open_job
from tuner.service.record import record_study
from tuner.service.reporting import believer_of, report_job
from tuner.service.views import require_study

JOB_OF_COMMAND = """
name = "job"
[workload]
command = "{command}"
[goal]
metric = "accuracy"
target = {target}
[space]
batch_size = [64]
learning_rate = [0.01, 0.1]
"""
GRID = [configuration(batch_size=b, learning_rate=r) for b in (48, 192) for r in (0.004, 0.05, 0.4)]


def write_runs(
    path: Path,
    law: Law,
    grid: Iterable[Configuration] = GRID,
    *,
    share: float = 1.2,
    metric: str = "accuracy",
) -> Path:
    """A long table of one run of each configuration, up to a share of its samples to target."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["run", "batch_size", "lr", "step", metric, "elapsed"])
        for number, what in enumerate(grid):
            per_step = law.step_seconds(what)
            for samples in np.linspace(0.05, share, 15) * law.samples_to_target(what):
                step = max(round(samples / what.batch_size), 1)
                value = law.value(what, step * what.batch_size)
                row = [number, what.batch_size, what.learning_rate, step, value, step * per_step]
                writer.writerow(row)
    return path


def imported(desk: Desk, path: Path, *, fresh: bool = False, same_hardware: bool = False) -> list[str]:
    """Imports a file; returns the status of each run."""
    read = read_past_runs(desk.opened, ImportOptions(sources=(path,), same_hardware=same_hardware))
    return [row["status"] for row in import_rows(desk.opened, read, desk.store.ledger, fresh=fresh)]


@pytest.fixture
def desk(tmp_path: Path, store: Storage) -> Desk:
    return Desk(tmp_path, store, job=small_job(budget={"time": "40s"}))


@pytest.fixture
def runs(desk: Desk) -> Path:
    return write_runs(desk.folder / "runs.csv", desk.law)


def test_a_search_learns_from_imported_runs_and_the_answer_says_so(desk: Desk, runs: Path) -> None:
    assert imported(desk, runs) == ["imported"] * 6
    result = desk.run()
    found = result.recommendation.imported
    assert found is not None
    assert (found.num_runs, found.num_same_hardware) == (6, 0)
    assert found.sources == (f"{runs} (csv)",)
    assert 0.0 < found.weights["samples to target"] <= 1.0
    assert "seconds a step" not in found.weights
    text = " ".join(recommendation_text(result.recommendation).split())
    assert "imported runs 6 runs from" in text
    assert "None of them is a measured result of this job" in text
    for name in ("report.html", "report.md"):
        assert "None of them is a measured result of this job" in result.files[name].read_text()
    assert Recommendation.from_dict(result.recommendation.to_dict()).imported == found
    fits = {f.model: f for f in desk.store.ledger.past_fits("f")}
    assert set(fits["samples"].summary["priors"]) == {"neutral", "imported runs"}


@pytest.mark.slow
def test_seconds_of_the_same_hardware_count_too(desk: Desk, runs: Path) -> None:
    imported(desk, runs, same_hardware=True)
    found = desk.run().recommendation.imported
    assert found is not None
    assert found.num_same_hardware == 6
    assert set(found.weights) == {"samples to target", "seconds a step"}


def test_nothing_is_recommended_on_imported_runs_alone(desk: Desk, runs: Path) -> None:
    imported(desk, runs)
    with pytest.raises(JobError, match="there is no study of this job here yet"):
        report_job(desk.opened, desk.store, desk.folder / "out")
    with pytest.raises(JobError, match="there is no study"):
        require_study(desk.store.ledger, desk.opened)
    with pytest.raises(JobError, match="there is no study"):
        record_study(desk.opened, desk.store)
    assert find_study(desk.store.ledger, desk.opened) is None
    assert not has_other_study(desk.store.ledger, desk.opened)


def test_imported_runs_are_no_probes_of_the_search_and_cost_nothing(desk: Desk, runs: Path) -> None:
    imported(desk, runs)
    result = desk.run()
    own = desk.store.ledger.probes(result.study.study_id)
    assert result.recommendation.tuning.num_probes == len(own)
    assert not {p.configuration for p in own} & set(GRID)
    assert result.study.name == "job"
    study = imported_study(desk.store.ledger, desk.opened)
    assert study is not None
    assert study.name == "job.imported"
    assert all(p.trial_number is None and p.lease is None for p in desk.store.ledger.probes(study.study_id))
    # No fit of theirs reaches other jobs.
    assert {f.study_id for f in desk.store.ledger.past_fits("f")} == {result.study.study_id}


@pytest.mark.slow
def test_a_fresh_search_still_learns_from_them(desk: Desk, runs: Path) -> None:
    imported(desk, runs)
    desk.run()
    again = desk.run(fresh=True)
    assert again.study.name == "job-2"
    assert again.recommendation.imported is not None


def test_the_same_runs_are_stored_once_wherever_they_lie(desk: Desk, runs: Path) -> None:
    imported(desk, runs)
    moved = runs.rename(desk.folder / "moved.csv")
    assert imported(desk, moved) == ["already imported"] * 6
    assert len(imported_runs(desk.store.ledger, desk.opened).probes) == 6


def test_a_run_that_is_longer_now_goes_on_from_what_is_stored(desk: Desk) -> None:
    path = desk.folder / "runs.csv"
    whole = write_runs(path, desk.law).read_text().splitlines()
    path.write_text("\n".join(whole[:-3]) + "\n")
    imported(desk, path)
    path.write_text("\n".join(whole) + "\n")
    assert imported(desk, path) == [*["already imported"] * 5, "updated"]
    probes = imported_runs(desk.store.ledger, desk.opened).probes
    assert sorted(len(p.measurement.curve) for p in probes if p.measurement) == [15] * 6
    # A shorter export later takes nothing away, and may still say where the runs ran.
    path.write_text("\n".join(whole[:-3]) + "\n")
    assert imported(desk, path) == ["already imported"] * 6
    assert imported(desk, path, same_hardware=True) == ["updated"] * 6
    stored = imported_runs(desk.store.ledger, desk.opened)
    assert all(stored.is_same_hardware)
    assert sorted(len(p.measurement.curve) for p in stored.probes if p.measurement) == [15] * 6


def test_a_corrected_mapping_replaces_what_was_imported_from_the_same_files(desk: Desk, runs: Path) -> None:
    mapping = desk.folder / "mapping.toml"

    def statuses(text: str) -> list[str]:
        mapping.write_text(text)
        read = read_past_runs(desk.opened, ImportOptions(sources=(runs,), mapping=mapping))
        rows = import_rows(desk.opened, read, desk.store.ledger)
        assert all(
            ("replaces an earlier import" in (row["note"] or "")) == (row["status"] == "replaced")
            for row in rows
        )
        return [row["status"] for row in rows]

    def batches() -> list[int]:
        return sorted(
            p.configuration.batch_size for p in imported_runs(desk.store.ledger, desk.opened).probes
        )

    assert statuses("") == ["imported"] * 6
    assert statuses('batch_size = ["batch_size", 2]') == ["replaced"] * 6
    assert batches() == [96] * 3 + [384] * 3
    # What was replaced stays in the database, and a mapping may be taken back.
    study = imported_study(desk.store.ledger, desk.opened)
    assert study is not None
    assert len(desk.store.ledger.probes(study.study_id)) == 12
    assert statuses("") == ["replaced"] * 6
    assert statuses("") == ["already imported"] * 6
    assert batches() == [48] * 3 + [192] * 3


def test_a_file_that_was_moved_is_known_where_it_lies_now(desk: Desk, runs: Path) -> None:
    imported(desk, runs)
    moved = runs.rename(desk.folder / "moved.csv")
    imported(desk, moved)
    moved.write_text(moved.read_text().replace(",0.4,", ",0.3,"))
    assert imported(desk, moved) == ["already imported", "already imported", "replaced"] * 2
    assert len(imported_runs(desk.store.ledger, desk.opened).probes) == 6


def test_runs_of_equal_names_do_not_replace_each_other(desk: Desk, runs: Path) -> None:
    read = read_past_runs(desk.opened, ImportOptions(sources=(runs,)))
    found = [replace(run, source="/runs.db base") for run in read.runs]
    for part in (found[:3], found[3:]):
        store_runs(desk.store.ledger, desk.opened, part, fresh=False)
    assert len(imported_runs(desk.store.ledger, desk.opened).probes) == 6


def test_a_fresh_import_forgets_the_ones_before(desk: Desk, runs: Path) -> None:
    imported(desk, runs)
    other = write_runs(desk.folder / "other.csv", desk.law, GRID[:2])
    assert imported(desk, other, fresh=True) == ["imported"] * 2
    assert len(imported_runs(desk.store.ledger, desk.opened).probes) == 2


def test_runs_count_for_their_metric_and_for_any_target(desk: Desk, runs: Path) -> None:
    imported(desk, runs)
    job = desk.job
    desk.job = small_job(goal={"metric": "f1", "direction": "maximize"})
    assert imported_runs(desk.store.ledger, desk.opened).probes == ()
    desk.job = small_job(goal={"target": 0.7})
    assert len(imported_runs(desk.store.ledger, desk.opened).probes) == 6
    desk.job = job.model_copy(update={"name": "another"})
    assert imported_runs(desk.store.ledger, desk.opened).probes == ()


def test_runs_count_for_the_training_that_they_were_imported_for(tmp_path: Path, store: Storage) -> None:
    def opened(
        folder: str, command: str = "python train.py {batch_size} {learning_rate}", **goal: float
    ) -> OpenedJob:
        path = tmp_path / folder / "job.toml"
        text = JOB_OF_COMMAND.format(command=command, target=goal.get("target", 0.8))
        path.write_text(text)
        return open_job(path)

    def count(job: OpenedJob) -> int:
        return len(imported_runs(store.ledger, job).probes)

    for folder, script in (("a", "lr = 1"), ("b", "lr = 2")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "train.py").write_text(script)
    runs = write_runs(tmp_path / "runs.csv", Law(samples=8e4, seconds_per_sample=1e-3))
    job = opened("a")
    import_rows(job, read_past_runs(job, ImportOptions(sources=(runs,))), store.ledger)
    assert count(opened("a", target=0.7)) == 6
    # Jobs of the same name that train something else.
    assert count(opened("b")) == 0
    deep = opened("a", "python train.py --deep {batch_size} {learning_rate}")
    assert count(deep) == 0
    assert "import them again" in (imports_left_behind(store.ledger, deep) or "")
    assert imports_left_behind(store.ledger, opened("b")) is None
    assert imports_left_behind(store.ledger, opened("a")) is None
    # The same script elsewhere, and an edited script in the same place.
    (tmp_path / "b" / "train.py").write_text("lr = 1")
    (tmp_path / "a" / "train.py").write_text("lr = 3")
    assert (count(opened("a")), count(opened("b"))) == (6, 6)
    again = read_past_runs(opened("b"), ImportOptions(sources=(runs,)))
    assert {row["status"] for row in import_rows(opened("b"), again, store.ledger)} == {"already imported"}


def test_without_imports_the_models_have_no_more_priors_than_before(desk: Desk) -> None:
    result = desk.run()
    assert result.recommendation.imported is None
    assert "imported runs" not in recommendation_text(result.recommendation)
    state_priors = believer_of(desk.opened, desk.store.ledger, result.study, 1)._past
    assert state_priors.rise_samples == 0.0
    assert not state_priors.samples


def test_a_dry_run_stores_nothing(desk: Desk, runs: Path) -> None:
    rows = import_rows(desk.opened, read_past_runs(desk.opened, ImportOptions(sources=(runs,))), None)
    assert summary_words(rows) == "runs: 6 would be imported"
    assert desk.store.ledger.studies() == []


def test_what_is_missing_is_named_with_a_mapping_file_to_start_from(desk: Desk) -> None:
    path = write_runs(desk.folder / "runs.csv", desk.law, metric="score")
    with pytest.raises(JobError) as caught:
        read_past_runs(desk.opened, ImportOptions(sources=(path,)))
    text = str(caught.value)
    assert "metric: candidates are run, batch_size, lr, score, elapsed" in text
    assert "# metric = ...  # name of the column with the metric of the job" in text
    assert 'batch_size = "batch_size"' in text
    mapping = desk.folder / "mapping.toml"
    mapping.write_text(text.split("\n\n", 1)[1].replace("# metric = ...", 'metric = "score"'))
    read = read_past_runs(desk.opened, ImportOptions(sources=(path,), mapping=mapping))
    assert len(read.runs) == 6


def test_on_a_terminal_what_is_missing_is_asked_for(desk: Desk) -> None:
    path = desk.folder / "runs.csv"
    path.write_text("n,rate,tick,score\n64,0.1,10,0.5\n64,0.1,20,0.6\n")
    asked: list[tuple[str, tuple[str, ...]]] = []
    answers = iter(["score", "tick", "step", "n, 2", "0.1"])

    def ask(question: str, names: Sequence[str]) -> str:
        asked.append((question, tuple(names)))
        return next(answers)

    read = read_past_runs(desk.opened, ImportOptions(sources=(path,)), ask)
    assert read.runs[0].measurement.configuration.batch_size == 128
    assert read.answers == {"metric": "score", "step": "tick", "batch_size": ("n", 2), "learning_rate": 0.1}
    assert "metric of the job" in asked[0][0]
    assert set(asked[0][1]) == {"n", "rate", "tick", "score"}


def test_runs_of_no_use_are_rows_with_a_reason_and_none_at_all_is_an_error(desk: Desk, runs: Path) -> None:
    with runs.open("a") as file:
        file.write("bad,64,0.1,100,42,1\n")
    rows = import_rows(desk.opened, read_past_runs(desk.opened, ImportOptions(sources=(runs,))), None)
    assert rows[-1]["status"] == "left out"
    assert "accuracy lies between 0 and 1" in rows[-1]["note"]
    assert summary_words(rows) == "runs: 6 would be imported, 1 left out"
    runs.write_text("run,batch_size,lr,step,accuracy\nbad,64,0.1,100,42\n")
    with pytest.raises(JobError, match=r"no run can be used(.|\n)*scale = 0\.01"):
        read_past_runs(desk.opened, ImportOptions(sources=(runs,)))


def test_epochs_of_a_workload_count_with_its_training_set(desk: Desk) -> None:
    path = desk.folder / "runs.csv"
    path.write_text("batch_size,lr,epoch,accuracy\n64,0.1,1,0.5\n64,0.1,2,0.6\n")
    (run,) = read_past_runs(desk.opened, ImportOptions(sources=(path,))).runs
    size = run.measurement.curve[0].samples
    assert [point.samples for point in run.measurement.curve] == [size, 2 * size]
    assert size > 1


def test_a_recorded_job_learns_from_nothing_else(tmp_path: Path, runs: Path) -> None:
    opened = open_job(write_job(tmp_path))
    with pytest.raises(JobError, match="a job that replays a recording cannot import runs"):
        read_past_runs(opened, ImportOptions(sources=(runs,)))
