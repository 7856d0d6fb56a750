from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.service import fill, measure
from storage import open_storage


@pytest.mark.slow
def test_every_request_is_answered_and_jobs_are_claimed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/service.db"
    with open_storage(url) as store:
        fill(url, 400, 1200)
        rows = measure(store, 400)
        assert len(store.queue.workers()) == 0
        assert len(store.ledger.probes(200)) == 3
    assert {row["request"] for row in rows} >= {"list of jobs", "claim of the next job", "page of a job"}
    assert all(0 < row["median_ms"] <= row["p95_ms"] for row in rows)
