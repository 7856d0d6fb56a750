"""Plan of a slice, as plain data for its ranks; does not import torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from search_spaces import Configuration
from tuner.domain.measurement import Purpose
from tuner.job import Job
from tuner.probes.prober import Until

#: The function that ranks run.
RANK_FUNCTION = "tuner.probes.ranks.rank:run_slice"
#: The function that one process runs for all ranks of a virtual cluster.
EMULATION_FUNCTION = "tuner.probes.ranks.emulated_slice:run_emulated_slice"

CHECKPOINTS_FOLDER = "checkpoints"
MODEL_FILE = "model.pt"


@dataclass(frozen=True, kw_only=True)
class SlicePlan:
    """Plan of one slice of a probe.

    Args:
        job: The job.
        job_folder: The folder of the job file; the workload is looked for there first.
        configuration: The configuration that runs.
        purpose: What the slice is for.
        until: The limits of the slice.
        folder: The folder of the probe.
        score_untrained: Whether a new run is scored before its first step. Once is enough for a job, since
            all its runs start with the same model.
        scored_samples: Samples of the last score of earlier slices; 0 if there is none. Only later scores
            count for `until.scores`.
    """

    job: Job
    job_folder: Path
    configuration: Configuration
    purpose: Purpose
    until: Until
    folder: Path
    score_untrained: bool = True
    scored_samples: int = 0

    @property
    def is_emulated(self) -> bool:
        """Whether one process trains for all ranks."""
        return self.job.resolved_cluster().emulates(self.configuration)

    @property
    def is_timing(self) -> bool:
        """Whether the slice only times steps, and scores and saves nothing."""
        return self.purpose is Purpose.TIMING

    def has_all_scores(self, num_scores: int) -> bool:
        """Whether a number of new scores ends the slice."""
        return self.until.scores is not None and num_scores >= self.until.scores

    def to_payload(self) -> dict[str, Any]:
        """The plan as plain data for the launcher."""
        return {
            "job": self.job.model_dump(mode="json"),
            "job_folder": str(self.job_folder),
            "configuration": self.configuration.as_dict(),
            "purpose": self.purpose.value,
            "until": asdict(self.until),
            "folder": str(self.folder),
            "score_untrained": self.score_untrained,
            "scored_samples": self.scored_samples,
        }

    @classmethod
    def from_payload(cls, payload: Mapping[str, Any]) -> SlicePlan:
        """Restores a plan from `to_payload`."""
        return cls(
            job=Job.model_validate(payload["job"]),
            job_folder=Path(payload["job_folder"]),
            configuration=Configuration(payload["configuration"]),
            purpose=Purpose(payload["purpose"]),
            until=Until(**payload["until"]),
            folder=Path(payload["folder"]),
            score_untrained=payload["score_untrained"],
            scored_samples=payload["scored_samples"],
        )


#: By default the first evaluation point is an epoch divided by this number,
FIRST_EVALUATION_PER_EPOCH = 32
#: but at least this many samples, or a whole epoch if it has fewer.
SMALLEST_FIRST_EVALUATION = 1024


class EvaluationPoints:
    """Evaluation points in samples. They depend only on the job, so that curves are comparable.

    A point is due after the step that reaches it; a step that passes several points is scored once.

    Args:
        first_samples: The first point, at least 1.
        growth: Ratio of each point to the one before, above 1.
        horizon_samples: The last point, at the end of the schedule; None if there is no end.
    """

    def __init__(self, first_samples: int, growth: float, horizon_samples: int | None = None) -> None:
        if first_samples < 1 or growth <= 1:
            raise ValueError(
                f"evaluation points need first_samples >= 1 and growth > 1, got {first_samples} and {growth}"
            )
        self._first = first_samples
        self._growth = growth
        self._horizon = horizon_samples

    def next_after(self, samples: int) -> int:
        """The first evaluation point after `samples`."""
        if samples < self._first:
            point = self._first
        else:
            place = math.floor(math.log(samples / self._first) / math.log(self._growth))
            point = self._point(place)
            while point <= samples:
                place += 1
                point = self._point(place)
            # The logarithm may round up, which must not skip a point.
            while place > 0 and self._point(place - 1) > samples:
                place -= 1
                point = self._point(place)
        if self._horizon is not None and samples < self._horizon:
            return min(point, self._horizon)
        return point

    def _point(self, place: int) -> int:
        # The second term keeps points distinct if growth times a small point rounds to the same number.
        return max(math.ceil(self._first * self._growth**place), self._first + place)


def first_evaluation(num_training_samples: int, stated: int | None) -> int:
    """The first evaluation point in samples: as the job states, or 1/32 of an epoch (more of small data)."""
    if stated is not None:
        return stated
    part = math.ceil(num_training_samples / FIRST_EVALUATION_PER_EPOCH)
    return max(1, part, min(num_training_samples, SMALLEST_FIRST_EVALUATION))
