"""Completes a job that replays a recording with data from the recording, and checks that both agree."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from search_spaces import Configuration, ListedSpace
from tuner.domain.errors import JobError, did_you_mean
from tuner.domain.workload import METRICS
from tuner.job.model import stated_by_recording
from tuner.recordings.file import load_recording
from tuner.recordings.recording import Recording


def is_recorded(data: Mapping[str, Any]) -> bool:
    """Whether a job file has `probe.kind = 'recorded'`, and names a recording in `probe.recording`."""
    probe = data.get("probe")
    if not isinstance(probe, Mapping):
        return False
    return probe.get("kind") == "recorded" and isinstance(probe.get("recording"), str)


def completed(data: Mapping[str, Any], folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Adds goal and baseline from the recording to the content of a job file.

    Args:
        data: The content of the job file, for which `is_recorded` is true.
        folder: Folder of the job file.

    Returns:
        Two values: the content of the job file with the absolute path of the recording, the completed goal
        and `Configuration.key` of the baseline; and a list of problems, one sentence each.

    Raises:
        JobError: The recording cannot be read.
    """
    path = folder.resolve() / data["probe"]["recording"]
    try:
        recording = load_recording(path)
    except JobError as error:
        raise JobError(f"probe.recording: {error}") from error
    stated = [name for name in ("workload", "cluster", "space") if name in data]
    cluster = data.get("cluster")
    if isinstance(cluster, Mapping) and set(cluster) == {"capacity"}:
        stated.remove("cluster")
    problems = [stated_by_recording(name) for name in stated]
    filled = {key: value for key, value in data.items() if key not in stated}
    filled["probe"] = {**data["probe"], "recording": str(path)}
    goal = data.get("goal", {})
    if isinstance(goal, Mapping):
        recorded = {
            "metric": recording.metric,
            "target": recording.target,
            "direction": "maximize" if recording.maximize else "minimize",
        }
        problems += _goal_problems(goal, recorded, recording)
        if recording.metric in METRICS:
            del recorded["direction"]
        filled["goal"] = {**recorded, **goal}
    baseline = data.get("baseline")
    if isinstance(baseline, Mapping):
        configuration, wrong = _baseline(baseline, recording.space)
        problems += wrong
        filled.pop("baseline")
        if configuration is not None:
            filled["baseline"] = configuration.key
    return filled, problems


def _goal_problems(goal: Mapping[str, Any], recorded: Mapping[str, Any], recording: Recording) -> list[str]:
    problems = [
        f"goal.{key} = {goal[key]!r}, but the recording has {recorded[key]!r}. Remove goal.{key}"
        for key in ("metric", "direction")
        if key in goal and goal[key] != recorded[key]
    ]
    target = goal.get("target")
    values = [run.curve[:, 2] for run in recording.runs if len(run.curve)]
    if isinstance(target, int | float) and not isinstance(target, bool) and values:
        scores = np.concatenate(values)
        best = float(scores.max() if recording.maximize else scores.min())
        if (target > best) if recording.maximize else (target < best):
            problems.append(
                f"goal.target = {target:g}: the best {recording.metric} in the recording is {best:g}. "
                "Choose a target that a recorded run reaches"
            )
    return problems


def _baseline(stated: Mapping[str, Any], space: ListedSpace) -> tuple[Configuration | None, list[str]]:
    """Returns the recorded configuration that the table `[baseline]` describes, and a list of problems.

    Axes that have the same value in all recorded configurations may be missing in the table.
    """
    names = dict.fromkeys(axis for configuration in space.configurations for axis in configuration)
    recorded = {
        axis: list(dict.fromkeys(c[axis] for c in space.configurations if axis in c)) for axis in names
    }
    quoted = "'baseline.{}'"
    problems = [
        f"unknown key 'baseline.{axis}'{did_you_mean(axis, recorded, quoted)} The recording's axes are "
        f"{', '.join(recorded)}"
        for axis in stated
        if axis not in recorded
    ]
    axes = dict(stated)
    for axis in space.axes:
        if axis not in axes and len(recorded[axis]) == 1:
            axes[axis] = recorded[axis][0]
        elif axis not in axes:
            problems.append(f"baseline.{axis} is missing: allowed is {space.axes[axis].describe()}")
    if problems:
        return None, problems
    try:
        # Use the value from the recording, because 1 and 1.0 are equal but have different texts.
        configuration = Configuration(
            {
                axis: next(
                    (one for one in recorded[axis] if one == value and not isinstance(value, bool)), value
                )
                for axis, value in axes.items()
            }
        )
    except (TypeError, ValueError) as error:
        return None, [f"baseline: {error}"]
    if configuration in space.configurations:
        return configuration, []
    return None, [
        f"baseline: {configuration} was not recorded. The nearest recorded configuration is "
        f"{space.nearest(configuration)}"
    ]
