"""Use cases of feedback: store the real time to target of a recommendation, and learn from it."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from search_spaces import Configuration
from tuner.domain.format import format_interval, format_seconds
from tuner.domain.job_queue import QueueError
from tuner.domain.ledger import Ledger, RecommendationRecord, StudyRecord
from tuner.domain.outcomes import OutcomeRecord, OutcomeStore
from tuner.domain.recommendation import Alternative, Estimate, Recommendation
from tuner.search.calibration import learnt_calibration, outcome_error, outcomes_record

#: Largest number of seconds of an outcome: 100 years.
_MOST_SECONDS = 3.2e9
_LONGEST_SOURCE = 255


class OutcomeError(QueueError):
    """An outcome is not valid; the message says what is allowed."""


class FeedbackStore(OutcomeStore, Protocol):
    """A database with studies and outcomes, such as `storage.Storage`."""

    @property
    def ledger(self) -> Ledger:
        """The tables of studies, probes and recommendations."""


@dataclass(frozen=True, kw_only=True)
class NewOutcome:
    """A training after a recommendation, as it is reported.

    Args:
        seconds: Training seconds to the target, or to the end if the target was not reached.
        reached: Whether the training reached the target.
        values: Values that differ from the recommended configuration, by the names of their axes.
        source: Where the outcome comes from.
        key: Key of the report; a second one with the same key changes nothing. By default, it is computed
            from the other values.
    """

    seconds: float
    reached: bool = True
    values: Mapping[str, float | int | str] | None = None
    source: str = "paceline outcome add"
    key: str | None = None


@dataclass(frozen=True, kw_only=True)
class StoredOutcome:
    """An outcome, with the prediction that was made for its configuration.

    Args:
        outcome: The outcome.
        predicted: The predicted time to target; None if nothing was predicted for the configuration.
        is_new: Whether the report was not stored before.
    """

    outcome: OutcomeRecord
    predicted: Estimate | None
    is_new: bool = True

    @property
    def words(self) -> str:
        """Compares the predicted with the real time, in a sentence."""
        real = format_seconds(self.outcome.seconds)
        if not self.outcome.reached:
            real = f"not reached in {real}"
        if self.predicted is None:
            return f"nothing predicted, real {real} ({self.outcome.source})"
        predicted = f"{format_seconds(self.predicted.median)} ({format_interval(self.predicted)})"
        return f"predicted {predicted}, real {real} ({self.outcome.source})"


def add_outcome(store: FeedbackStore, study: StudyRecord, new: NewOutcome) -> StoredOutcome:
    """Stores a training after a recommendation. Later studies use the error of its forecast.

    Args:
        store: The database.
        study: The study of the recommendation.
        new: The training.

    Raises:
        OutcomeError: The seconds are not possible, or the study has no recommendation yet.
    """
    if not (math.isfinite(new.seconds) and 0.0 < new.seconds <= _MOST_SECONDS):
        raise OutcomeError(
            f"seconds = {new.seconds:g} is not possible: give the training seconds to the target, above 0 "
            f"and at most {_MOST_SECONDS:g}"
        )
    configuration = _configuration(store.ledger, study, new.values or {})
    stated = new.key or f"{configuration.key} {new.reached} {new.seconds!r}"
    outcome = OutcomeRecord(
        study_id=study.study_id,
        configuration=configuration,
        reached=new.reached,
        seconds=new.seconds,
        source=new.source[:_LONGEST_SOURCE],
        report_key=hashlib.sha256(f"{study.study_id} {stated}".encode()).hexdigest(),
        created_at=time.time(),
    )
    is_new = store.outcomes.add(outcome)
    compared = compared_outcomes(store, study)
    if is_new:
        _learn(store.ledger, study, compared)
    stored = next(one for one in compared if one.outcome.report_key == outcome.report_key)
    return StoredOutcome(outcome=stored.outcome, predicted=stored.predicted, is_new=is_new)


def compared_outcomes(store: FeedbackStore, study: StudyRecord) -> list[StoredOutcome]:
    """Returns the outcomes of a study, each with the prediction for its configuration, oldest first."""
    found = store.outcomes.of_study(study.study_id)
    if not found:
        return []
    predictions: dict[Configuration, Estimate] = {}
    for prediction in store.ledger.predictions(study.study_id):
        lower, median, upper = (prediction.quantiles[level] for level in sorted(prediction.quantiles))
        predictions[prediction.configuration] = Estimate(lower=lower, median=median, upper=upper)
    for record in store.ledger.recommendations(study.study_id):
        choice = _choice(record)
        if choice is not None:
            predictions[choice.configuration] = choice.seconds
    return [StoredOutcome(outcome=one, predicted=predictions.get(one.configuration)) for one in found]


def _configuration(
    ledger: Ledger, study: StudyRecord, values: Mapping[str, float | int | str]
) -> Configuration:
    """Returns the recommended configuration with some values replaced."""
    given = ledger.recommendations(study.study_id)
    choice = _choice(given[-1]) if given else None
    if choice is None:
        raise OutcomeError(
            f"study {study.name} has no recommendation yet, so there is no forecast to compare with; finish "
            "its search first"
        )
    recommended = choice.configuration
    unknown = sorted(set(values) - set(recommended))
    if unknown:
        raise OutcomeError(
            f"{unknown[0]!r} is not a value of this study's configurations; known are "
            f"{', '.join(recommended)}"
        )
    try:
        return Configuration({**recommended, **values})
    except (TypeError, ValueError) as error:
        raise OutcomeError(f"the values of the outcome are not a configuration: {error}") from error


def _choice(record: RecommendationRecord) -> Alternative | None:
    """Returns the recommended configuration; None if another version of Paceline has stored it."""
    try:
        return Recommendation.from_dict(record.recommendation).choice
    except ValueError:
        return None


def _learn(ledger: Ledger, study: StudyRecord, compared: list[StoredOutcome]) -> None:
    """Stores the errors of the forecasts of a study's outcomes, for the calibration of later studies."""
    kind = _kind_of(study)
    others = [fit for fit in ledger.past_fits(study.fingerprint) if fit.study_id != study.study_id]
    scale = learnt_calibration(others, kind).scale
    errors = [
        outcome_error(one.predicted, one.outcome.seconds, reached=one.outcome.reached, scale=scale)
        for one in compared
        if one.predicted is not None
    ]
    record = outcomes_record(study, kind, [error for error in errors if error is not None], time.time())
    if record is not None:
        ledger.add_fit(record)


def _kind_of(study: StudyRecord) -> str:
    """Returns the kind of a study's job, as `tuner.search.calibration.kind_of` does for a job."""
    if (study.job.get("probe") or {}).get("recording") is not None:
        return "recorded"
    return "command" if "command" in (study.job.get("workload") or {}) else "workload"
