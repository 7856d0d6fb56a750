"""The job: what is trained, on what, towards which goal, within which space and budget."""

from tuner.job.model import (
    BaselineSection,
    BudgetSection,
    ClusterSection,
    GoalSection,
    Job,
    ProbeSection,
    SpaceSection,
    WorkloadSection,
)

__all__ = [
    "BaselineSection",
    "BudgetSection",
    "ClusterSection",
    "GoalSection",
    "Job",
    "ProbeSection",
    "SpaceSection",
    "WorkloadSection",
]
