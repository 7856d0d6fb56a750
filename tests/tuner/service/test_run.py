from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator

import pytest

from search_spaces import Configuration
from storage import open_storage
from tests.tuner.search.synthetic import Law
from tests.tuner.service.desk import Desk, FailingProber, FlakyProber, LosingProber, small_job
from tuner.domain.errors import InfeasibleError, JobError, ProbeError, StorageError
from tuner.domain.ledger import FitRecord
from tuner.domain.measurement import Measurement, Outcome, Purpose, crossing
from tuner.domain.recommendation import Recommendation
from tuner.search.policy import StopKind
from tuner.service.attempt import own_name
from tuner.service.reporting import report_job
from tuner.service.run import RunOptions, RunResult, run_job


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Desk, RunResult]]:
    """A run that arrived, on nodes that cost something; tests only read it."""
    folder = tmp_path_factory.mktemp("written")
    with open_storage(f"sqlite:///{folder / 'paceline.db'}") as store:
        desk = Desk(folder, store)
        desk.job = small_job(cluster={"nodes": [1, 2], "dollars_per_node_hour": 3.6})
        yield desk, desk.run()


def test_a_run_ends_with_the_run_that_arrived_and_says_what_it_took(reported: tuple[Desk, RunResult]) -> None:
    desk, result = reported
    answer = result.recommendation
    assert result.stop.kind is StopKind.ARRIVED
    assert answer.verified is not None
    assert answer.verified.reached
    assert not answer.provisional
    arrived = [p for p in desk.probes() if p.configuration == answer.choice.configuration and p.measurement]
    curve = [c for m in arrived[-1].slices for c in m.curve if c.samples > 0]
    crossed = crossing(curve, 0.85, maximize=True)
    assert crossed is not None
    assert answer.choice.measured_seconds == answer.verified.training_seconds == crossed[1]
    assert answer.choice.seconds.lower < crossed[1] < answer.choice.seconds.upper
    assert answer.choice.probability_of_reaching == 1.0
    assert answer.verified.value == max(point.value for point in curve)


def test_what_tuning_cost_is_what_the_ledger_was_charged(reported: tuple[Desk, RunResult]) -> None:
    desk, result = reported
    tuning = result.recommendation.tuning
    slices = desk.slices()
    assert tuning.seconds == pytest.approx(sum(m.charged_seconds for m in slices))
    assert tuning.dollars == pytest.approx(sum(m.charged_dollars for m in slices))
    assert tuning.num_probes == len(desk.probes())
    assert sum(tuning.seconds_by_purpose.values()) == pytest.approx(tuning.seconds)
    assert sum(tuning.seconds_by_part.values()) == pytest.approx(tuning.seconds)
    assert tuning.seconds_by_part["startup"] == pytest.approx(sum(m.startup_seconds for m in slices))


def test_the_ledger_keeps_the_recommendation_and_the_files_hold_it(reported: tuple[Desk, RunResult]) -> None:
    desk, result = reported
    stored = desk.store.ledger.recommendations(result.study.study_id)
    written = json.loads(result.files["recommendation.json"].read_text())
    assert [k.recommendation for k in stored] == [written] == [result.recommendation.to_dict()]
    assert Recommendation.from_dict(written) == result.recommendation
    assert {"report.html", "report.md", "trials.csv", "launch.sh"} < set(result.files)
    assert result.recommendation.command in result.files["launch.sh"].read_text()


@pytest.mark.slow
def test_called_again_a_run_probes_nothing_and_advises_the_same(desk: Desk) -> None:
    first = desk.run()
    again = desk.run()
    assert desk.probers[1].started == []
    assert again.recommendation.choice == first.recommendation.choice
    assert len(desk.store.ledger.recommendations(first.study.study_id)) == 1
    assert desk.run(fresh=True).study.name == "job-2"


def test_a_used_up_budget_gives_a_provisional_answer(desk: Desk) -> None:
    desk.job = small_job(budget={"time": "30s"})
    answer = desk.run().recommendation
    assert answer.provisional
    assert answer.verified is None
    assert answer.checkpoint is None
    assert answer.choice.measured_seconds is None
    assert answer.stop_reason == "the time budget of 30 s is used up"
    assert any("ended the search early" in warning for warning in answer.warnings)
    desk.job = small_job()
    assert not desk.run().recommendation.provisional


@pytest.mark.slow
def test_many_trainings_are_searched_for_until_nothing_gains_and_verified_when_asked(desk: Desk) -> None:
    desk.job = small_job(goal={"trainings": 20}, budget={"time": "2h"})
    found = desk.run(verify=True)
    answer = found.recommendation
    assert answer.verified is not None
    assert answer.verified.reached
    assert not answer.provisional
    truth = {c: desk.law.seconds_to_target(c) for c in desk.job.search_space().candidates()}
    assert truth[answer.choice.configuration] < 2.0 * min(truth.values())


def test_what_was_verified_is_held_against_a_prediction_made_before(reported: tuple[Desk, RunResult]) -> None:
    desk, result = reported
    answer = result.recommendation
    assert answer.verified is not None
    assert answer.verified.predicted is not None
    assert answer.verified.share_observed is not None
    assert answer.verified.share_observed < 1.0
    stored = desk.store.ledger.predictions(desk.store.ledger.studies()[-1].study_id)
    held = [p for p in stored if p.quantiles[0.5] == answer.verified.predicted.median]
    assert any(p.configuration == answer.choice.configuration for p in held)


@pytest.mark.slow
def test_dollars_are_made_small_within_a_deadline(desk: Desk) -> None:
    cluster = {"nodes": [1, 2], "dollars_per_node_hour": 36.0}
    desk.job = small_job(cluster=cluster, goal={"minimize": "dollars"})
    cheap = desk.run().recommendation
    assert cheap.choice.configuration.nodes == 1
    assert cheap.goal.endswith("cheapest")
    for weighed in (cheap.choice, cheap.runner_up, cheap.baseline):
        assert weighed is not None
        assert weighed.dollars is not None
        price = 0.01 * weighed.configuration.nodes
        assert weighed.dollars.median == pytest.approx(price * weighed.seconds.median)


def test_an_answer_keeps_the_deadline(desk: Desk) -> None:
    desk.job = small_job(goal={"deadline": "1s"})
    with pytest.raises(InfeasibleError, match=r"out of reach.*allow a later deadline"):
        desk.run()


def test_without_a_baseline_nothing_is_compared(desk: Desk) -> None:
    desk.job = small_job(baseline=None)
    assert desk.run().recommendation.baseline is None
    assert any("[baseline] is absent" in line for line in desk.texts("plan"))


def test_the_baseline_is_probed_first_and_compared(reported: tuple[Desk, RunResult]) -> None:
    desk, result = reported
    answer = result.recommendation
    baseline = desk.job.baseline_configuration()
    assert desk.probers[0].started[0] == (baseline, Purpose.STATISTICS)
    assert answer.baseline is not None
    assert answer.baseline.configuration == baseline


def test_the_runner_up_is_more_than_another_shade_of_the_rate(reported: tuple[Desk, RunResult]) -> None:
    answer = reported[1].recommendation
    assert answer.runner_up is not None
    second = answer.runner_up.configuration
    assert second.without("learning_rate") != answer.choice.configuration.without("learning_rate")


def test_failing_probes_end_a_run_with_what_the_last_one_said(desk: Desk) -> None:
    desk.kind = FailingProber
    with pytest.raises(ProbeError, match=r"3 of 3 ended probes failed.*the workload's own words.*explain"):
        desk.run()


def test_a_search_that_broke_down_recommends_nothing_although_something_was_measured(desk: Desk) -> None:
    desk.kind = FlakyProber
    with pytest.raises(ProbeError, match=r"ended probes failed.*the network is gone.*resumes"):
        desk.run()
    assert desk.store.ledger.recommendations(desk.store.ledger.studies()[-1].study_id) == []


def test_a_search_that_lost_its_nodes_answers_from_what_was_scored(desk: Desk) -> None:
    desk.kind = LosingProber
    result = desk.run()
    assert result.stop.kind is StopKind.FAULTS
    answer = result.recommendation
    assert answer.provisional
    words = "the last 3 probes failed because of the infrastructure, such as nodes or ports"
    assert answer.stop_reason == f"{words}: the network is gone"
    assert any(words.startswith("Failures ended the search early") for words in answer.warnings)
    assert not any("Never recommended" in words for words in answer.warnings)


def test_a_target_that_nothing_reaches_is_said_to_be_unreachable(desk: Desk) -> None:
    desk.law = Law(edge_rate=0.0)
    with pytest.raises(InfeasibleError, match=r"out of reach: \d of \d probes diverged.*lower learning"):
        desk.run()


def test_a_search_without_an_answer_writes_a_report_in_place_of_an_earlier_answer(desk: Desk) -> None:
    output = desk.folder / "out"
    output.mkdir()
    for name in ("recommendation.json", "launch.sh"):
        (output / name).write_text("of an earlier search")
    desk.law = Law(edge_rate=0.0)
    with pytest.raises(InfeasibleError, match=r"see the report: .*report.html"):
        desk.run()
    written = json.loads((output / "report.json").read_text())
    assert written["recommendation"] is None
    assert "diverged before a score" in written["reason"]
    assert len(written["probes"]) == len(desk.probes())
    assert all(probe["scores"] == 0 for probe in written["probes"])
    page, text = (output / "report.html").read_text(), (output / "report.md").read_text()
    assert "Nothing is recommended" in page
    assert "**No recommendation**" in text
    assert sorted(path.name for path in output.glob("[a-z]*.*")) == [
        "report.html",
        "report.json",
        "report.md",
    ]


def test_an_answer_takes_the_place_of_a_report_without_one(desk: Desk) -> None:
    (desk.folder / "out").mkdir()
    (desk.folder / "out" / "report.json").write_text("{}")
    desk.run()
    assert not (desk.folder / "out" / "report.json").exists()


@pytest.mark.slow
def test_a_verified_answer_is_not_searched_for_again(desk: Desk) -> None:
    desk.job = small_job(goal={"metric": "accuracy", "target": 0.85, "trainings": 20}, budget={"time": "20s"})
    desk.run()
    verified = desk.run(verify=True)
    assert any("[budget] does not apply" in text for text in desk.texts("plan"))
    num_slices = len(desk.slices())
    again = desk.run()
    assert len(desk.slices()) == num_slices
    assert again.recommendation.choice.configuration == verified.recommendation.choice.configuration


@pytest.mark.slow
def test_a_prober_is_closed_whatever_happens(desk: Desk) -> None:
    desk.job = small_job(workload={"path": "tests.tuner.service.sized:Nothing"})
    with pytest.raises(JobError, match="has no class Nothing"):
        desk.run()
    desk.job = small_job()
    desk.run()
    assert all(not prober._done for prober in desk.probers)


def test_a_living_tuner_keeps_others_off_its_study(desk: Desk) -> None:
    study = desk.store.ledger.open_study("job", "f", desk.job.model_dump(mode="json"))
    first = desk.job.baseline_configuration()
    assert first is not None
    desk.store.ledger.start_probe(
        study.study_id, first, Purpose.TIMING, trial_number=None, owner=own_name(), lease_seconds=60
    )
    with pytest.raises(StorageError, match=r"study job is in use by .*--fresh"):
        desk.run()


def test_a_report_is_written_anew_without_probing(reported: tuple[Desk, RunResult]) -> None:
    desk, result = reported
    before = result.recommendation
    files = report_job(desk.opened, desk.store, desk.folder / "elsewhere")
    assert len(desk.probers) == 1
    again = Recommendation.from_dict(json.loads(files["recommendation.json"].read_text()))
    assert again.choice.configuration == before.choice.configuration
    assert again.choice.measured_seconds == before.choice.measured_seconds
    assert again.verified == before.verified
    assert again.stop_reason == before.stop_reason
    assert again.tuning == before.tuning


def test_the_report_holds_predictions_against_what_was_measured(reported: tuple[Desk, RunResult]) -> None:
    text = reported[1].files["report.md"].read_text()
    assert "inside their 90% interval" in text


def test_what_an_answer_rests_on_is_said_in_whole_sentences(reported: tuple[Desk, RunResult]) -> None:
    desk, result = reported
    said = [*result.recommendation.evidence, *result.recommendation.warnings]
    assert all(re.fullmatch(r"[A-Z0-9].*\.", words) for words in said)
    runs, slices = len(desk.probers[0].started), len(desk.slices())
    assert runs == slices
    assert re.match(rf"\d+ trainings? started and \d+ timing probes? made, in {slices} slices?\.", said[0])
    assert any(re.search(r"nothing in this space is (noticeably|more than [\d.]+ times) ", w) for w in said)
    assert any("Only one run reached the target" in words for words in said)


def test_the_launch_command_names_the_answer_s_axes(reported: tuple[Desk, RunResult]) -> None:
    desk, result = reported
    chosen = result.recommendation.choice.configuration
    words = result.recommendation.command.split()
    assert words[:2] == ["paceline", "train"]
    assert words[2] == str(desk.folder / "job.toml")
    flags = dict(zip(words[3::2], words[4::2], strict=True))
    assert flags == {f"--{axis.replace('_', '-')}": str(value) for axis, value in chosen.items()}


@pytest.mark.slow
@pytest.mark.parametrize("budget", ["5m", "30s"])
def test_a_run_and_its_report_believe_the_same(desk: Desk, budget: str) -> None:
    """Candidates, draws and priors of a report are those of the search, so every number is the same."""
    desk.job = small_job(budget={"time": budget}, goal={"trainings": 50})
    # Another study in the database, from which both learn.
    desk.run(fresh=True)
    result = desk.run(fresh=True)
    files = report_job(desk.opened, desk.store, desk.folder / "elsewhere")
    again = Recommendation.from_dict(json.loads(files["recommendation.json"].read_text()))
    before = result.recommendation
    assert again.choice == before.choice
    assert again.runner_up == before.runner_up
    assert again.baseline == before.baseline
    assert again.strategies == before.strategies


@pytest.mark.slow
def test_what_failed_before_a_search_resumed_is_left_out_of_its_answer_too(desk: Desk) -> None:
    desk.job = small_job(budget={"time": "30s"}, goal={"trainings": 50})
    opened = desk.opened
    study = desk.store.ledger.open_study(
        opened.job.name, opened.fingerprint, opened.job.model_dump(mode="json")
    )
    failed = Configuration(nodes=1, batch_size=32, learning_rate=0.001, strategy="all_reduce")
    lease = desk.store.ledger.start_probe(
        study.study_id, failed, Purpose.STATISTICS, trial_number=None, owner="before", lease_seconds=60.0
    )
    fault = Measurement(
        configuration=failed, purpose=Purpose.STATISTICS, outcome=Outcome.FAILED, error="the network is gone"
    )
    desk.store.ledger.append_slice(lease, fault)
    before = desk.run().recommendation
    files = report_job(desk.opened, desk.store, desk.folder / "elsewhere")
    again = Recommendation.from_dict(json.loads(files["recommendation.json"].read_text()))
    assert (again.choice, again.runner_up, again.baseline) == (
        before.choice,
        before.runner_up,
        before.baseline,
    )


@pytest.mark.slow
def test_a_study_stores_how_wrong_its_forecasts_were(desk: Desk) -> None:
    result = desk.run()
    arrived = result.recommendation.choice
    assert arrived.measured_seconds is not None
    early = [
        prediction
        for prediction in desk.store.ledger.predictions(result.study.study_id)
        if prediction.configuration == arrived.configuration
        and prediction.seconds_observed <= 0.25 * arrived.measured_seconds
        and math.isfinite(prediction.quantiles[0.95])
    ]
    assert early
    fits = desk.store.ledger.past_fits(result.study.fingerprint)
    stored = [fit for fit in fits if fit.model == "calibration"]
    assert [fit.num_slices for fit in stored] == [1]


@pytest.mark.slow
def test_forecasts_are_wider_after_a_study_whose_forecasts_were_wrong(desk: Desk) -> None:
    desk.job = small_job(goal={"trainings": 50})
    ledger = desk.store.ledger
    study = desk.run().study

    def width() -> float:
        files = report_job(desk.opened, desk.store, desk.folder / "elsewhere")
        written = Recommendation.from_dict(json.loads(files["recommendation.json"].read_text()))
        assert written.baseline is not None
        assert written.baseline.measured_seconds is None
        return math.log(written.baseline.seconds.upper / written.baseline.seconds.lower)

    before = width()
    other = ledger.open_study("other", "another job", {}, fresh=True)
    ledger.add_fit(
        FitRecord(
            study_id=other.study_id,
            fingerprint="another job",
            model="calibration",
            created_at=0.0,
            num_slices=20,
            parameters={"mean squared error": (6.0, 1.0)},
            summary={"kind": "workload"},
        )
    )
    assert study.study_id != other.study_id
    assert width() > 1.5 * before


def test_an_interrupt_before_the_first_score_leaves_a_report(desk: Desk) -> None:
    opened = desk.opened
    opened.interruption.is_requested = True
    options = RunOptions(output=desk.folder / "out")
    with pytest.raises(KeyboardInterrupt):
        run_job(opened, desk.store, options, make_prober=desk.make_prober)
    report = json.loads((desk.folder / "out" / "report.json").read_text())
    assert report["recommendation"] is None
    assert report["reason"].startswith("there is no recommendation yet: the search was interrupted")
    assert "There are no curves" in (desk.folder / "out" / "report.html").read_text()
