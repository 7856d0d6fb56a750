"""The ledger, the search's only memory: studies, probes under leases, slices, fits, predictions."""

from tuner.ledger.leases import LeaseState
from tuner.ledger.ledger import Ledger
from tuner.ledger.records import (
    FitRecord,
    Lease,
    PredictedAgainstMeasured,
    PredictionRecord,
    ProbeRecord,
    RecommendationRecord,
    StudyRecord,
    free_name,
)

__all__ = [
    "FitRecord",
    "Lease",
    "LeaseState",
    "Ledger",
    "PredictedAgainstMeasured",
    "PredictionRecord",
    "ProbeRecord",
    "RecommendationRecord",
    "StudyRecord",
    "free_name",
]
