"""A recorded job through the use cases: searched, stopped and gone on with, reported, recorded again."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from storage import Storage, open_storage
from tests.recorded_grid import STARTUP_SECONDS, grid, write_job
from tests.tuner.service.desk import Desk, small_job
from tuner.domain.errors import JobError
from tuner.domain.ledger import ProbeRecord
from tuner.domain.measurement import Measurement, Outcome, Purpose, crossing
from tuner.probes import ProbeHandle, Prober
from tuner.probes.recorded import RecordedProber
from tuner.recordings.file import load_recording
from tuner.search.events import SearchEvent
from tuner.search.policy import StopKind
from tuner.service.check_command import check_job
from tuner.service.launchers import job_prober
from tuner.service.opening import OpenedJob, changed_words, open_job
from tuner.service.plan import plan_lines
from tuner.service.record import record_study
from tuner.service.reporting import report_job
from tuner.service.run import RunOptions, RunResult, run_job
from tuner.service.training import train_configuration
from tuner.service.views import explain_rows, status_rows, trial_rows

ONE_TRAINING = ("trainings = 3", "trainings = 1")
#: Local SGD's curves hold for their own nodes alone, so that no run is carried to others on the way.
OWN_CURVES: dict[str, Any] = {"strategies": ("local_sgd",), "machines": ("small",)}


def opened_job(folder: Path, *changes: tuple[str, str], **more: Any) -> OpenedJob:
    return open_job(write_job(folder, *changes, **more))


def run(opened: OpenedJob, store: Storage, *, sampler: str = "model", **more: object) -> RunResult:
    options = RunOptions(output=opened.folder / "out", sampler=sampler)  # type: ignore[arg-type]
    return run_job(opened, store, options, **more)  # type: ignore[arg-type]


def probes_of(store: Storage) -> list[ProbeRecord]:
    return store.ledger.probes(store.ledger.studies()[-1].study_id)


def slices_of(store: Storage) -> list[Measurement]:
    return [measurement for probe in probes_of(store) for measurement in probe.slices]


@pytest.mark.parametrize("sampler", ["model", "tpe", "gp", "random"])
def test_every_sampler_brings_a_run_of_the_list_to_the_target(
    tmp_path: Path, store: Storage, sampler: str
) -> None:
    recording = grid(**OWN_CURVES)
    result = run(opened_job(tmp_path, ONE_TRAINING, **OWN_CURVES), store, sampler=sampler)
    assert result.stop.kind is StopKind.ARRIVED
    choice = result.recommendation.choice
    assert choice.configuration in recording.configurations()
    truth = recording.truth_seconds(recording.run(choice.configuration))
    assert choice.measured_seconds == pytest.approx(truth)
    tried = [probe.configuration for probe in probes_of(store) if probe.purpose is not Purpose.TIMING]
    assert len(tried) == len(set(tried))


def test_what_is_spent_is_what_the_recording_says(tmp_path: Path, store: Storage) -> None:
    run(opened_job(tmp_path, ONE_TRAINING, **OWN_CURVES), store)
    for probe in probes_of(store):
        first, *others = probe.slices
        assert first.startup_seconds == STARTUP_SECONDS
        assert [m.startup_seconds for m in others] == [0.0] * len(others)
        paid = sum(m.charged_seconds for m in probe.slices)
        assert paid == pytest.approx(STARTUP_SECONDS + probe.slices[-1].training_seconds)
        price = grid(**OWN_CURVES).cluster.dollars_per_second(probe.configuration)
        assert sum(m.charged_dollars for m in probe.slices) == pytest.approx(paid * price)


class Killed(BaseException):
    """Ends the process in the middle of a slice."""


class DyingProber(RecordedProber):
    """Dies when it is asked for its third slice."""

    def poll(self, handle: ProbeHandle) -> Measurement:
        if handle.identity == "3":
            raise Killed
        return super().poll(handle)


@pytest.mark.slow
def test_a_killed_tuner_goes_on_and_comes_to_the_same(tmp_path: Path, store: Storage) -> None:
    def dying(opened: OpenedJob) -> Prober:
        recording = opened.job.recording()
        assert recording is not None
        return DyingProber(recording)

    (tmp_path / "killed").mkdir()
    (tmp_path / "whole").mkdir()
    killed = opened_job(tmp_path / "killed", ONE_TRAINING)
    with pytest.raises(Killed):
        run(killed, store, make_prober=dying)
    assert len(slices_of(store)) == 2
    run(killed, store)
    assert len(store.ledger.studies()) == 1
    seen = slices_of(store)
    # In a database of its own: what one study learnt is the next one's prior.
    with open_storage(f"sqlite:///{tmp_path / 'whole.db'}") as other:
        run(opened_job(tmp_path / "whole", ONE_TRAINING), other)
        again = slices_of(other)
    assert [(m.configuration, m.curve, m.charged_seconds) for m in seen] == [
        (m.configuration, m.curve, m.charged_seconds) for m in again
    ]


@pytest.mark.slow
def test_what_one_study_learnt_is_the_next_ones_prior(tmp_path: Path, store: Storage) -> None:
    opened = opened_job(tmp_path, ONE_TRAINING)
    for fresh in (False, True):
        run_job(opened, store, RunOptions(output=opened.folder / "out", fresh=fresh))
    reported = []
    for study in store.ledger.studies():
        fits = store.ledger.past_fits(study.fingerprint)
        (last,) = [f for f in fits if (f.study_id, f.model) == (study.study_id, "samples")]
        reported.append(" ".join(last.summary["sentences"]))
    assert "textbook" in reported[0]
    assert "learnt" in reported[1]
    assert "textbook" not in reported[1]


@pytest.mark.slow
def test_a_search_through_the_whole_list_ends(tmp_path: Path, store: Storage) -> None:
    result = run(opened_job(tmp_path), store, sampler="random")
    assert result.stop.kind is StopKind.NO_GAIN
    assert result.stop.reason == "every recorded configuration was tried"
    assert len(probes_of(store)) == len(grid().configurations())
    truths = [grid().truth_seconds(r) for r in grid().runs]
    assert result.recommendation.choice.measured_seconds == pytest.approx(min(truths))


def test_the_report_promises_neither_a_model_nor_a_command(tmp_path: Path, store: Storage) -> None:
    opened = opened_job(tmp_path, ONE_TRAINING)
    result = run(opened, store)
    assert (result.recommendation.command, result.recommendation.checkpoint) == ("", None)
    assert any("there is no trained model" in words for words in result.recommendation.warnings)
    assert "launch.sh" not in result.files
    files = report_job(opened, store, tmp_path / "again")
    assert "paceline train" not in files["report.html"].read_text()
    assert json.loads(files["recommendation.json"].read_text())["command"] == ""


def test_views_show_a_recorded_study_like_any_other(tmp_path: Path, store: Storage) -> None:
    opened = opened_job(tmp_path, ONE_TRAINING)
    result = run(opened, store)
    rows = trial_rows(store.ledger, result.study)
    assert {row["machine"] for row in rows} <= {"small", "large"}
    assert [row["seconds_to_target"] for row in rows if row["outcome"] == "reached"] != [None]
    facts = {row["name"]: row["value"] for row in status_rows(store.ledger, result.study, tmp_path)}
    assert facts["charged dollars"] > 0
    explained = {row["name"]: row["value"] for row in explain_rows(store.ledger, result.study, 0)}
    assert explained["batch_size"] == rows[0]["batch_size"]


def test_check_replays_a_few_steps(tmp_path: Path) -> None:
    measurement, epoch_samples = check_job(opened_job(tmp_path))
    assert measurement.configuration in grid().configurations()
    assert (measurement.step, measurement.outcome) == (12, Outcome.PAUSED)
    assert epoch_samples == 10_000


def test_a_recorded_job_trains_nothing(tmp_path: Path, store: Storage) -> None:
    opened = opened_job(tmp_path)
    with pytest.raises(JobError, match="a recorded job replays measured runs and cannot train"):
        train_configuration(opened, store, grid().configurations()[0], tmp_path / "out")


def test_the_plan_says_that_nothing_is_trained_and_prices_the_most_expensive(tmp_path: Path) -> None:
    lines = plan_lines(opened_job(tmp_path), storage="here", output="out", spent_seconds=0.0)
    assert any(line.startswith("replay: recording grid; nothing is trained") for line in lines)
    # Two large nodes and one more beside them, for ten minutes.
    assert "at most: $0.90, for the most expensive configuration all the time" in lines


@pytest.mark.slow
def test_another_recording_under_the_same_name_begins_a_new_study(tmp_path: Path, store: Storage) -> None:
    run(opened_job(tmp_path, ONE_TRAINING), store)
    events: list[SearchEvent] = []
    changed = open_job(write_job(tmp_path, ONE_TRAINING, startup_seconds=1.0))
    run(changed, store, listen=events.append)
    assert len(store.ledger.studies()) == 2
    warnings = [event.text for event in events if event.kind == "warning"]
    assert warnings == [f"{changed_words(changed.job)}: starting a new study"]
    assert warnings[0].startswith("the recording changed since")


def test_the_prober_obeys_the_job_s_own_target(tmp_path: Path, store: Storage) -> None:
    opened = opened_job(tmp_path, ("trainings = 3", "target = 0.6"), **OWN_CURVES)
    recording = grid(**OWN_CURVES)
    assert isinstance(job_prober(opened), RecordedProber)
    result = run(opened, store)
    (reached,) = [p.measurement for p in probes_of(store) if p.outcome is Outcome.REACHED]
    assert reached is not None
    assert result.recommendation.choice.measured_seconds == pytest.approx(
        recording.truth_seconds(recording.run(reached.configuration), 0.6)
    )


def test_a_recording_of_a_study_has_the_truth_that_the_study_had(tmp_path: Path, store: Storage) -> None:
    desk = Desk(tmp_path, store, job=small_job(goal={"trainings": 4}, cluster=PRICED))
    desk.run()
    made = record_study(desk.opened, store, tmp_path / "study.jsonl.gz")
    recording = load_recording(made.path)
    runs = [probe for probe in desk.probes() if probe.purpose is not Purpose.TIMING]
    assert made.num_runs == len(recording.runs) > 1
    for one in recording.runs:
        reported = max(
            (p.measurement for p in runs if p.configuration == one.configuration and p.measurement),
            key=lambda m: m.samples,
        )
        points = [point for point in reported.curve if point.samples > 0]
        found = crossing(points, desk.job.goal.target, maximize=True)
        assert recording.truth_seconds(one) == (found[1] if found else math.inf)
        assert one.step_seconds == reported.batch_seconds
        assert (one.end is None) == (found is not None)
    assert recording.cluster.dollars_per_second(runs[0].configuration) == pytest.approx(
        desk.opened.cluster.dollars_per_second(runs[0].configuration)
    )
    startups = sorted(m.startup_seconds for m in desk.slices() if m.startup_seconds > 0)
    assert startups[0] <= recording.startup_seconds <= startups[-1]
    assert (recording.batch_size_scope, recording.target) == ("global", desk.job.goal.target)


PRICED = {"nodes": [1, 2], "dollars_per_node_hour": 3.6}


def test_what_is_left_out_of_a_recording_is_named(tmp_path: Path, store: Storage) -> None:
    desk = Desk(tmp_path, store)
    desk.run()
    made = record_study(desk.opened, store, tmp_path / "study.jsonl.gz")
    timed = [p for p in desk.probes() if p.purpose is Purpose.TIMING]
    words = [line for line in made.left_out if "it only timed steps" in line]
    assert len(words) == len(timed)
    assert any("gradient noise" in line for line in made.left_out)


@pytest.mark.slow
def test_a_recording_of_a_replay_can_be_replayed(tmp_path: Path, store: Storage) -> None:
    opened = opened_job(tmp_path)
    run(opened, store, sampler="random")
    made = record_study(opened, store, tmp_path / "again.jsonl.gz")
    again = load_recording(made.path)
    assert (again.machines, again.extra_nodes) == (grid().machines, 1)
    assert again.startup_seconds == STARTUP_SECONDS
    for one in again.runs:
        truth = grid().truth_seconds(grid().run(one.configuration))
        # A run that could no longer win was given up before it arrived.
        assert again.truth_seconds(one) == pytest.approx(truth if one.end is None else math.inf)
    assert any(one.end is None for one in again.runs)


def test_a_file_that_is_there_is_replaced_only_if_asked(tmp_path: Path, store: Storage) -> None:
    opened = opened_job(tmp_path, ONE_TRAINING)
    run(opened, store)
    path = tmp_path / "grid.jsonl.gz"
    with pytest.raises(JobError, match="already exists; give another path, or --force"):
        record_study(opened, store, path)
    record_study(opened, store, path, force=True)
    assert load_recording(path).name == "replay"


def test_a_study_without_a_run_gives_no_recording(tmp_path: Path, store: Storage) -> None:
    opened = opened_job(tmp_path)
    with pytest.raises(JobError, match="there is no study of this job here yet"):
        record_study(opened, store, tmp_path / "new.jsonl.gz")
    store.ledger.open_study(opened.job.name, opened.fingerprint, opened.job.model_dump(mode="json"))
    with pytest.raises(JobError, match="has no run with a score"):
        record_study(opened, store, tmp_path / "new.jsonl.gz")
