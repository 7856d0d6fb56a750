"""What the search must know about the probes of a job: cost of resuming a run, and when runs are scored."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from tuner.domain.cluster import Cluster
from tuner.domain.measurement import Measurement
from tuner.job import Job
from tuner.probes.slice_plan import first_evaluation

#: Assumed start-up time of a slice until one was measured, seconds.
UNKNOWN_STARTUP_SECONDS = 3.0
#: Assumed start-up time of a slice on ranks that have already run a slice, seconds.
_WARM_STARTUP_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class ProbeTerms:
    """Properties of a job's prober that the search depends on.

    The search only reads these properties, so it does not depend on the class of the prober.

    Args:
        is_training: Whether slices are part of the training that the user wants. They are not if the cluster
            exists only as a description and its ranks are emulated in one process of this host.
        resumes: Whether a run continues where its last slice ended. Otherwise each slice starts the run over.
        pays_to_resume: Whether a slice that continues a run is charged for a start-up too.
        times_alone: Whether a slice can time steps without training. It cannot if a recording is replayed.
        reuses_ranks: Whether later slices run on the processes of the first slice and start much faster.
        ends_itself: Whether a run may end by itself, as a script does after its last epoch.
        startup_seconds: Assumed start-up time of a slice until one was measured, seconds.
        first_score_samples: Number of samples processed before the first score; None if the user's script
            decides when to score.
        score_growth: Ratio of the number of samples processed at a score to that at the previous score;
            unused if `first_score_samples` is None.
    """

    is_training: bool = True
    resumes: bool = True
    pays_to_resume: bool = True
    times_alone: bool = True
    reuses_ranks: bool = False
    ends_itself: bool = False
    startup_seconds: float = UNKNOWN_STARTUP_SECONDS
    first_score_samples: int | None = None
    score_growth: float = 1.0

    def later_startup(self, measured: Sequence[float]) -> float:
        """Predicts the start-up time of the next slice, seconds.

        Args:
            measured: Start-up times of the slices so far, seconds, oldest first.
        """
        if not measured:
            return self.startup_seconds
        if not self.reuses_ranks:
            return median(measured)
        return median(measured[1:]) if len(measured) > 1 else min(measured[0], _WARM_STARTUP_SECONDS)

    def next_score_samples(self, samples: int) -> int | None:
        """Returns the number of samples processed at the next score of a run.

        Args:
            samples: Number of samples that the run has processed so far.

        Returns:
            The number of samples; None if the user's script decides when to score.
        """
        if self.first_score_samples is None:
            return None
        return max(math.ceil(samples * self.score_growth), self.first_score_samples)


def probe_terms(job: Job, cluster: Cluster, slices: Sequence[Measurement], epoch_samples: int) -> ProbeTerms:
    """Returns the properties of a job's probes.

    Args:
        job: The job whose probes are described.
        cluster: The cluster on which the job trains.
        slices: Measurements of all slices so far; they may show that the script cannot resume.
        epoch_samples: Number of samples in the training set.
    """
    recording = job.recording()
    is_recorded = recording is not None
    return ProbeTerms(
        is_training=cluster.virtual is None,
        resumes=job.can_resume and not any(m.resume_refused for m in slices),
        pays_to_resume=not is_recorded,
        times_alone=not is_recorded,
        reuses_ranks=not is_recorded and not job.runs_command and cluster.nodes_share_host,
        ends_itself=job.runs_command,
        startup_seconds=UNKNOWN_STARTUP_SECONDS if recording is None else recording.startup_seconds,
        first_score_samples=None
        if is_recorded
        else first_evaluation(epoch_samples, job.probe.first_score_samples),
        score_growth=job.probe.score_growth,
    )
