"""A search that is interrupted again and again gives the answer of an undisturbed one."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest

from benchmarks.soak_service_jobs import JOB, RECORDING, differences, recording, stable, undisturbed
from storage import open_storage
from storage.sql_ledger import SqlLedger
from tuner.domain.ledger import Lease
from tuner.domain.measurement import Measurement
from tuner.search.events import SearchEvent
from tuner.service.opening import open_job
from tuner.service.run import RunOptions, RunResult, run_job


def run_with_interrupts(folder: Path, seed: int, kind: str = "", every: int = 1) -> tuple[RunResult, int]:
    """Runs a recorded job; every so many events of a kind, the user interrupts and starts it again.

    Returns the result and the number of starts that did not end with it.
    """
    (folder / RECORDING).write_bytes(recording())
    (folder / "job.toml").write_text(JOB.format(seed=seed))
    with open_storage(f"sqlite:///{folder}/study.db") as store:
        for attempt in range(100):
            numbers = count(1)

            def listen(event: SearchEvent, numbers: count[int] = numbers) -> None:
                if event.kind == kind and next(numbers) % every == 0:
                    raise KeyboardInterrupt

            options = RunOptions(output=folder / "out", past_studies=False)
            try:
                return run_job(open_job(folder / "job.toml"), store, options, listen), attempt
            except (KeyboardInterrupt, SystemExit):
                continue
    raise AssertionError("the search has not ended")


@pytest.mark.slow
def test_an_end_before_a_slice_is_stored_does_not_change_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_slice, numbers = SqlLedger.append_slice, count(1)

    def append_slice(ledger: SqlLedger, lease: Lease, measurement: Measurement) -> None:
        number = next(numbers)
        # As if the process were killed: nothing is stored any more.
        if number % 4 == 0 and number < 40:
            raise SystemExit
        store_slice(ledger, lease, measurement)

    monkeypatch.setattr(SqlLedger, "append_slice", append_slice)
    result, num_ends = run_with_interrupts(tmp_path, 4)
    assert num_ends == 9
    assert differences(stable(result.recommendation.to_dict()), undisturbed(4)) == {}


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "every"), [("decision", 3), ("slice", 2)])
def test_interrupts_do_not_change_the_answer(tmp_path: Path, kind: str, every: int) -> None:
    result, num_interrupts = run_with_interrupts(tmp_path, 3, kind, every)
    assert num_interrupts > 10
    assert differences(stable(result.recommendation.to_dict()), undisturbed(3)) == {}
