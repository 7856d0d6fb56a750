"""`run --confirm`: the recommendation and the present settings are trained in turn and compared."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from search_spaces import Configuration
from storage import Storage
from tests.recorded_grid import write_job
from tests.tuner.search.synthetic import SyntheticProber
from tests.tuner.service.desk import Desk, small_job
from tuner.domain.confirmation import Confirmation
from tuner.domain.errors import JobError
from tuner.domain.ledger import StudyRecord
from tuner.domain.measurement import Measurement, Outcome, Purpose
from tuner.domain.recommendation import Recommendation
from tuner.probes import ProbeHandle, Prober
from tuner.service.confirming import stored_confirmation
from tuner.service.opening import OpenedJob, find_study, open_job
from tuner.service.reporting import report_job
from tuner.service.run import RunOptions, RunResult, run_job


class SeededDesk(Desk):
    """Trains with the job's seed and remembers the seed of every prober."""

    seeds: list[int]
    interrupt_at: int | None = None
    failing_seed: int | None = None

    def make_prober(self, opened: OpenedJob) -> Prober:
        made = super().make_prober(opened)
        assert isinstance(made, SyntheticProber)
        made.seed = opened.job.seed
        self.seeds.append(opened.job.seed)
        if self.interrupt_at is not None and len(self.probers) > self.interrupt_at:
            raise KeyboardInterrupt
        if opened.job.seed == self.failing_seed:
            return _failing(made)
        return made


class _Failing(SyntheticProber):
    def poll(self, handle: ProbeHandle) -> Measurement:
        return replace(super().poll(handle), outcome=Outcome.FAILED, curve=(), error="the disk is full")


def _failing(made: SyntheticProber) -> Prober:
    return _Failing(law=made.law, clock=made.clock, cluster=made.cluster)


@pytest.fixture
def desk(tmp_path: Path, store: Storage) -> SeededDesk:
    made = SeededDesk(tmp_path, store)
    made.seeds = []
    made.job = small_job(budget={"time": "40s"})
    return made


def confirmation_of(result: RunResult) -> Confirmation:
    assert result.recommendation.confirmation is not None
    return result.recommendation.confirmation


def confirming(desk: Desk) -> list[StudyRecord]:
    return [s for s in desk.store.ledger.studies() if s.job_name == "job.confirm"]


def trained(desk: Desk) -> list[tuple[Configuration, int]]:
    """Configuration and seed of every training that confirms, in the order in which they started."""
    probes = [
        (probe.created_at, probe.configuration, study.job["seed"])
        for study in confirming(desk)
        for probe in desk.store.ledger.probes(study.study_id)
    ]
    return [(configuration, seed) for _, configuration, seed in sorted(probes, key=lambda p: p[0])]


def test_both_are_trained_in_turn_with_the_same_new_seeds(desk: SeededDesk) -> None:
    result = desk.run(confirm=2)
    choice, present = result.recommendation.choice.configuration, desk.job.baseline_configuration()
    assert trained(desk) == [(choice, 1000), (present, 1000), (choice, 2000), (present, 2000)]
    assert desk.seeds == [0, 1000, 1000, 2000, 2000]
    found = confirmation_of(result)
    assert [t.seed for t in found.recommended.trainings] == [1000, 2000]
    assert found.recommended.all_reached
    assert found.baseline.all_reached
    assert found.speedup is not None
    assert found.lower is not None
    assert found.upper is not None
    assert found.lower < found.speedup < found.upper
    truth = desk.law.seconds_to_target(present) / desk.law.seconds_to_target(choice)
    assert found.speedup == pytest.approx(truth, rel=0.3)
    assert any("4 of 4 trainings are left, which take about" in line for line in desk.texts("plan"))


@pytest.mark.slow
def test_the_search_knows_none_of_these_trainings(desk: SeededDesk) -> None:
    plain = desk.run()
    fits = desk.store.ledger.past_fits("f")
    result = desk.run(confirm=2)
    assert replace(result.recommendation, confirmation=None, created_at=0.0) == replace(
        plain.recommendation, created_at=0.0
    )
    assert {fit.study_id for fit in desk.store.ledger.past_fits("f")} == {fit.study_id for fit in fits}
    study = find_study(desk.store.ledger, desk.opened)
    assert study == plain.study
    found = confirmation_of(result)
    charged = [
        m.charged_seconds
        for study in confirming(desk)
        for probe in desk.store.ledger.probes(study.study_id)
        for m in probe.slices
    ]
    assert found.seconds == pytest.approx(sum(charged))
    assert all(m.purpose is Purpose.TRAINING for m in desk.slices())


@pytest.mark.slow
def test_what_was_paid_for_is_not_trained_again_and_more_seeds_are_added(desk: SeededDesk) -> None:
    first = confirmation_of(desk.run(confirm=1))
    assert first.speedup is not None
    assert first.lower is None
    again = desk.run(confirm=1)
    assert confirmation_of(again) == first
    assert desk.seeds == [0, 1000, 1000, 0]
    more = confirmation_of(desk.run(confirm=2))
    assert desk.seeds[4:] == [0, 2000, 2000]
    assert more.recommended.trainings[:1] == first.recommended.trainings
    # A plain run and a report state it, too.
    assert confirmation_of(desk.run()) == more
    files = report_job(desk.opened, desk.store, desk.folder / "out")
    written = Recommendation.from_dict(json.loads(files["recommendation.json"].read_text()))
    assert written.confirmation == more
    assert "Trained again with new seeds" in files["report.html"].read_text()
    assert "Trained again with new seeds" in files["report.md"].read_text()


@pytest.mark.slow
def test_an_interrupted_confirmation_resumes(desk: SeededDesk) -> None:
    desk.interrupt_at = 3
    with pytest.raises(KeyboardInterrupt):
        desk.run(confirm=2)
    assert (desk.folder / "out" / "recommendation.json").is_file()
    desk.interrupt_at = None
    partly = confirmation_of(desk.run())
    assert [len(s.trainings) for s in (partly.recommended, partly.baseline)] == [1, 1]
    assert partly.num_unfinished == 1
    desk.seeds.clear()
    found = confirmation_of(desk.run(confirm=2))
    assert desk.seeds == [0, 2000, 2000]
    assert (found.num_unfinished, len(found.baseline.trainings)) == (0, 2)


@pytest.mark.slow
def test_a_fresh_study_is_confirmed_anew(desk: SeededDesk) -> None:
    desk.run(confirm=1)
    desk.run(confirm=1, fresh=True)
    assert len(confirming(desk)) == 4


@pytest.mark.slow
def test_a_fault_ends_the_confirmation_and_not_the_answer(desk: SeededDesk) -> None:
    desk.failing_seed = 2000
    found = confirmation_of(desk.run(confirm=3))
    assert (len(found.recommended.trainings), found.num_unfinished) == (1, 1)
    assert any("--confirm ended early: the training failed" in words for words in desk.texts("warning"))
    desk.failing_seed = None
    assert len(confirmation_of(desk.run(confirm=3)).baseline.trainings) == 3


class _StuckProber(SyntheticProber):
    """Present settings that never reach the target with another seed than the search's."""

    def poll(self, handle: ProbeHandle) -> Measurement:
        seen = super().poll(handle)
        if self.seed == 0 or handle.configuration.learning_rate != 0.01:
            return seen
        curve = tuple(replace(point, value=0.2) for point in seen.curve)
        outcome = Outcome.PAUSED if seen.outcome is Outcome.REACHED else seen.outcome
        return replace(seen, curve=curve, outcome=outcome)


@pytest.mark.slow
def test_a_training_ends_after_four_times_its_expected_time_and_gives_a_bound(desk: SeededDesk) -> None:
    desk.kind = _StuckProber
    result = desk.run(confirm=1)
    found = confirmation_of(result)
    baseline = result.recommendation.baseline
    assert baseline is not None
    assert [t.outcome for t in found.baseline.trainings] == ["stopped"]
    limit = 4 * baseline.seconds.median
    assert all(limit <= t.training_seconds < 1.3 * limit + 10 for t in found.baseline.trainings)
    assert found.speedup is None
    assert found.at_least is not None
    assert found.at_least > 1
    num_probers = len(desk.probers)
    assert confirmation_of(desk.run(confirm=1)) == found
    assert len(desk.probers) == num_probers + 1


def test_present_settings_that_are_recommended_are_not_compared(desk: SeededDesk) -> None:
    best = min(desk.job.search_space().candidates(), key=desk.law.seconds_to_target)
    axes = {name: value for name, value in best.items() if name in ("nodes", "batch_size", "learning_rate")}
    space = {"batch_size": [best.batch_size], "learning_rate": [best.learning_rate]}
    desk.job = small_job(baseline=axes, space=space, cluster={"nodes": [best.nodes]})
    result = desk.run(confirm=2)
    assert result.recommendation.choice.configuration == best
    assert result.recommendation.confirmation is None
    assert any("nothing to compare" in words for words in desk.texts("warning"))
    assert confirming(desk) == []


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"baseline": None}, r"the section \[baseline\] is missing"),
        ({"baseline": {"nodes": 2, "batch_size": 1}}, "leaves some of 2 ranks without a sample"),
    ],
)
def test_without_present_settings_that_run_nothing_is_started(
    desk: SeededDesk, sections: dict[str, Any], words: str
) -> None:
    desk.job = small_job(**sections)
    with pytest.raises(JobError, match=words):
        desk.run(confirm=1)
    assert desk.probers == []


def test_a_recording_has_no_other_seeds(tmp_path: Path, store: Storage) -> None:
    opened = open_job(write_job(tmp_path))
    with pytest.raises(JobError, match="a recording has only one run of each configuration"):
        run_job(opened, store, RunOptions(output=tmp_path / "out", confirm=2))
    result = run_job(opened, store, RunOptions(output=tmp_path / "out"))
    assert stored_confirmation(store.ledger, opened, result.recommendation) is None


class _RemarkingProber(SyntheticProber):
    def poll(self, handle: ProbeHandle) -> Measurement:
        remark = "the script counts from 0" if self.seed == 0 else "the script changed its mind"
        return replace(super().poll(handle), remarks=(remark,))


@pytest.mark.slow
def test_what_was_noticed_of_the_script_is_said_once(desk: SeededDesk) -> None:
    desk.kind = _RemarkingProber
    desk.run(confirm=2)
    assert desk.texts("warning") == ["the script counts from 0", "the script changed its mind"]
