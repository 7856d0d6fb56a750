"""The recommendation: a configuration, its predicted time and cost, the evidence, and its verification."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, TypeAdapter

from search_spaces import Configuration
from tuner.domain.confirmation import Confirmation, ReadConfiguration

#: Version of `recommendation.json`: the first number changes when a reader of the old form would fail.
SCHEMA_VERSION = "2.0"

#: Keys of version 1 and what they are called since version 2.
_RENAMED = {
    "difference_shown": "is_significant",
    "made_at": "created_at",
    "own_command": "user_command",
    "present": "baseline",
    "samples_known": "samples_observed",
    "score_seconds": "first_score_seconds",
    "seconds_known": "seconds_observed",
    "share_known": "share_observed",
    "speed_up": "speedup",
    "stopped_because": "stop_reason",
    "turning_points": "sensitivity",
    "words": "comparison",
}
#: Objects whose keys are names that users chose, or that are no part of the schema.
_FREE_KEYS = ("configuration", "weights", "seconds_by_purpose", "seconds_by_part")

_NullAsInfinity = Annotated[float, BeforeValidator(lambda value: math.inf if value is None else value)]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A predicted quantity with its central 90% interval.

    Args:
        lower: Fifth percentile.
        median: Median.
        upper: Ninety-fifth percentile; infinite if the target may well be unreachable.
    """

    lower: _NullAsInfinity
    median: _NullAsInfinity
    upper: _NullAsInfinity


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """A configuration that was considered, with its predicted time and cost.

    Args:
        configuration: The configuration.
        seconds: Predicted training seconds to target.
        dollars: Predicted dollars to target; None where nodes have no price.
        probability_of_reaching: Chance that the target is reached at all; of what was not measured at least
            0.05 and at most 0.95, since nobody knows it better.
        measured_seconds: Measured training seconds to target, where its run arrived.
        share_observed: Share of its predicted run that was measured, in [0, 1].
        samples_observed: Samples of its run that were observed.
        seconds_observed: Training seconds of its run that were observed.
        emulated: Whether its run was, or would be, one of emulated ranks.
    """

    configuration: ReadConfiguration
    seconds: Estimate
    dollars: Estimate | None
    probability_of_reaching: float
    measured_seconds: float | None = None
    share_observed: float = 0.0
    samples_observed: int = 0
    seconds_observed: float = 0.0
    emulated: bool = False

    @property
    def is_observed(self) -> bool:
        """Whether anything of its own run was observed."""
        return self.samples_observed > 0 or self.measured_seconds is not None


@dataclass(frozen=True, kw_only=True)
class StrategyOutlook:
    """What a strategy would take at its best configuration, and why that is more or less than another.

    Args:
        configuration: Its configuration with the smallest expected cost; the choice, for the chosen strategy.
        batch_seconds: Predicted seconds in which all ranks together process one global batch.
        samples: Predicted samples to target.
        seconds: Predicted training seconds to target.
        share_observed: Share of its run that was measured, in [0, 1].
        waits_for_slowest: Whether its ranks wait for the slowest of them.
        comparison: A sentence that compares it with the chosen strategy, or the chosen one with all-reduce
            (with the next best if the choice is all-reduce, or there is none).
    """

    configuration: ReadConfiguration
    batch_seconds: Estimate
    samples: Estimate
    seconds: Estimate
    share_observed: float
    waits_for_slowest: bool
    comparison: str = ""


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What happened when the recommendation was trained to the target.

    Args:
        reached: Whether it reached the target.
        training_seconds: Training clock at the crossing, or where it ended.
        dollars: Price of that time.
        value: Best metric seen.
        last_value: Last metric seen, which is worse than the best one where the run overfits.
        predicted: The prediction to compare with, made before the run was known past `share_observed`.
        share_observed: Share of the verified run that was known when that prediction was made.
        first_score_seconds: Training clock at the first score past the target; the crossing lies between it
            and the one before.
    """

    reached: bool
    training_seconds: float
    dollars: float
    value: float
    predicted: Estimate | None
    share_observed: float | None
    last_value: float | None = None
    first_score_seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class ImportedEvidence:
    """Runs that were imported for the job. None of them is a measured result of it.

    Args:
        num_runs: How many.
        num_same_hardware: Those of them that ran on hardware as the job has, so that their seconds count.
        sources: The files and folders that they come from, with their format.
        weights: Model to the weight that the prior of the imported runs has in it now, in [0, 1]. It has none
            in a model that it says nothing of.
    """

    num_runs: int
    num_same_hardware: int
    sources: tuple[str, ...]
    weights: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class TuningCost:
    """What the search spent.

    Args:
        seconds: Wall-clock seconds charged by all probes.
        dollars: Their price.
        num_probes: Probes started.
        seconds_by_purpose: Charged seconds by purpose of the probe.
        seconds_by_part: Charged seconds by part: training, scoring, start-up, other.
        elapsed_seconds: Elapsed time of all probes; None if no two probes ran at once, so that it equals the
            charged seconds.
    """

    seconds: float
    dollars: float
    num_probes: int
    seconds_by_purpose: Mapping[str, float]
    seconds_by_part: Mapping[str, float]
    elapsed_seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """What Paceline advises, and why.

    Args:
        job_name: The job.
        study_name: The study it comes from.
        created_at: Seconds since the epoch.
        goal: The goal in words, such as `accuracy >= 0.85, soonest`.
        choice: The recommended configuration.
        runner_up: The next best that differs; None if there is none.
        baseline: The user's present settings; None if the job states none.
        verified: The result of training it; None if it was not trained to the target.
        provisional: Whether it has less evidence than it should: no run of it was measured, or
            the budget ended the search early.
        evidence: Sentences that state its evidence.
        warnings: Sentences on what may make it wrong.
        stop_reason: Why the search ended.
        tuning: What the search spent.
        checkpoint: Path of the trained model, a state dictionary of its parameters, if a run arrived.
        command: A command line that trains the recommended configuration.
        user_command: The user's own command with the recommended values, as it runs without Paceline; empty
            where no command was given.
        training_samples: Samples after which a training of the choice has reached the target with 95%
            probability, for the own limit of the user's script; None if unknown, or no script is run.
        training_epochs: The same in epochs; None where the job does not state the size of one.
        strategies: Every strategy at its best, the chosen one first; empty if only one was considered.
        sensitivity: Sentences that say what would change the answer, if a cluster was described.
        ended_by_budget: Whether the budget ended the search.
        axes_without_effect: Axes that made no difference to the scores, so that no gain is due to them.
        startup_seconds: What a start of the user's script takes before its training, which each training
            pays, too; None if no script was run.
        confirmation: Repeated trainings of the choice and of the present settings; None if there are none.
        imported: Runs that were imported for the job, which count as a prior; None if there are none.
    """

    job_name: str
    study_name: str
    created_at: float
    goal: str
    choice: Alternative
    runner_up: Alternative | None
    baseline: Alternative | None
    verified: Verification | None
    provisional: bool
    evidence: tuple[str, ...]
    warnings: tuple[str, ...]
    stop_reason: str
    tuning: TuningCost
    checkpoint: str | None
    command: str
    user_command: str = ""
    training_samples: int | None = None
    training_epochs: float | None = None
    strategies: tuple[StrategyOutlook, ...] = ()
    sensitivity: tuple[str, ...] = ()
    ended_by_budget: bool = False
    axes_without_effect: tuple[str, ...] = ()
    startup_seconds: float | None = None
    confirmation: Confirmation | None = None
    imported: ImportedEvidence | None = None
    schema_version: str = field(default=SCHEMA_VERSION)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `recommendation.json`; infinite numbers become null."""
        data: dict[str, Any] = _plain(self)
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Recommendation:
        """Reads what `to_dict` wrote, in this version or in version 1; a null in an estimate means infinity.

        Raises:
            ValueError: The data are of an unknown major version of the schema.
        """
        return _reader().validate_python(upgraded(data))


@cache
def _reader() -> TypeAdapter[Recommendation]:
    return TypeAdapter(Recommendation)


def upgraded(data: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a `recommendation.json` with the keys of the present schema.

    Args:
        data: Content of schema version 1 or 2.

    Raises:
        ValueError: The schema has another major version.
    """
    version = str(data["schema_version"])
    if version.startswith("1."):
        renamed: dict[str, Any] = _with_new_keys(data)
        return {**renamed, "schema_version": SCHEMA_VERSION}
    if not version.startswith("2."):
        raise ValueError(
            f"the recommendation has schema version {version}; this Paceline reads up to {SCHEMA_VERSION}: "
            "write it again with `paceline report`"
        )
    return dict(data)


def _with_new_keys(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {
            _RENAMED.get(key, key): item if key in _FREE_KEYS else _with_new_keys(item)
            for key, item in value.items()
        }
    return [_with_new_keys(item) for item in value] if isinstance(value, list) else value


def train_command(job_path: Path, configuration: Configuration) -> str:
    """The command that trains a configuration to the job's target."""
    flags = [f"--{axis.replace('_', '-')} {value}" for axis, value in configuration.items()]
    return f"paceline train {shlex.quote(str(job_path))} " + " ".join(flags)


def _plain(value: Any) -> Any:
    if isinstance(value, Configuration):
        return value.as_dict()
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
