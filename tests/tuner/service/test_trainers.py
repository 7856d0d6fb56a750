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
from tuner.service.run import RunOptions, run_job
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


def train_a_little(store: Storage, job_id: int) -> None:
    """A trainer that goes away after a few slices, at an accuracy of about 0.8."""
    slices, samples = store.remote_slices, 0
    while samples < 4500:
        while (taken := slices.take(job_id, "a")) is None:
            time.sleep(0.05)
        number, answer = taken.last_number, Answer.CONTINUE
        while answer is Answer.CONTINUE:
            number, samples = number + 1, samples + 128
            line = {"samples": samples, "accuracy": 1.0 - 0.9 * math.exp(-samples / 3000)}
            answer = slices.report(taken.slice_id, number, [line], checkpoint="c")
            time.sleep(0.05)
        slices.finish(taken.slice_id, SliceEnd.PAUSED, checkpoint="c")


@pytest.mark.slow
def test_a_search_whose_trainers_have_gone_answers_after_its_time_budget(tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    path.write_text(EXAMPLE.read_text().replace('"30s"', '"1s"').replace('time = "2m"', 'time = "6s"'))
    with open_storage(f"sqlite:///{tmp_path}/service.db") as store:
        store.queue.submit(NewJob(name="job", job_file=""))
        lease = store.queue.claim("w", labels=(), lease_seconds=600, most_failures=3)
        assert lease is not None
        trainer = threading.Thread(target=train_a_little, args=(store, lease.job_id))
        trainer.start()
        result = run_job(
            open_job(path),
            store,
            RunOptions(output=tmp_path / "out"),
            make_prober=prober_maker(store.remote_slices, lease),
        )
        trainer.join()
    assert result.recommendation.choice.samples_observed
    assert "budget.time = 6 s has passed" in result.recommendation.stop_reason
