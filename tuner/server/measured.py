"""Computes the measured time to target of the configurations of a study, for a server that caches nothing."""

from __future__ import annotations

from search_spaces import Configuration
from tuner.domain.measurement import merged
from tuner.domain.study_reads import StudyReads
from tuner.job.sections import GoalSection


def measured_seconds(reads: StudyReads, study_id: int) -> dict[Configuration, float]:
    """Returns the training seconds to target of each configuration that reached the target."""
    stated = reads.goal(study_id)
    if not stated:
        return {}
    goal = GoalSection.model_validate(stated)
    found: dict[Configuration, float] = {}
    for probe in reads.reached(study_id):
        valid = [part for part in probe.slices if not part.outcome.is_fault]
        crossed = goal.crossing(merged(valid).trained_curve) if valid else None
        if crossed is not None:
            found[probe.configuration] = crossed[1]
    return found
