"""Imported runs in words: how many, from where, and how much their prior counts."""

from __future__ import annotations

from tuner.domain.format import format_share
from tuner.domain.recommendation import ImportedEvidence
from tuner.report.findings import Finding

#: More sources than this are counted.
_MOST_SOURCES = 3


def imported_finding(imported: ImportedEvidence) -> Finding:
    """How many runs were imported from where, and that none of them is a result of this job."""
    shown = ", ".join(imported.sources[:_MOST_SOURCES])
    more = len(imported.sources) - _MOST_SOURCES
    where = f"{shown} and {more} more" if more > 0 else shown
    runs = "1 run" if imported.num_runs == 1 else f"{imported.num_runs} runs"
    weights = [f"{format_share(weight)} for {name}" for name, weight in imported.weights.items()]
    counts = (
        f"How much that counts now: {' and '.join(weights)}."
        if weights
        else "They say nothing of the models' unknowns, so they only inform the shape of the curves."
    )
    return Finding(
        headline=f"{runs} from {where}",
        detail=f"They are a prior of the models. None of them is a measured result of this job. {counts}",
    )
