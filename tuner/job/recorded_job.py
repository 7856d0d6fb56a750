"""Fills in what a recorded job leaves to its recording, and checks the job against it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from search_spaces import Configuration, ListedSpace
from tuner.domain.errors import JobError
from tuner.domain.workload import METRICS
from tuner.job.model import stated_by_recording
from tuner.recordings.file import load_recording
from tuner.recordings.recording import Recording

_LEFT_TO_IT = ("workload", "cluster", "space")


def is_recorded(data: Mapping[str, Any]) -> bool:
    """Whether a job file's data are those of a recorded job, with its recording named."""
    probe = data.get("probe")
    if not isinstance(probe, Mapping):
        return False
    return probe.get("kind") == "recorded" and isinstance(probe.get("recording"), str)


def completed(data: Mapping[str, Any], folder: Path) -> tuple[dict[str, Any], list[str]]:
    """A recorded job's data with what its recording states.

    Args:
        data: The job file's data; `is_recorded`.
        folder: The job file's folder.

    Returns:
        The data, with the recording's path in full, the goal and the baseline's configuration; and what is
        wrong, one sentence each.

    Raises:
        JobError: The recording cannot be read.
    """
    path = folder.resolve() / data["probe"]["recording"]
    try:
        recording = load_recording(path)
    except JobError as error:
        raise JobError(f"probe.recording: {error}") from error
    stated = [name for name in _LEFT_TO_IT if name in data and not _is_capacity_alone(name, data[name])]
    problems = [stated_by_recording(name) for name in stated]
    filled = {key: value for key, value in data.items() if key not in stated}
    filled["probe"] = {**data["probe"], "recording": str(path)}
    goal = data.get("goal", {})
    if isinstance(goal, Mapping):
        filled["goal"] = {**_goal(recording), **goal}
        problems += _goal_problems(goal, recording)
    baseline = data.get("baseline")
    if isinstance(baseline, Mapping):
        configuration, wrong = _baseline(baseline, recording.space)
        problems += wrong
        filled.pop("baseline")
        if configuration is not None:
            filled["baseline"] = configuration.key
    return filled, problems


def _is_capacity_alone(name: str, stated: Any) -> bool:
    """Whether it is a cluster of which no more is said than how many nodes are there at once."""
    return name == "cluster" and isinstance(stated, Mapping) and set(stated) == {"capacity"}


def _goal(recording: Recording) -> dict[str, Any]:
    goal: dict[str, Any] = {"metric": recording.metric, "target": recording.target}
    if recording.metric not in METRICS:
        goal["direction"] = _direction(recording)
    return goal


def _direction(recording: Recording) -> str:
    return "maximize" if recording.maximize else "minimize"


def _goal_problems(goal: Mapping[str, Any], recording: Recording) -> list[str]:
    problems = []
    for key, recorded in (("metric", recording.metric), ("direction", _direction(recording))):
        if key in goal and goal[key] != recorded:
            problems.append(
                f"goal.{key} = {goal[key]!r}: the recording's is {recorded!r}. Leave goal.{key} out"
            )
    target = goal.get("target")
    values = [run.curve[:, 2] for run in recording.runs if len(run.curve)]
    if isinstance(target, int | float) and not isinstance(target, bool) and values:
        every = np.concatenate(values)
        best = float(every.max() if recording.maximize else every.min())
        if (target > best) if recording.maximize else (target < best):
            problems.append(
                f"goal.target = {target:g}: the best {recording.metric} in the recording is {best:g}, and "
                "nothing is known beyond it. Choose a target within that"
            )
    return problems


def _baseline(stated: Mapping[str, Any], space: ListedSpace) -> tuple[Configuration | None, list[str]]:
    """The listed configuration that a table names; an axis with a single recorded value may be left out."""
    recorded = {axis: {c[axis]: None for c in space.configurations if axis in c} for axis in _axes(space)}
    problems = []
    for axis in stated:
        if axis not in recorded:
            near = difflib.get_close_matches(axis, recorded, n=1)
            hint = f"; did you mean 'baseline.{near[0]}'?" if near else "."
            problems.append(
                f"unknown key 'baseline.{axis}'{hint} The recording's axes are {', '.join(recorded)}"
            )
    axes = dict(stated)
    for axis in space.axes:
        values = list(recorded[axis])
        if axis not in axes and len(values) == 1:
            axes[axis] = values[0]
        elif axis not in axes:
            problems.append(f"baseline.{axis} is missing: allowed is {space.axes[axis].describe()}")
    if problems:
        return None, problems
    try:
        configuration = Configuration({a: _as_recorded(v, recorded[a]) for a, v in axes.items()})
    except (TypeError, ValueError) as error:
        return None, [f"baseline: {error}"]
    if configuration in space.configurations:
        return configuration, []
    return None, [
        f"baseline: {configuration} was not recorded, so nothing is known of it. The nearest recorded one "
        f"is {space.nearest(configuration)}"
    ]


def _axes(space: ListedSpace) -> list[str]:
    return list(dict.fromkeys(axis for c in space.configurations for axis in c))


def _as_recorded(value: Any, recorded: Mapping[Any, None]) -> Any:
    """A value as the recording writes it: 1 and 1.0 are the same rate."""
    return next((other for other in recorded if other == value and type(value) is not bool), value)
