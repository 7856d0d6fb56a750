"""What a study's fingerprint knows of the machine, and which study a job continues."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.memory_ledger import MemoryLedger
from search_spaces import Configuration
from tests.tuner.service.desk import small_job
from tests.tuner.service.sized import Sized
from tuner.domain.errors import JobError
from tuner.domain.measurement import CurvePoint, Measurement, Outcome, Purpose
from tuner.search.events import SearchEvent
from tuner.service import opening
from tuner.service.opening import OpenedJob, open_study

HERE = Configuration(nodes=1, batch_size=32, learning_rate=0.1, strategy="all_reduce")


def test_the_models_of_accelerators_are_named_without_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert opening._accelerators(tmp_path) == []
    for bus in ("0000:17:00.0", "0000:65:00.0"):
        folder = tmp_path / bus
        folder.mkdir()
        (folder / "information").write_text("Model: \t\t NVIDIA H200\nIRQ:   \t\t 42\n")
    assert opening._accelerators(tmp_path) == ["NVIDIA H200", "NVIDIA H200"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert opening._accelerators(tmp_path)[-1] == "CUDA_VISIBLE_DEVICES="


def test_where_no_accelerator_is_the_words_are_those_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "_accelerators", lambda: [])
    assert opening.hardware().endswith("GiB")
    monkeypatch.setattr(opening, "_accelerators", lambda: ["NVIDIA H200"])
    assert opening.hardware().endswith("GiB, NVIDIA H200")


def test_a_budget_from_a_flag_leaves_unstated_what_the_file_does_not_state(tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    path.write_text(
        "[workload]\ncommand = 'train {learning_rate} {batch_size}'\n[goal]\ntarget = 0.9\n"
        "[space]\nbatch_size = [8]\nlearning_rate = [0.1]\n[budget]\nprobes = 3\n"
    )
    plain = opening.open_job(path)
    limited = opening.open_job(path, time_budget="60s")
    assert (limited.job.budget.time, limited.job.budget.probes) == (60.0, 3)
    assert not limited.job.cluster.states_threads
    assert limited.fingerprint == plain.fingerprint


def as_opened(folder: Path, fingerprint: str) -> OpenedJob:
    return OpenedJob(job=small_job(), path=folder / "job.toml", fingerprint=fingerprint)


SCORED = CurvePoint(training_seconds=2.0, step=4, samples=128, value=0.5)


@pytest.mark.parametrize(("was_measured", "curve"), [(False, ()), (True, ()), (True, (SCORED,))])
def test_a_study_that_measured_nothing_continues_under_its_name_after_a_change(
    tmp_path: Path, was_measured: bool, curve: tuple[CurvePoint, ...]
) -> None:
    ledger, events = MemoryLedger(), list[SearchEvent]()
    first = open_study(ledger, as_opened(tmp_path, "before"), tmp_path)
    lease = ledger.start_probe(
        first.study_id, HERE, Purpose.STATISTICS, trial_number=0, owner="me", lease_seconds=60.0
    )
    error = None if was_measured and not curve else "the slice was interrupted"
    interrupted = Measurement(
        configuration=HERE,
        purpose=Purpose.STATISTICS,
        outcome=Outcome.PAUSED,
        curve=curve,
        charged_seconds=3.0,
        error=error,
    )
    ledger.append_slice(lease, interrupted)
    ledger.release(lease)
    second = open_study(ledger, as_opened(tmp_path, "after"), tmp_path, listen=events.append)
    (warning,) = [event.text for event in events]
    if was_measured:
        assert second.study_id != first.study_id
        assert warning.endswith("starting a new study")
        return
    assert (second.study_id, second.name) == (first.study_id, first.name)
    assert "has no measurements and continues" in warning
    # A checkpoint of the older script is not resumed, and what was paid stays charged.
    (probe,) = ledger.probes(first.study_id)
    assert probe.outcome is Outcome.STOPPED
    assert probe.slices == (interrupted,)


def test_a_study_that_another_tuner_works_on_is_left_alone_after_a_change(tmp_path: Path) -> None:
    ledger = MemoryLedger()
    first = open_study(ledger, as_opened(tmp_path, "before"), tmp_path)
    ledger.start_probe(
        first.study_id, HERE, Purpose.STATISTICS, trial_number=0, owner="other", lease_seconds=60.0
    )
    assert open_study(ledger, as_opened(tmp_path, "after"), tmp_path).name == f"{first.name}-2"


def test_data_that_need_a_missing_package_name_it_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(_self: Sized) -> None:
        raise ModuleNotFoundError("No module named 'sklearn'", name="sklearn")

    monkeypatch.setattr(Sized, "training_data", load)
    path = tmp_path / "job.toml"
    path.write_text(
        '[workload]\npath = "tests.tuner.service.sized:Sized"\n[goal]\nmetric = "accuracy"\ntarget = 0.9\n'
        "[space]\nbatch_size = [32]\nlearning_rate = [0.1]\n[cluster]\nnodes = [1]\n"
    )
    with pytest.raises(JobError, match="'sklearn'; install the package that provides sklearn"):
        opening.checked_workload(opening.open_job(path))
