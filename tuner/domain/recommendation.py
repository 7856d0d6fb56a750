"""Dataclasses of a recommendation: the configuration, its predicted time and cost, and the evidence."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from search_spaces import Configuration
from tuner.domain.analysis import Analysis, Override
from tuner.domain.confirmation import Confirmation, ReadConfiguration
from tuner.domain.estimate import Estimate as Estimate

#: Version of the format of `recommendation.json`. The first number changes if programs that read the old
#: format would fail.
SCHEMA_VERSION = "2.1"

#: Maps each key of version 1 of the format that was renamed in version 2 to its new name.
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
#: Keys whose values are objects with keys that must not be renamed, because users chose these keys, or
#: because they are not part of the schema.
_FREE_KEYS = ("configuration", "weights", "seconds_by_purpose", "seconds_by_part")


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """A configuration that was considered, with its predicted time and cost.

    Args:
        configuration: The configuration.
        seconds: Predicted training seconds to target.
        dollars: Predicted dollars to target; None if nodes have no price.
        probability_of_reaching: Predicted probability that the target is reached at all. If no training of
            the configuration was measured, it is between 0.05 and 0.95, because the models cannot be more
            certain.
        measured_seconds: Measured training seconds to target; None if no training of this configuration has
            reached the target.
        share_observed: Share of the predicted training to the target that was measured, in [0, 1].
        samples_observed: Number of samples processed in the measured training of this configuration.
        seconds_observed: Training seconds of the measured training of this configuration.
        emulated: Whether the training of this configuration is emulated: one process trains for all ranks
            under a virtual clock.
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
        """Whether a training of this configuration was measured, at least in part."""
        return self.samples_observed > 0 or self.measured_seconds is not None

    @property
    def dollars_per_second(self) -> float:
        """Price of all its nodes, in dollars a second; NaN without a price or a finite prediction."""
        if self.dollars is None or not 0.0 < self.seconds.median < math.inf:
            return math.nan
        return self.dollars.median / self.seconds.median


@dataclass(frozen=True, kw_only=True)
class StrategyOutlook:
    """Predictions for the best configuration of one communication strategy, compared with another strategy.

    Args:
        configuration: The configuration with the smallest expected cost of all that use the strategy; for the
            recommended strategy, the recommended configuration.
        batch_seconds: Predicted seconds in which all ranks together process one global batch.
        samples: Predicted number of samples processed until the target is reached.
        seconds: Predicted training seconds to target.
        share_observed: Share of the predicted training to the target that was measured, in [0, 1].
        waits_for_slowest: Whether all ranks wait for the slowest rank.
        comparison: A sentence that compares this strategy with the recommended one. The recommended strategy
            is compared with all-reduce. If all-reduce is recommended, or is not in the search space, the
            recommended strategy is compared with the next best one.
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
    """Result of training the recommended configuration to the target.

    Args:
        reached: Whether the training reached the target.
        training_seconds: Training time to the target, in seconds; training time to the end if the target was
            not reached.
        dollars: Price of `training_seconds`.
        value: Best value of the metric.
        last_value: Last value of the metric; worse than `value` if the model overfits.
        predicted: Prediction of the training seconds to target, made when only the share `share_observed` of
            the training was known; None if no prediction was made.
        share_observed: Share of this training that was known when `predicted` was made.
        first_score_seconds: Training time at the first evaluation past the target, in seconds. It is not
            earlier than `training_seconds`, which is interpolated between this evaluation and the previous
            one.
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
    """Earlier trainings that were imported for the job. They are a prior, not measurements of this job.

    Args:
        num_runs: Number of imported runs.
        num_same_hardware: Number of imported runs on the same hardware as the job. Only the step times of
            these runs are used.
        sources: Files and folders that the runs were read from, with their format.
        weights: Maps each model (such as that of step time) to the weight of the imported runs in its present
            parameters, in [0, 1]. Models to which the imported runs add no information are left out.
    """

    num_runs: int
    num_same_hardware: int
    sources: tuple[str, ...]
    weights: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class IntervalCheck:
    """Number of predictions of a study whose 90% interval held the time to target that was measured later.

    Args:
        num_predictions: Number of predictions of trainings that reached the target later.
        num_inside: Number of these whose interval held the measured time.
        too_narrow: Whether the number is too small for intervals of 90% to be right.
    """

    num_predictions: int
    num_inside: int
    too_narrow: bool


@dataclass(frozen=True, kw_only=True)
class TuningCost:
    """Time and money that the search spent.

    Args:
        seconds: Wall-clock seconds charged by all probes.
        dollars: Price of the charged seconds.
        num_probes: Number of probes started.
        seconds_by_purpose: Maps each purpose of a probe to the seconds charged for it.
        seconds_by_part: Maps each part (training, scoring, start-up, other) to the seconds charged for it.
        elapsed_seconds: Elapsed time of all probes, in seconds; time of concurrent probes counts once. None
            if no two probes ran at the same time, because it then equals `seconds`.
    """

    seconds: float
    dollars: float
    num_probes: int
    seconds_by_purpose: Mapping[str, float]
    seconds_by_part: Mapping[str, float]
    elapsed_seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """The configuration that Paceline recommends for a job, with the evidence for it.

    Args:
        job_name: Name of the job.
        study_name: Name of the study whose measurements the recommendation is based on.
        created_at: Time when the recommendation was made, in seconds since the Unix epoch.
        goal: The goal in words, such as `accuracy >= 0.85, soonest`.
        choice: The recommended configuration.
        runner_up: The next best configuration; None if there is none.
        baseline: The user's present settings, from [baseline] in the job file; None if the job has no
            [baseline].
        verified: Result of training the recommended configuration to the target; None if it was not trained
            that far.
        provisional: Whether the evidence is weak: no training of the recommended configuration was measured,
            the budget ended the search early, or the study's own intervals were too narrow.
        evidence: Sentences with the evidence for the recommendation, one fact each.
        warnings: Sentences with reasons why the recommendation may be wrong.
        stop_reason: Why the search ended.
        tuning: Time and money that the search spent.
        checkpoint: Path of the trained model (its state dictionary) if a training of the recommended
            configuration reached the target; otherwise of its newest checkpoint; None if there is none.
        command: A command line that trains the recommended configuration.
        user_command: The user's own command with the recommended values, which runs without Paceline; empty
            if the job has no command.
        training_samples: Number of samples after which the target is reached with 95% probability, as a limit
            for the user's script; None if unknown, or if the job runs no script.
        training_epochs: `training_samples` in epochs; None if the job file does not set the number of samples
            per epoch.
        strategies: Predictions for the best configuration of each strategy, first for the recommended
            strategy; empty if the search space has only one strategy.
        sensitivity: Sentences with changes of the emulated nodes ([cluster.machine]) that would change the
            recommendation; empty if the job emulates no nodes.
        ended_by_budget: Whether the search ended because the budget of time, dollars, node hours or probes
            was used up, or because the user interrupted it.
        stop_kind: Kind of the reason for which the search ended, such as `no_gain` or `faults`
            (`tuner.search.policy.StopKind`); empty in files of older versions.
        axes_without_effect: Names of the axes of the search space whose value did not change the scores,
            probably because the script does not use it.
        startup_seconds: Seconds from the start of the user's script to its first training step, which every
            training takes in addition to the predicted seconds; None if the job runs no script.
        confirmation: Repeated trainings of the recommended configuration and of the present settings
            (`paceline run --confirm`); None without such trainings.
        imported: Earlier runs that were imported for the job as a prior; None if no runs were imported.
        interval_check: How many predictions of this study were right; None if no predicted training has
            reached the target.
        analysis: What would change the recommendation, and what the models learned; None in files of older
            versions.
        overrides: Values of the job file, and defaults, that the command line or the environment replaced.
        trainer_values: The values with which a remote trainer trains the recommended configuration; empty if
            Paceline starts the training. Then there is no command, and `checkpoint` is the name that the
            trainer gave its checkpoint.
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
    stop_kind: str = ""
    axes_without_effect: tuple[str, ...] = ()
    startup_seconds: float | None = None
    confirmation: Confirmation | None = None
    imported: ImportedEvidence | None = None
    interval_check: IntervalCheck | None = None
    analysis: Analysis | None = None
    overrides: tuple[Override, ...] = ()
    trainer_values: Mapping[str, float | int | str] = field(default_factory=dict)
    schema_version: str = field(default=SCHEMA_VERSION)

    @property
    def is_cheapest(self) -> bool:
        """Whether the goal is the lowest price instead of the shortest time."""
        return self.goal.endswith("cheapest")

    def to_dict(self) -> dict[str, Any]:
        """Returns the content of `recommendation.json`, in which infinite numbers are null."""
        data: dict[str, Any] = _plain(self)
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Recommendation:
        """Restores a recommendation from the content of `recommendation.json`, of schema version 1 or 2.

        A null in an estimate means infinity.

        Raises:
            ValueError: The first number of the schema version is neither 1 nor 2.
        """
        return _reader().validate_python(upgraded(data))


@cache
def _reader() -> TypeAdapter[Recommendation]:
    return TypeAdapter(Recommendation)


def upgraded(data: Mapping[str, Any]) -> dict[str, Any]:
    """Converts the content of an older `recommendation.json` to the keys of the present schema version.

    Args:
        data: Content of `recommendation.json`, of schema version 1 or 2.

    Raises:
        ValueError: The schema version is neither 1 nor 2.
    """
    version = str(data["schema_version"])
    if version.startswith("1."):
        renamed: dict[str, Any] = _with_new_keys(data)
        return {**renamed, "schema_version": SCHEMA_VERSION}
    if not version.startswith("2."):
        raise ValueError(
            f"the recommendation has schema version {version}, but this version of Paceline reads only "
            f"versions up to {SCHEMA_VERSION}; run `paceline report` to write the recommendation again"
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
    """Returns the `paceline train` command that trains a configuration to the job's target.

    Args:
        job_path: Path of the job file.
        configuration: The configuration to train.
    """
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
