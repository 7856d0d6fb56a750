"""The plan of a slice, as plain data for its ranks; does not import torch, since the prober writes it."""

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
EMULATION_FUNCTION = "tuner.probes.emulated_slice:run_emulated_slice"

CHECKPOINTS_FOLDER = "checkpoints"
MODEL_FILE = "model.pt"


@dataclass(frozen=True, kw_only=True)
class SlicePlan:
    """One slice of a probe, as its ranks see it.

    Args:
        job: The job.
        job_folder: Where its file lies; the workload is looked for there first.
        configuration: What is run.
        purpose: Why.
        until: Where it ends.
        folder: The probe's folder.
        score_untrained: Whether a new run is scored before its first step. All runs of a job start
            with the same model, so that once is enough.
        scored_samples: Samples of the last score that earlier slices reported; 0 if there is none. Only later
            scores count for `until.scores`.
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
        """Whether only step times are wanted: nothing is scored or saved."""
        return self.purpose is Purpose.TIMING

    def has_all_scores(self, num_scores: int) -> bool:
        """Whether the slice ends since it has made so many new scores."""
        return self.until.scores is not None and num_scores >= self.until.scores

    def to_payload(self) -> dict[str, Any]:
        """Plain data for the launcher."""
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
        """The plan `to_payload` was made from."""
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


#: The first evaluation point of a job that states none: this part of an epoch.
FIRST_EVALUATION_PER_EPOCH = 32
#: But at least so many samples, or a whole epoch where it has fewer.
SMALLEST_FIRST_EVALUATION = 1024


class EvaluationPoints:
    """Evaluation points in samples; they depend on the job alone, so that curves are comparable.

    A point is due after the step that reaches it; a step that passes several is scored once.

    Args:
        first_samples: The first point, at least 1.
        growth: Each point over the one before, above 1.
        horizon_samples: A last point, where the schedule ends; None for no end.
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
        """The first evaluation point beyond `samples`."""
        if samples < self._first:
            point = self._first
        else:
            place = math.floor(math.log(samples / self._first) / math.log(self._growth))
            point = self._point(place)
            while point <= samples:
                place += 1
                point = self._point(place)
            # The logarithm may round up: no point between may be left out.
            while place > 0 and self._point(place - 1) > samples:
                place -= 1
                point = self._point(place)
        if self._horizon is not None and samples < self._horizon:
            return min(point, self._horizon)
        return point

    def _point(self, place: int) -> int:
        # Adding the position keeps points distinct where growth times a small point rounds to itself.
        return max(math.ceil(self._first * self._growth**place), self._first + place)


def first_evaluation(num_training_samples: int, stated: int | None) -> int:
    """The first evaluation point: as stated in the job, or 1/32 of an epoch, of tiny data some more."""
    if stated is not None:
        return stated
    part = math.ceil(num_training_samples / FIRST_EVALUATION_PER_EPOCH)
    return max(1, part, min(num_training_samples, SMALLEST_FIRST_EVALUATION))
