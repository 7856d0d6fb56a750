"""What ranks returned becomes one measurement."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from search_spaces import Configuration, with_knobs
from tests.tuner.probes.tiny_jobs import FOLDER, tiny_job
from tuner.domain.measurement import Measurement, Outcome, Purpose
from tuner.launchers import JobHandle
from tuner.probes import Until
from tuner.probes.probe_folder import ProbeFolder
from tuner.probes.slice_plan import SlicePlan
from tuner.probes.slice_record import SliceRecord


def measured(folder: Path, *reported: dict[str, Any], setup_seconds: tuple[float, ...] = ()) -> Measurement:
    """The slice of ranks that returned so much, each of which was set up so long after its entry."""
    job = tiny_job()
    plan = SlicePlan(
        job=job,
        job_folder=FOLDER,
        configuration=with_knobs(
            Configuration(nodes=3, batch_size=64, learning_rate=0.05, strategy="elastic_averaging")
        ),
        purpose=Purpose.TRAINING,
        until=Until(samples=1000),
        folder=folder,
    )
    record = SliceRecord(
        plan=plan,
        job=JobHandle(identity="1", num_nodes=3, num_ranks=3, folder=folder),
        folder=ProbeFolder(folder),
        cluster=job.resolved_cluster(),
        started=0.0,
    )
    for rank, seconds in enumerate(setup_seconds):
        record.take(rank, {"kind": "started", "setup_seconds": seconds, "samples": 0})
    returned = {"outcome": "paused", "timings": [], "seconds": 1.0, "peak_bytes": 0, "parameter_bytes": 0}
    outcome = record.finish({rank: {**returned, **own} for rank, own in enumerate(reported)})
    assert outcome is Outcome.PAUSED
    return record.measurement(outcome, elapsed_seconds=1.0, startup_seconds=0.0)


def test_ranks_that_exchanged_more_weigh_more_in_what_they_reported(tmp_path: Path) -> None:
    found = measured(
        tmp_path,
        {"staleness_steps": (200.0, 100), "bytes_per_step": (3000.0, 30)},
        {"staleness_steps": (180.0, 100), "bytes_per_step": (0.0, 0)},
        {"staleness_steps": (100.0, 10), "bytes_per_step": (1000.0, 10)},
    )
    # A mean of the ranks' own means would be 4.6.
    assert found.staleness_steps == pytest.approx(480 / 210)
    assert found.bytes_per_step == pytest.approx(100.0)


def test_rank_that_reported_nothing_does_not_lower_the_mean(tmp_path: Path) -> None:
    found = measured(tmp_path, {"staleness_steps": (6.0, 3)}, {"staleness_steps": (0.0, 0)}, {})
    assert found.staleness_steps == pytest.approx(2.0)


def test_where_nothing_was_counted_there_is_no_mean(tmp_path: Path) -> None:
    found = measured(tmp_path, {"staleness_steps": (0.0, 0)}, {}, {})
    assert found.staleness_steps is None
    assert found.bytes_per_step is None


def test_waiting_for_the_last_rank_to_enter_counts_once_as_startup(tmp_path: Path) -> None:
    # The prober's clock of start-up runs until the last rank has entered; the others wait for it.
    found = measured(tmp_path, {}, {}, {}, setup_seconds=(0.9, 0.3, 0.5))
    assert found.startup_seconds == pytest.approx(0.3)
