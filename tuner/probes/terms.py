"""Terms of a job's probes: what continuing a run costs, when it is scored, and whether it can resume."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from tuner.domain.cluster import Cluster
from tuner.domain.measurement import Measurement
from tuner.job import Job
from tuner.probes.slice_plan import first_evaluation

#: Start-up that is charged before any was measured, seconds.
UNKNOWN_STARTUP_SECONDS = 3.0
#: The same on ranks that have already run a slice, seconds.
_WARM_STARTUP_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class ProbeTerms:
    """Properties of a job's prober that the search depends on.

    The search reads these instead of asking which prober runs.

    Args:
        is_training: Whether slices are part of the training that the user wants. Emulated slices are not.
        resumes: Whether a run continues where its last slice ended. Otherwise each slice starts the run over.
        pays_to_resume: Whether a slice that continues a run is charged a start-up too.
        times_alone: Whether a slice can time steps without training; a recording cannot.
        reuses_ranks: Whether later slices run on the ranks of the first one and start much faster.
        ends_itself: Whether a run may end by itself, as a script does after its last epoch.
        startup_seconds: Start-up that is charged before any was measured.
        first_score_samples: Samples at the first score if Paceline decides when to score; else None.
        score_growth: Factor between the samples of two scores if Paceline decides when to score.
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
        """Predicts the start-up of the next slice, seconds.

        Args:
            measured: The start-up of each slice so far, seconds, in order.
        """
        if not measured:
            return self.startup_seconds
        if not self.reuses_ranks:
            return median(measured)
        return median(measured[1:]) if len(measured) > 1 else min(measured[0], _WARM_STARTUP_SECONDS)

    def next_score_samples(self, samples: int) -> int | None:
        """Samples at the next score of a run; None if Paceline does not decide when to score."""
        if self.first_score_samples is None:
            return None
        return max(math.ceil(samples * self.score_growth), self.first_score_samples)


def probe_terms(job: Job, cluster: Cluster, slices: Sequence[Measurement], epoch_samples: int) -> ProbeTerms:
    """Finds the terms of a job.

    Args:
        job: The job.
        cluster: The cluster it trains on.
        slices: All slices measured so far; they may show that a script cannot resume.
        epoch_samples: Samples of the training set.
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
