from __future__ import annotations

from pathlib import Path

import pytest

from storage import open_storage
from tuner.domain.errors import ProbeError
from tuner.domain.job_queue import NewJob
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
