"""Reads the progress that a worker reported of a job, for the web pages; absent values stay absent."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tuner.domain.format import axis_title, format_axis
from tuner.domain.job_queue import JobRecord


@dataclass(frozen=True, kw_only=True)
class Range:
    """A predicted quantity with its central 90% interval. Unknown values are infinite.

    Args:
        low: Lower end.
        median: Median.
        high: Upper end.
    """

    low: float
    median: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Best:
    """The configuration that the search would recommend now, or the one that it recommended.

    Args:
        configuration: The configuration.
        seconds: Training seconds from start to target.
        dollars: Price of these seconds; None if nodes have no price.
        chance: Predicted probability that the target is reached.
        is_measured: Whether a run has reached the target, so that `seconds` are measured.
    """

    configuration: Mapping[str, Any]
    seconds: Range
    dollars: Range | None
    chance: float
    is_measured: bool


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Progress of a job, as far as its worker has reported it.

    Args:
        text: What happened last, one line; empty if nothing was reported.
        share: Largest share in [0, 1] of a limit that is used; None without a limit.
        finish: Predicted end of the search, seconds since the Unix epoch; None before there is a prediction.
        slices: The running slices.
        best: The configuration that would be recommended now; None before a score was measured.
    """

    text: str = ""
    share: float | None = None
    finish: Range | None = None
    slices: tuple[Mapping[str, Any], ...] = ()
    best: Best | None = None


def progress_of(job: JobRecord) -> Progress:
    """Returns the progress of a job."""
    reported = job.current_progress
    slices = reported.get("slices")
    return Progress(
        text=str(reported.get("text") or ""),
        share=_share(job),
        finish=_range(reported.get("finish")),
        slices=tuple(s for s in slices if _is_slice(s)) if isinstance(slices, list) else (),
        best=_best(reported.get("incumbent")),
    )


def recommended(recommendation: Mapping[str, Any] | None) -> Best | None:
    """Returns the choice of a `recommendation.json`; None if there is none, or its version is unknown."""
    choice = None if recommendation is None else recommendation.get("choice")
    if not isinstance(choice, Mapping) or not isinstance(choice.get("configuration"), Mapping):
        return None
    measured = choice.get("measured_seconds")
    seconds = _range(choice.get("seconds"), "lower", "upper")
    if measured is not None:
        seconds = Range(low=measured, median=measured, high=measured)
    if seconds is None:
        return None
    return Best(
        configuration=choice["configuration"],
        seconds=seconds,
        dollars=_range(choice.get("dollars"), "lower", "upper"),
        chance=float(choice.get("probability_of_reaching", math.nan)),
        is_measured=measured is not None,
    )


def configuration_words(configuration: Mapping[str, Any]) -> str:
    """Describes a configuration in JSON, such as `nodes 2, batch size 64`."""
    return ", ".join(
        f"{axis_title(str(axis))} {format_axis(value) if isinstance(value, int | float | str) else value}"
        for axis, value in configuration.items()
    )


def _share(job: JobRecord) -> float | None:
    names = ("seconds", "node_hours", "dollars")
    shares = [getattr(job.usage, name) / most for name in names if (most := job.limit.get(name))]
    return min(max(shares), 1.0) if shares else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _range(found: object, low: str = "low", high: str = "high") -> Range | None:
    if not isinstance(found, Mapping):
        return None
    ends = [_number(found.get(name)) for name in (low, "median", high)]
    if ends == [None, None, None]:
        return None
    lower, median, upper = (math.inf if end is None else end for end in ends)
    return Range(low=lower, median=median, high=upper)


def _best(found: object) -> Best | None:
    if not isinstance(found, Mapping) or not isinstance(found.get("configuration"), Mapping):
        return None
    seconds, chance = _range(found.get("seconds")), _number(found.get("probability_of_reaching"))
    if seconds is None:
        return None
    return Best(
        configuration=found["configuration"],
        seconds=seconds,
        dollars=_range(found.get("dollars")),
        chance=math.nan if chance is None else chance,
        is_measured=bool(found.get("is_measured")),
    )


def _is_slice(found: object) -> bool:
    return isinstance(found, Mapping) and isinstance(found.get("configuration"), Mapping)
