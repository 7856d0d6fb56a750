"""Records of trainings that followed a recommendation, and the interface of their database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from search_spaces import Configuration
from tuner.domain.ledger import StudyRecord


@dataclass(frozen=True, kw_only=True)
class OutcomeRecord:
    """Database record of a training after a recommendation: its real time to target. It is never changed.

    Args:
        study_id: Number of the study of the recommendation.
        configuration: The configuration that was trained.
        reached: Whether the training reached the target.
        seconds: Training seconds to the target, or to the end if the target was not reached.
        source: Where the outcome comes from, such as `launch file`.
        report_key: Key that the reporter chose. A second outcome with the same key is not stored.
        created_at: Time of the report, in seconds since the Unix epoch.
    """

    study_id: int
    configuration: Configuration
    reached: bool
    seconds: float
    source: str
    report_key: str
    created_at: float


class Outcomes(Protocol):
    """Interface of the outcomes. All methods raise `StorageError` if the database cannot be used."""

    def add(self, outcome: OutcomeRecord) -> bool:
        """Stores an outcome, unless one with its key is stored. Returns whether it is new."""

    def of_study(self, study_id: int) -> list[OutcomeRecord]:
        """Returns the outcomes of a study, oldest first."""

    def study(self, study_id: int) -> StudyRecord:
        """Returns a study. Raises `NotFoundError` if there is none with this number."""

    def owners(self, study_id: int) -> set[int | None]:
        """Returns the tokens of the jobs that a study belongs to; None for jobs without a token."""


class OutcomeStore(Protocol):
    """A database with outcomes, such as `storage.Storage`."""

    @property
    def outcomes(self) -> Outcomes:
        """The trainings that followed recommendations."""
