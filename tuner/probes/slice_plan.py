"""Plan of a slice (part of a probe), as plain data for its ranks; this module does not import torch."""

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

#: Import path of the function that each rank runs.
RANK_FUNCTION = "tuner.probes.ranks.rank:run_slice"
#: Import path of the function that one process runs to emulate all ranks of a virtual cluster.
EMULATION_FUNCTION = "tuner.probes.ranks.emulated_slice:run_emulated_slice"

CHECKPOINTS_FOLDER = "checkpoints"
#: Files that the tuner, not the script of a command, writes next to the checkpoint.
OWN_FILES = frozenset({"progress.json", "truncated"})
MODEL_FILE = "model.pt"


@dataclass(frozen=True, kw_only=True)
class SlicePlan:
    """Plan of one slice of a probe.

    Args:
        job: The job that the slice belongs to.
        job_folder: Folder of the job file, in which the workload's module is searched first.
        configuration: The configuration that the slice trains.
        purpose: Whether the slice times steps or trains.
        until: Limits of the slice.
        folder: Folder of the probe.
        score_untrained: Whether a new run is scored before its first step. One such score is enough for a
            job, since all its runs start with the same model.
        scored_samples: Number of samples processed at the last score of earlier slices; 0 if there is none.
            Only scores after it count for `until.scores`.
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
        """Whether one process of this host trains for all ranks, under a virtual clock."""
        return self.job.resolved_cluster().emulates(self.configuration)

    @property
    def is_timing(self) -> bool:
        """Whether the slice only times steps, without scores and checkpoints."""
        return self.purpose is Purpose.TIMING

    def begins_with_score(self, samples: int) -> bool:
        """Whether the untrained model is scored before the first step.

        Args:
            samples: Number of samples that the run has processed in earlier slices.
        """
        return self.score_untrained and samples == 0 and not self.is_timing

    def has_all_scores(self, num_scores: int) -> bool:
        """Whether the slice has reached its limit `until.scores`.

        Args:
            num_scores: Number of scores of the slice so far that count for the limit.
        """
        return self.until.scores is not None and num_scores >= self.until.scores

    def to_payload(self) -> dict[str, Any]:
        """Converts the plan to data that JSON can represent, for the launcher."""
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
        """Restores a plan from the result of `to_payload`."""
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


#: By default, the number of samples processed before the first evaluation is the number of samples in an
#: epoch, divided by this constant.
FIRST_EVALUATION_PER_EPOCH = 32
#: Smallest default number of samples before the first evaluation. If an epoch has fewer samples, the first
#: evaluation comes after one epoch.
SMALLEST_FIRST_EVALUATION = 1024


class EvaluationPoints:
    """Numbers of processed samples after which a run is evaluated.

    These evaluation points depend only on the job, so the curves of all configurations are comparable.
    The model is evaluated after the optimizer step that reaches a point; it is evaluated once after a step
    that passes several points.

    Args:
        first_samples: The first evaluation point, at least 1.
        growth: Ratio of each evaluation point to the previous one, above 1.
        horizon_samples: Number of samples at which the learning-rate schedule ends, an additional evaluation
            point; None if the schedule has no end.
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
        """Returns the first evaluation point after a number of processed samples."""
        if samples < self._first:
            point = self._first
        else:
            place = math.floor(math.log(samples / self._first) / math.log(self._growth))
            point = self._point(place)
            while point <= samples:
                place += 1
                point = self._point(place)
            # Rounding of the logarithm must not skip a point.
            while place > 0 and self._point(place - 1) > samples:
                place -= 1
                point = self._point(place)
        if self._horizon is not None and samples < self._horizon:
            return min(point, self._horizon)
        return point

    def _point(self, place: int) -> int:
        # Due to the second term, small points differ even if the first term rounds to the same number.
        return max(math.ceil(self._first * self._growth**place), self._first + place)


def first_evaluation(num_training_samples: int, stated: int | None) -> int:
    """Returns the number of samples processed before the first evaluation.

    Args:
        num_training_samples: Number of samples in the training set.
        stated: The number that is configured in the job file, which is returned. None for the default: 1/32
            of an epoch, but at least 1024 samples, or one epoch if an epoch has fewer samples.
    """
    if stated is not None:
        return stated
    part = math.ceil(num_training_samples / FIRST_EVALUATION_PER_EPOCH)
    return max(1, part, min(num_training_samples, SMALLEST_FIRST_EVALUATION))
