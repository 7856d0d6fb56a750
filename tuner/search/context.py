"""The objects that all parts of a search share: job, cluster, database, output folder and clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from tuner.domain.cluster import Cluster
from tuner.domain.ledger import Ledger, StudyRecord
from tuner.job import Job
from tuner.search.events import Listener, SearchEvent, Watcher, ignore, unwatched
from tuner.search.interrupts import Interruption
from tuner.search.optuna_trials import StudyTrials


@dataclass(frozen=True, kw_only=True)
class SearchContext:
    """The objects and settings that all parts of a search share.

    Args:
        job: The job.
        cluster: The cluster on which the job trains.
        study: Record of the Paceline study, under which the ledger stores this search.
        ledger: The database that stores the trainings, predictions and fitted models of the study.
        trials: Gives access to the Optuna study, which stores each training as a trial.
        folder: The output folder. Its subfolder `probes` contains a folder with the files of each trial
            training.
        epoch_samples: Number of samples of the training set.
        owner: Name of this process, under which it reserves the right to continue a training.
        parallel: Maximum number of trainings that run at the same time. The number of nodes of the cluster
            may limit it further.
        restart_lost: Whether a training whose checkpoint is not on this host starts from the beginning, as
            after a takeover by another host. If not, a missing checkpoint is an error.
        saves: Function that says whether slices may save a checkpoint when the search is interrupted. If not,
            they are stopped immediately.
        clock: Function that returns the present time, in seconds since the Unix epoch.
        sleep: Function that waits for the given number of seconds.
        listen: Function that receives the events of the search.
        watch: Function that receives the state of the search after each decision, with the forecasts if the
            decision made some, and while slices run.
        interruption: Whether the user has asked the search to end early.
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
    restart_lost: bool = False
    saves: Callable[[], bool] = lambda: False
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    listen: Listener = ignore
    watch: Watcher = unwatched
    interruption: Interruption = field(default_factory=Interruption)

    def say(self, event: SearchEvent) -> None:
        """Sends an event of the search to the function that shows it to the user."""
        self.listen(replace(event, num_slots=self.parallel))
