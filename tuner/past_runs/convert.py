"""Converts past runs to configurations and learning curves of a job, as a mapping file describes."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping as Table
from collections.abc import Sequence
from dataclasses import dataclass

from search_spaces import STRATEGIES, Configuration
from tuner.domain.format import format_count
from tuner.domain.measurement import CurvePoint, Measurement, Outcome, Purpose
from tuner.domain.workload import METRICS
from tuner.job import GoalSection, configuration_with_knobs
from tuner.past_runs.found import FoundRun, LeftOut, Row, number
from tuner.past_runs.mapping import Mapping

#: Maximum number of stored scores per run. If a curve has more scores, only every second score is stored, or
#: every fourth, every eighth and so on, until the number is small enough.
MOST_SCORES = 500
#: The number of samples is computed both from the steps and from the epochs of a run. If the two results
#: differ by more than this factor, the run is not imported.
_POSITIONS_DIFFER = 1.6
#: If the target of the job is at least this value, it is assumed to be in percent.
_PERCENT_TARGET = 10.0
#: If the target of the job is at most 1 and most scores of a run are above this value, the scores are assumed
#: to be in percent.
_LARGEST_FRACTION = 1.5
_LARGEST_BATCH, _MOST_NODES, _MOST_SAMPLES = 2**40, 10**6, 2**62


class UnusableRunError(Exception):
    """A run cannot be imported. The message of the error is the reason."""


@dataclass(frozen=True, kw_only=True)
class PastRun:
    """A run that can be imported.

    Args:
        label: Name of the run in messages.
        source: Absolute path of the run's file or folder, and the name of the run. It identifies the run when
            the same files are imported again.
        origin: The file or folder that the user specified.
        format: Name of the format, such as `tensorboard`.
        measurement: The configuration and the learning curve of the run.
        is_same_hardware: Whether the run was trained on the same hardware as the job.
        note: A sentence on scores that were changed or omitted; empty if there are none.
    """

    label: str
    source: str
    origin: str
    format: str
    measurement: Measurement
    is_same_hardware: bool
    note: str = ""


def past_runs(
    runs: Sequence[FoundRun], mapping: Mapping, goal: GoalSection, epoch_samples: int | None
) -> tuple[list[PastRun], list[LeftOut]]:
    """Converts runs of other tools; returns those that can be imported, and the others with reasons.

    Args:
        runs: The runs as they were read from the files of other tools.
        mapping: Says which columns and parameters of the runs contain metric, training progress, batch size
            and learning rate; all of these must be set.
        goal: The section `[goal]` of the job, by which the scores are checked.
        epoch_samples: Number of samples per epoch; None if unknown.
    """
    found, left_out = [], []
    for run in runs:
        try:
            found.append(_past_run(run, mapping, goal, mapping.epoch_samples or epoch_samples))
        except UnusableRunError as reason:
            left_out.append(LeftOut(what=run.label, reason=str(reason)))
    return found, left_out


def _past_run(run: FoundRun, mapping: Mapping, goal: GoalSection, epoch_samples: int | None) -> PastRun:
    parameters = dict(run.parameters)
    if mapping.name_pattern is not None:
        match = re.search(mapping.name_pattern, run.label)
        if match is None:
            raise UnusableRunError(f"name_pattern does not match {run.label!r}")
        parameters |= {name: text for name, text in match.groupdict().items() if text is not None}
    configuration = _configuration(parameters, mapping)
    points, note = _points(run, mapping, configuration, epoch_samples)
    _check_values(mapping, [value for _, _, value in points], goal)
    curve = _with_seconds(points)
    if len(curve) > MOST_SCORES:
        every = 2 ** math.ceil(math.log2(len(curve) / MOST_SCORES))
        stored = f"every {every}th of {len(curve)} scores is stored"
        note = f"{note}; {stored}" if note else stored
        curve = [point for i, point in enumerate(curve) if i % every == 0 or i == len(curve) - 1]
    last = curve[-1]
    measurement = Measurement(
        configuration=configuration,
        purpose=Purpose.TRAINING,
        outcome=Outcome.PAUSED,
        curve=tuple(curve),
        step=last.step,
        samples=last.samples,
        training_seconds=last.training_seconds,
    )
    return PastRun(
        label=run.label,
        source=f"{run.source.resolve().as_posix()} {run.name}".rstrip(),
        origin=run.origin,
        format=run.format,
        measurement=measurement,
        is_same_hardware=mapping.same_hardware,
        note=note,
    )


def _configuration(parameters: Table[str, str], mapping: Mapping) -> Configuration:
    """Builds the configuration of a run from those of its parameters that the mapping names."""
    factors = mapping.batch_size if isinstance(mapping.batch_size, tuple) else (mapping.batch_size,)
    batch_size = 1
    for factor in factors:
        batch_size *= _whole("batch_size", factor, parameters, _LARGEST_BATCH)
    if batch_size > _LARGEST_BATCH:
        raise UnusableRunError(f"its batch_size is {batch_size:g}; at most {_LARGEST_BATCH:g} is possible")
    rate = _number("learning_rate", mapping.learning_rate, parameters)
    if rate <= 0:
        raise UnusableRunError(f"its learning_rate is {rate:g}; it must be above 0")
    strategy = mapping.strategy
    if strategy not in STRATEGIES:
        if strategy not in parameters:
            raise UnusableRunError(f"it has no parameter {strategy!r} (strategy)")
        strategy = parameters[strategy]
        if strategy not in STRATEGIES:
            raise UnusableRunError(
                f"its strategy is {strategy[:60]!r}; known ones are {', '.join(STRATEGIES)}"
            )
    knobs = {
        name: _whole(name, stated, parameters, _MOST_NODES)
        if name == "tau"
        else _number(name, stated, parameters)
        for name in STRATEGIES[strategy].knobs
        if (stated := getattr(mapping, name, None)) is not None
    }
    plain = Configuration(
        nodes=_whole("nodes", mapping.nodes, parameters, _MOST_NODES),
        batch_size=batch_size,
        learning_rate=rate,
        strategy=strategy,
    )
    try:
        return configuration_with_knobs(plain, **knobs)
    except ValueError as error:
        raise UnusableRunError(str(error)) from error


def _number(key: str, stated: str | float | None, parameters: Table[str, str]) -> float:
    """Returns the number that the mapping states, or the value of the parameter that the mapping names."""
    if not isinstance(stated, str):
        assert stated is not None, "the mapping is complete"
        return float(stated)
    if stated not in parameters:
        raise UnusableRunError(f"it has no parameter {stated!r} ({key})")
    value = number(parameters[stated])
    if value is None or not math.isfinite(value):
        raise UnusableRunError(
            f"its parameter {stated!r} ({key}) is {parameters[stated][:60]!r}, which is not a finite number"
        )
    return value


def _whole(key: str, stated: str | int | None, parameters: Table[str, str], most: int) -> int:
    value = _number(key, stated, parameters)
    if value < 1 or value != int(value) or value > most:
        raise UnusableRunError(
            f"its {key} ({stated}) is {value:g}, which is not a whole number from 1 to {most:g}"
        )
    return int(value)


def _points(
    run: FoundRun, mapping: Mapping, configuration: Configuration, epoch_samples: int | None
) -> tuple[list[tuple[int, float | None, float]], str]:
    """Returns the scores of a run, ordered by the number of samples processed, and a note for the user.

    A score consists of the number of samples processed, the logged seconds (None if unknown) and the value.
    Of several scores at the same number of samples, the last one is used. The note is a sentence which
    says that the logged progress decreases; it is empty if the progress never decreases.
    """
    metric = mapping.metric or ""
    scored = [row for row in run.rows if metric in row]
    if not scored:
        raise UnusableRunError(f"it has no column {metric!r} (metric)")
    position = mapping.position or "step"
    column = getattr(mapping, position)
    rows = [row for row in scored if column in row]
    if not rows:
        raise UnusableRunError(f"none of its scores has a {column!r} ({position})")
    counted = _samples(position, [row[column] for row in rows], mapping, configuration, epoch_samples)
    _check_epochs(rows, counted, mapping, epoch_samples)
    going_back = _going_back(position, counted, [row[metric] for row in rows], mapping)
    found: dict[int, tuple[int, float | None, float]] = {}
    for samples, row in zip(counted, rows, strict=True):
        value = row[metric] * mapping.scale
        if not math.isfinite(value):
            raise UnusableRunError(
                f"its metric is {row[metric]:g} after {format_count(samples)} samples; only runs whose "
                "scores are all finite are used"
            )
        seconds = row.get(mapping.seconds) if mapping.seconds is not None else None
        found[samples] = (samples, seconds if seconds is None or math.isfinite(seconds) else None, value)
    if max(found) == 0:
        raise UnusableRunError(
            f"all of its scores have {position} 0 ({column!r}), so it is unknown how far training was at each"
        )
    return [found[samples] for samples in sorted(found)], going_back


def _going_back(position: str, counted: Sequence[int], values: Sequence[float], mapping: Mapping) -> str:
    """Checks whether the logged progress of a run decreases, as after a resume from an old checkpoint.

    Returns:
        A sentence for the user if the progress decreases; empty if it does not.

    Raises:
        UnusableRunError: The progress decreases to that of the first score or below: the file contains
            several runs, or the steps start at 0 in each epoch.
    """
    first_values: dict[int, float] = {}
    differs = any(
        first_values.setdefault(n, value) != value for n, value in zip(counted, values, strict=True)
    )
    back = [i for i in range(1, len(counted)) if counted[i] < counted[i - 1]]
    only_falls = list(counted) == sorted(counted, reverse=True)
    if not differs or not back or only_falls:
        return ""  # all scores count, or the newest comes first
    if any(counted[i] <= counted[0] for i in back):
        raise UnusableRunError(
            f"its {position} ({getattr(mapping, position)!r}) begins again after score {back[0]}, as with "
            "several runs in one file or steps that are counted within an epoch. Put each run in a file of "
            "its own, or name it in a column 'run', or state another column in the mapping"
        )
    times = "once" if len(back) == 1 else f"{len(back)} times"
    return (
        f"its {position} decreases {times}, as after a resume; "
        "if two scores are at the same number of samples, the later score is used"
    )


def _samples(
    position: str,
    places: Sequence[float],
    mapping: Mapping,
    configuration: Configuration,
    epoch_samples: int | None,
) -> list[int]:
    """Converts the steps, epochs or samples that a run logged to numbers of samples processed."""
    if not all(math.isfinite(place) and 0 <= place <= _MOST_SAMPLES for place in places):
        raise UnusableRunError(
            f"its {position} ({getattr(mapping, position)!r}) is not always a number of at least 0"
        )
    factor = 1.0
    if position == "step":
        factor = float(configuration.batch_size)
    elif position == "epoch":
        assert epoch_samples is not None, "the mapping is complete"
        factor = float(epoch_samples)
        is_whole = all(place == int(place) for place in places)
        first = mapping.first_epoch
        if is_whole and (first == 0 or (first is None and min(places) == 0)):
            places = [place + 1 for place in places]
    counted = [round(place * factor) for place in places]
    if max(counted) > _MOST_SAMPLES:
        raise UnusableRunError(f"its {position} means {max(counted):g} samples, which is not possible")
    return counted


def _check_epochs(
    rows: Sequence[Row], counted: Sequence[int], mapping: Mapping, epoch_samples: int | None
) -> None:
    """Checks that the numbers of samples that were computed from steps agree with the logged epochs."""
    if mapping.step is None or epoch_samples is None:
        return
    for name in ("epoch", "train/epoch"):
        known = [(row[name] * epoch_samples, n) for row, n in zip(rows, counted, strict=True) if name in row]
        if not known:
            continue
        by_epochs, by_steps = known[-1]
        # If epochs are counted from 0, the number of epochs is too low by one.
        if by_epochs >= 2 * epoch_samples and not (
            1 / _POSITIONS_DIFFER < by_steps / by_epochs < _POSITIONS_DIFFER
        ):
            raise UnusableRunError(
                f"its {mapping.step!r} times the batch size gives {format_count(by_steps)} samples, but "
                f"its {name!r} {format_count(round(by_epochs))}: batch_size, step or epoch_samples is wrong"
            )


def _check_values(mapping: Mapping, values: Sequence[float], goal: GoalSection) -> None:
    """Checks that the scores of a run are possible values of the job's metric.

    If Paceline does not know the metric and the mapping has no `scale`, the scores are compared with the
    target, to detect scores in percent.

    Raises:
        UnusableRunError: The scores are out of range, or seem to have another unit than the target.
    """
    known = METRICS.get(goal.metric)
    low, high = min(values), max(values)
    if known is not None and not known.lower <= low <= high <= known.upper:
        advice = ""
        if known.upper == 1.0 and low >= 0 and 1.0 < high <= 100.0:
            advice = "; if it is in percent, state scale = 0.01 in the mapping"
        raise UnusableRunError(
            f"its {mapping.metric!r} goes from {low:g} to {high:g}, but {goal.metric} lies between "
            f"{known.lower:g} and {known.upper:g}{advice}"
        )
    if known is not None or "scale" in mapping.model_fields_set or low < 0:
        return
    words = f"its {mapping.metric!r} goes from {low:g} to {high:g}, but the target is {goal.target:g}"
    advice = "in the mapping; if both use the same unit, state scale = 1"
    if goal.target >= _PERCENT_TARGET and high <= 1.0:
        raise UnusableRunError(f"{words}: if the target is in percent, state scale = 100 {advice}")
    # A metric that is minimized may be a loss, which is often above 1.
    num_large = sum(value > _LARGEST_FRACTION for value in values)
    if goal.maximize and 0 < goal.target <= 1.0 and high <= 100.0 and 2 * num_large > len(values):
        raise UnusableRunError(f"{words}: if the run is in percent, state scale = 0.01 {advice}")


def _with_seconds(points: Sequence[tuple[int, float | None, float]]) -> list[CurvePoint]:
    """Returns the learning curve with training seconds since the start.

    The training seconds are 0 if the tool logged no times.

    Logged seconds may start at any number. So the training seconds of the first score are estimated from the
    mean seconds per sample between the first and the last score.
    """
    timed = [(samples, seconds) for samples, seconds, _ in points if seconds is not None]
    pace = start = 0.0
    if len(timed) == len(points) > 1 and timed[-1][0] > timed[0][0]:
        pace = max((timed[-1][1] - timed[0][1]) / (timed[-1][0] - timed[0][0]), 0.0)
        start = timed[0][1] - pace * timed[0][0]
    clock, found = 0.0, []
    for samples, seconds, value in points:
        if pace > 0 and seconds is not None:
            clock = max(clock, seconds - start)
        found.append(CurvePoint(training_seconds=clock, step=0, samples=samples, value=value))
    return found
