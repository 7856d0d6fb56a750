"""Context of a search: job, cluster, study, ledger, output folder, clock and event listener."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from tuner.domain.cluster import Cluster
from tuner.domain.ledger import Ledger, StudyRecord
from tuner.job import Job
from tuner.search.events import Listener, SearchEvent, ignore
from tuner.search.optuna_trials import StudyTrials


@dataclass(frozen=True, kw_only=True)
class SearchContext:
    """The parts that a search uses.

    Args:
        job: The job.
        cluster: The cluster that it trains on.
        study: Its study.
        ledger: The ledger that stores its probes.
        trials: Its Optuna study.
        folder: The output folder; probe folders are in `probes/` below it.
        epoch_samples: Number of samples of the training set.
        owner: Name of this process in leases.
        parallel: Maximum number of concurrent slices, if the cluster has enough nodes.
        clock: Returns seconds since the epoch.
        sleep: Waits for a number of seconds.
        listen: Receives events.
    """

    job: Job
    cluster: Cluster
    study: StudyRecord
    ledger: Ledger
    trials: StudyTrials
    folder: Path
    epoch_samples: int
    owner: str
    parallel: int = 1
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    listen: Listener = ignore

    def say(self, event: SearchEvent) -> None:
        """Sends an event to the listener."""
        self.listen(replace(event, num_slots=self.parallel))
