"""Reads the progress that a worker reported of a job, for the web pages."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tuner.domain.job_queue import JobRecord


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Progress of a job, as far as its worker has reported it.

    Args:
        text: One line of text; empty if nothing was reported.
        share: Largest share in [0, 1] of a limit of the budget that is used; None without a limit.
        finish: Lower end, median and upper end of the predicted end of the search, seconds since the Unix
            epoch; None before there is a prediction. The upper end may be infinite.
        slices: The running slices.
        best: The best configuration so far; None before a score was measured.
    """

    text: str = ""
    share: float | None = None
    finish: tuple[float, float, float] | None = None
    slices: tuple[Mapping[str, Any], ...] = ()
    best: Mapping[str, Any] | None = None


def progress_of(job: JobRecord) -> Progress:
    """Returns the progress of a job. Values that the worker did not report are absent."""
    reported = job.progress
    finish = reported.get("finish")
    return Progress(
        text=str(reported.get("text", "")),
        share=_share(job),
        finish=_finish(finish) if isinstance(finish, Mapping) and not job.state.has_ended else None,
        slices=tuple(s for s in reported.get("slices", ()) if isinstance(s, Mapping)),
        best=reported.get("best") if isinstance(reported.get("best"), Mapping) else None,
    )


def _share(job: JobRecord) -> float | None:
    shares = [
        getattr(job.usage, name) / most
        for name in ("seconds", "node_hours", "dollars")
        if (most := job.limit.get(name))
    ]
    return min(max(shares), 1.0) if shares else None


def _finish(finish: Mapping[str, Any]) -> tuple[float, float, float] | None:
    ends = [finish.get(key) for key in ("lower", "median", "upper")]
    if ends[1] is None:
        return None
    lower, median, upper = (math.inf if end is None else float(end) for end in ends)
    return lower, median, upper
