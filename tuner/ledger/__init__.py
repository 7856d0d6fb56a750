"""The ledger, the search's only memory: studies, probes under leases, slices, fits, predictions."""

from tuner.ledger.leases import LeaseState
from tuner.ledger.ledger import Ledger
from tuner.ledger.memory import MemoryLedger, free_name
from tuner.ledger.records import (
    FitRecord,
    Lease,
    PredictedAgainstMeasured,
    PredictionRecord,
    ProbeRecord,
    RecommendationRecord,
    StudyRecord,
)

__all__ = [
    "FitRecord",
    "Lease",
    "LeaseState",
    "Ledger",
    "MemoryLedger",
    "PredictedAgainstMeasured",
    "PredictionRecord",
    "ProbeRecord",
    "RecommendationRecord",
    "StudyRecord",
    "free_name",
]
