"""All that a use case is given: an opened job, a SQLite store, a prober that obeys a law."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from search_spaces import Configuration
from storage import Storage
from tests.tuner.search.synthetic import Clock, Law, SyntheticProber
from tests.tuner.search.world import make_job
from tuner.domain.ledger import ProbeRecord
from tuner.domain.measurement import Measurement, Outcome, Purpose
from tuner.job import Job
from tuner.probes import ProbeHandle, Prober, Until
from tuner.search.events import SearchEvent
from tuner.service.opening import OpenedJob
from tuner.service.run import RunOptions, RunResult, run_job

#: Few candidates, so that a decision takes tens of milliseconds.
SPACE = {
    "batch_size": [32, 128, 512],
    "learning_rate": {"low": 1e-3, "high": 1.0, "levels_per_decade": 3},
}


def small_job(**sections: Any) -> Job:
    """A job over two node counts, three batches and three decades of rates."""
    return make_job(
        **{
            "workload": {"path": "tests.tuner.service.sized:Sized"},
            "cluster": {"nodes": [1, 2]},
            "space": SPACE,
            "budget": {"time": "20m"},
            **sections,
        }
    )


class FailingProber(SyntheticProber):
    """Fails in every slice, with words."""

    def poll(self, handle: ProbeHandle) -> Measurement:
        words = "rank 0: Traceback\nArithmeticError: the workload's own words"
        return replace(super().poll(handle), outcome=Outcome.FAILED, curve=(), error=words)


class FlakyProber(SyntheticProber):
    """Trains the first slice, then fails."""

    def start(
        self, configuration: Configuration, purpose: Purpose, until: Until, folder: Path
    ) -> ProbeHandle:
        handle = super().start(configuration, purpose, until, folder)
        if len(self.started) > 1:
            self._done[handle.identity] = replace(
                self._done[handle.identity], outcome=Outcome.FAILED, curve=(), error="the network is gone"
            )
        return handle


class LosingProber(FlakyProber):
    """Trains the first slice, then loses its nodes."""

    def poll(self, handle: ProbeHandle) -> Measurement:
        measurement = super().poll(handle)
        return replace(measurement, infrastructure_fault=measurement.outcome is Outcome.FAILED)


@dataclass
class Desk:
    """Runs use cases over one folder and one database.

    Args:
        folder: The job's folder.
        store: The database.
        law: How training goes.
        job: The job.
        kind: Of the probers made.
    """

    folder: Path
    store: Storage
    law: Law = field(default_factory=lambda: Law(samples=8e4, seconds_per_sample=1e-3))
    job: Job = field(default_factory=small_job)
    kind: type[SyntheticProber] = SyntheticProber

    def __post_init__(self) -> None:
        self.clock = Clock()
        self.probers: list[SyntheticProber] = []
        self.events: list[SearchEvent] = []

    @property
    def opened(self) -> OpenedJob:
        return OpenedJob(job=self.job, path=self.folder / "job.toml", fingerprint="f")

    def make_prober(self, opened: OpenedJob) -> Prober:
        prober = self.kind(law=self.law, clock=self.clock, cluster=opened.cluster)
        self.probers.append(prober)
        return prober

    def run(self, **options: Any) -> RunResult:
        """The use case `run`."""
        chosen = RunOptions(output=self.folder / "out", **options)
        return run_job(self.opened, self.store, chosen, self.events.append, make_prober=self.make_prober)

    def probes(self) -> list[ProbeRecord]:
        """Every probe of the newest study."""
        return self.store.ledger.probes(self.store.ledger.studies()[-1].study_id)

    def slices(self) -> list[Measurement]:
        """Every slice of the newest study."""
        return [measurement for probe in self.probes() for measurement in probe.slices]

    def texts(self, kind: str) -> list[str]:
        return [event.text for event in self.events if event.kind == kind]
