"""What a slice's ranks are told, as plain data; free of torch, since the prober writes it."""

from __future__ import annotations

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
        score_untrained: Whether a run that begins is scored before its first step. All runs of a job begin
            with the same model, so that once is enough.
    """

    job: Job
    job_folder: Path
    configuration: Configuration
    purpose: Purpose
    until: Until
    folder: Path
    score_untrained: bool = True

    @property
    def is_emulated(self) -> bool:
        """Whether one process trains for all ranks."""
        return self.job.resolved_cluster().emulates(self.configuration)

    @property
    def is_timing(self) -> bool:
        """Whether only step times are wanted: nothing is scored or saved."""
        return self.purpose is Purpose.TIMING

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
        )
