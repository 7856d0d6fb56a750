from __future__ import annotations

import math
import threading
import time
from pathlib import Path

import pytest

from storage import open_storage
from storage.database import Storage
from tuner.domain.errors import ProbeError
from tuner.domain.job_queue import NewJob
from tuner.domain.remote_slices import Answer, SliceEnd
from tuner.service.opening import open_job
from tuner.service.run import RunOptions, RunResult, run_job
from tuner.service.trainers import prober_maker

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "remote_trainer.toml"


@pytest.mark.slow
def test_a_search_without_any_trainer_ends_and_is_charged_nothing(tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    path.write_text(EXAMPLE.read_text().replace("[goal]", 'offer_timeout = "1s"\n[goal]'))
    with open_storage(f"sqlite:///{tmp_path}/service.db") as store:
        store.queue.submit(NewJob(name="job", job_file=""))
        lease = store.queue.claim("w", labels=(), lease_seconds=600, most_failures=3)
        assert lease is not None
        make = prober_maker(store.remote_slices, lease)
        with pytest.raises(ProbeError, match="no trainer took a slice for 1 s: start a trainer"):
            run_job(open_job(path), store, RunOptions(output=tmp_path / "out"), make_prober=make)
        (study,) = store.ledger.studies()
        slices = [measured for probe in store.ledger.probes(study.study_id) for measured in probe.slices]
    assert slices
    assert sum(measured.charged_seconds for measured in slices) < 0.5


def train(store: Storage, job_id: int, most_samples: int, ended: threading.Event) -> None:
    """A trainer that goes away after some samples, or when the search has ended."""
    slices, progress = store.remote_slices, dict[str, int]()
    while sum(progress.values()) < most_samples:
        while (taken := slices.take(job_id, "a")) is None:
            if ended.wait(0.05):
                return
        number, answer = taken.last_number, Answer.CONTINUE
        while answer is Answer.CONTINUE and sum(progress.values()) < most_samples:
            number += 1
            samples = progress[taken.probe] = progress.get(taken.probe, 0) + 128
            line = {"samples": samples, "accuracy": 1.0 - 0.9 * math.exp(-samples / 3000)}
            answer = slices.report(taken.slice_id, number, [line], checkpoint=f"s3://{taken.probe}")
            time.sleep(0.02)
        slices.finish(taken.slice_id, SliceEnd.PAUSED, checkpoint=f"s3://{taken.probe}")


def run_with_trainer(folder: Path, job_file: str, most_samples: int) -> RunResult:
    path = folder / "job.toml"
    path.write_text(job_file)
    with open_storage(f"sqlite:///{folder}/service.db") as store:
        store.queue.submit(NewJob(name="job", job_file=""))
        lease = store.queue.claim("w", labels=(), lease_seconds=600, most_failures=3)
        assert lease is not None
        ended = threading.Event()
        trainer = threading.Thread(target=train, args=(store, lease.job_id, most_samples, ended))
        trainer.start()
        make = prober_maker(store.remote_slices, lease)
        try:
            return run_job(open_job(path), store, RunOptions(output=folder / "out"), make_prober=make)
        finally:
            ended.set()
            trainer.join()


@pytest.mark.slow
def test_a_search_whose_trainers_have_gone_answers_after_its_time_budget(tmp_path: Path) -> None:
    job_file = EXAMPLE.read_text().replace('"30s"', '"1s"').replace('time = "2m"', 'time = "8s"')
    result = run_with_trainer(tmp_path, job_file, 4500)
    assert result.recommendation.choice.samples_observed
    assert "budget.time = 8 s has passed" in result.recommendation.stop_reason


@pytest.mark.slow
def test_the_report_of_a_remote_job_shows_what_a_trainer_has_to_do(tmp_path: Path) -> None:
    job_file = EXAMPLE.read_text().replace('time = "2m"', 'time = "20s"').replace("0.9", "0.85")
    answer = run_with_trainer(tmp_path, job_file, 10**9).recommendation
    assert answer.trainer_values["batch_size"] == answer.choice.configuration.batch_size
    assert (answer.command, answer.user_command) == ("", "")
    assert answer.checkpoint is not None
    assert answer.checkpoint.startswith("s3://")
    text = (tmp_path / "out/report.md").read_text()
    assert f'"batch_size": {answer.choice.configuration.batch_size}' in text
    assert answer.checkpoint in text
    assert "paceline train" not in text
    assert not (tmp_path / "out/launch.sh").exists()
