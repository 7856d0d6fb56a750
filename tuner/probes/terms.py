"""How slices of a job are charged, when they are scored, and what they leave behind."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from tuner.domain.cluster import Cluster
from tuner.domain.measurement import Measurement
from tuner.job import Job
from tuner.probes.slice_plan import first_evaluation

#: Start-up charged where none was measured yet, seconds.
UNKNOWN_STARTUP_SECONDS = 3.0
#: The same for a slice on ranks that have run another one, seconds.
_WARM_STARTUP_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class ProbeTerms:
    """What policies need to know of a job's prober.

    Args:
        is_training: Whether a slice is part of the training that was asked for. Emulated slices are not: they
            train on this machine, whose time costs nothing there.
        resumes: Whether a run continues where its last slice ended. Otherwise it starts over.
        pays_to_resume: Whether a slice that continues a run is charged a start-up, too.
        times_alone: Whether a slice can time steps alone; a recording only replays what it holds.
        reuses_ranks: Whether later slices run on the ranks of the first one, and start much sooner than it.
        ends_itself: Whether a run may end for a reason of its own, as a script does after its epochs.
        startup_seconds: Charged for starting a slice before any start was measured.
        first_score_samples: Samples at the first score, where Paceline decides when to score; else None.
        score_growth: Factor between the samples of two scores, where Paceline decides when to score.
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
        """What starting another slice costs, seconds.

        Args:
            measured: What starting each slice so far cost, in their order.
        """
        if not measured:
            return self.startup_seconds
        if not self.reuses_ranks:
            return median(measured)
        return median(measured[1:]) if len(measured) > 1 else min(measured[0], _WARM_STARTUP_SECONDS)

    def next_score_samples(self, samples: int) -> int | None:
        """Samples at the next score of a run that has seen some; None where Paceline does not decide it."""
        if self.first_score_samples is None:
            return None
        return max(math.ceil(samples * self.score_growth), self.first_score_samples)


def probe_terms(job: Job, cluster: Cluster, slices: Sequence[Measurement], epoch_samples: int) -> ProbeTerms:
    """The terms of a job.

    Args:
        job: The job.
        cluster: What it trains on.
        slices: What was measured: a script may turn out not to resume.
        epoch_samples: Size of the training set.
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
