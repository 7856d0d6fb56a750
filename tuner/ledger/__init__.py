"""The search's only memory: studies, probes under leases, slices, fits, predictions, recommendations."""

from tuner.ledger.ledger import Ledger
from tuner.ledger.records import (
    FitRecord,
    Lease,
    PredictionRecord,
    ProbeRecord,
    RecommendationRecord,
    StudyRecord,
)

__all__ = [
    "FitRecord",
    "Lease",
    "Ledger",
    "PredictionRecord",
    "ProbeRecord",
    "RecommendationRecord",
    "StudyRecord",
]
