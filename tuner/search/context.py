"""Context of a search: its job, cluster, study, ledger, folder, clock and listener."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from tuner.domain.cluster import Cluster
from tuner.job import Job
from tuner.ledger import Ledger, StudyRecord
from tuner.search.events import Listener, SearchEvent, ignore
from tuner.search.optuna_trials import StudyTrials


@dataclass(frozen=True, kw_only=True)
class SearchContext:
    """What a search works with.

    Args:
        job: The job.
        cluster: What it trains on.
        study: Its study.
        ledger: Its memory.
        trials: The Optuna study.
        folder: The output folder; probes lie in `probes/` below it.
        epoch_samples: Size of the training set.
        owner: Names this process in leases.
        parallel: Maximum number of concurrent slices, if the cluster has nodes for them.
        clock: Seconds since the epoch.
        sleep: Waits so many seconds.
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
        """Reports an event of its slices."""
        self.listen(replace(event, num_slots=self.parallel))
