"""A whole search in miniature: a job, a ledger in memory, an Optuna study, a prober that obeys a law."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna

from benchmarks.memory_ledger import MemoryLedger
from search_spaces import Configuration
from tests.tuner.search.synthetic import Clock, Law, SyntheticProber
from tuner.domain.cluster import Cluster, RankDelay
from tuner.domain.ledger import Lease, ProbeRecord, StudyRecord
from tuner.domain.measurement import Measurement, Purpose
from tuner.job import Job
from tuner.probes import Prober
from tuner.search.context import SearchContext
from tuner.search.events import SearchEvent
from tuner.search.loop import Search
from tuner.search.optuna_trials import StudyTrials
from tuner.search.policy import Policy
from tuner.search.sampler import baseline_sampler
from tuner.search.state import SearchState, read_state

EPOCH_SAMPLES = 20_000
BASELINE = Configuration(nodes=1, batch_size=64, learning_rate=0.01, strategy="all_reduce")

optuna.logging.set_verbosity(optuna.logging.WARNING)


def make_job(**sections: dict[str, Any] | None) -> Job:
    """A job over three node counts, seven batches and four decades of rates; a section given replaces
    those of its keys that it names, None leaves it out.
    """
    data: dict[str, dict[str, Any] | None] = {
        "workload": {"path": "tests.nothing:Nothing"},
        "cluster": {"nodes": [1, 2, 4]},
        "goal": {"metric": "accuracy", "target": 0.85},
        "space": {
            "batch_size": {"low": 16, "high": 1024},
            "learning_rate": {"low": 1e-4, "high": 1.0},
        },
        "baseline": {"nodes": 1, "batch_size": 64, "learning_rate": 0.01},
        "budget": {},
        "probe": {},
    }
    for name, section in sections.items():
        data[name] = None if section is None else {**(data[name] or {}), **section}
    return Job.model_validate({name: section for name, section in data.items() if section is not None})


def make_cluster(job: Job, *, cores: int = 2, delays: tuple[RankDelay, ...] = ()) -> Cluster:
    """The job's cluster on a host with a known number of cores, whatever this machine has."""
    section = job.cluster
    return Cluster(
        node_counts=section.nodes,
        devices_per_node=section.devices_per_node,
        dollars_per_node_hour=section.dollars_per_node_hour,
        cores_per_host=cores,
        delays=delays,
        virtual=job.resolved_cluster().virtual,
        at_hand=job.resolved_cluster().at_hand,
        capacity=section.capacity,
    )


def configuration(nodes: int = 1, batch_size: int = 64, learning_rate: float = 0.03) -> Configuration:
    """An all-reduce configuration."""
    return Configuration(
        nodes=nodes, batch_size=batch_size, learning_rate=learning_rate, strategy="all_reduce"
    )


@dataclass
class World:
    """Everything that outlives one process: ledger, Optuna's storage, folders, the clock.

    Args:
        folder: The output folder.
        job: What is searched.
        law: How training goes.
        sampler: `tpe`, `gp` or `random` for the study's own sampler.
    """

    folder: Path
    job: Job = field(default_factory=make_job)
    law: Law = field(default_factory=Law)
    sampler: str = "random"
    seed: int = 0

    def __post_init__(self) -> None:
        self.clock = Clock()
        self.ledger = MemoryLedger(clock=self.clock)
        self.cluster = make_cluster(self.job, cores=self.law.cores, delays=self.law.delays)
        self.study: StudyRecord = self.ledger.open_study("world", "f", {})
        self.optuna_study = optuna.create_study(
            sampler=baseline_sampler(self.sampler, self.job.search_space(), self.seed)
        )
        self.prober = SyntheticProber(law=self.law, clock=self.clock, cluster=self.cluster, seed=self.seed)
        self.events: list[SearchEvent] = []

    def search(
        self,
        policy: Policy,
        *,
        prober: Prober | None = None,
        owner: str = "first",
        parallel: int = 1,
        restart_lost: bool = False,
    ) -> Search:
        """A search as a new process would make it."""
        context = SearchContext(
            job=self.job,
            cluster=self.cluster,
            study=self.study,
            ledger=self.ledger,
            trials=StudyTrials(self.optuna_study, self.job),
            folder=self.folder,
            epoch_samples=EPOCH_SAMPLES,
            owner=owner,
            parallel=parallel,
            restart_lost=restart_lost,
            clock=self.clock,
            sleep=self.clock.sleep,
            listen=self.events.append,
        )
        return Search(context, prober or self.prober, policy)

    def state(self) -> SearchState:
        """Where the search stands."""
        return read_state(self.job, self.cluster, self.probes(), EPOCH_SAMPLES)

    def probes(self) -> list[ProbeRecord]:
        """Every probe of the study."""
        return self.ledger.probes(self.study.study_id)

    def keep(self, *slices: Measurement) -> Lease:
        """Writes the slices of one probe down, as if they had been carried out."""
        first = slices[0]
        lease = self.ledger.start_probe(
            self.study.study_id,
            first.configuration,
            first.purpose,
            trial_number=None,
            owner="past",
            lease_seconds=60.0,
        )
        for measurement in slices:
            self.ledger.append_slice(lease, measurement)
        self.ledger.release(lease)
        return lease

    def ran(self, what: Configuration, seconds: float, *, purpose: Purpose = Purpose.STATISTICS) -> Lease:
        """Trains a configuration for so many training seconds, by the law, and writes it down."""
        folder = self.folder / f"past-{len(self.probes())}"
        folder.mkdir(parents=True)
        return self.keep(self.prober.slice(what, purpose, seconds, folder))

    def texts(self, kind: str) -> list[str]:
        """What was said, of one kind."""
        return [event.text for event in self.events if event.kind == kind]
