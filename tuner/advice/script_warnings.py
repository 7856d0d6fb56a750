"""Warnings about the user's script, from a comparison of all runs of a study."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from search_spaces import Configuration
from tuner.domain.format import axis_title, format_axis, format_configuration, format_value
from tuner.search.runs import Run
from tuner.search.state import SearchState

#: Two values are equal if they agree in this number of significant digits.
_DIGITS = 6
#: Number of distinct equal values that show that two runs are the same. A value with fewer than
#: `_MANY_DIGITS` digits, such as an accuracy on a hundred samples, counts half.
_FEWEST_VALUES, _MANY_DIGITS = 2, 4
#: Two runs are compared if both were scored at this share of the positions up to the end of the shorter run.
_SHARED = 0.9
#: Runs that made less than this share of the progress to the target may not have started to learn.
_FEWEST_PROGRESS = 0.3


def script_warnings(state: SearchState) -> tuple[str, ...]:
    """Warnings about options without effect, a doubtful target, and remarks of the probes, each once."""
    runs = list(state.runs.values())
    compared = _no_effect(_learning_runs(state)) if state.job.runs_command else ()
    found = [*compared, *_doubtful_target(state, runs), *remarks_of(state)]
    return tuple(dict.fromkeys(found))


def remarks_of(state: SearchState) -> tuple[str, ...]:
    """Remarks that the slices of the study reported, each once."""
    return tuple(dict.fromkeys(remark for measurement in state.slices for remark in measurement.remarks))


def axes_without_effect(state: SearchState) -> frozenset[str]:
    """Axes that seem to have no effect: runs that differ in them gave the same values."""
    if not state.job.runs_command:
        return frozenset()
    pairs = _same_runs(_learning_runs(state))
    return frozenset(axis for one, other in pairs for axis in _differing(one, other))


def _learning_runs(state: SearchState) -> list[Run]:
    """Runs that have improved clearly. Before a run learns, all settings may give the same values."""
    found = []
    for run in state.runs.values():
        values = [point.value for point in run.measurement.trained_curve]
        if not values:
            continue
        sign, target = state.job.goal.sign, state.job.goal.target
        gained, needed = sign * (max(values, key=lambda v: sign * v) - values[0]), sign * (target - values[0])
        if run.arrived or gained >= _FEWEST_PROGRESS * needed:
            found.append(run)
    return found


def differing_axes(one: Configuration, other: Configuration) -> frozenset[str]:
    """Axes in which two configurations differ."""
    return frozenset(axis for axis in {**one, **other} if one.get(axis) != other.get(axis))


def _no_effect(runs: Sequence[Run]) -> Iterable[str]:
    said: set[tuple[str, ...]] = set()
    # A pair that differs in a single axis is the clearest evidence, so it comes first.
    for one, other in sorted(_same_runs(runs), key=lambda pair: len(_differing(*pair))):
        axes = _differing(one, other)
        if any(set(earlier) <= set(axes) for earlier in said):
            continue
        said.add(axes)
        named = " or ".join(axes)
        yield (
            f"{named} seems to have no effect: the runs with {_values(one.configuration, axes)} and with "
            f"{_values(other.configuration, axes)} gave the same values up to "
            f"{format_value(one.measurement.trained_curve[-1].value)}. "
            "Check that the script uses the value that it gets"
        )


def _same_runs(runs: Sequence[Run]) -> list[tuple[Run, Run]]:
    """Pairs of runs with different settings and the same values in every score that both have.

    Two settings may be equally good by chance. So pairs that differ in an axis that has an effect in another
    pair are left out.
    """
    pairs = [pair for pair in itertools.combinations(runs, 2) if _differing(*pair) and _shared(*pair)]
    same = [pair for pair in pairs if any(_are_same(*pair, position) for position in _positions(*pair))]
    different = [pair for pair in pairs if pair not in same]
    effective = {axes[0] for pair in different if len(axes := _differing(*pair)) == 1}
    return [pair for pair in same if not effective & set(_differing(*pair))]


def _positions(one: Run, other: Run) -> tuple[str, ...]:
    """The units of training position (`step`, `samples`) in which two runs are compared.

    Runs with different batch sizes may well score the same after the same number of samples, so only equal
    scores after the same number of steps are suspicious.
    """
    return ("step",) if "batch_size" in _differing(one, other) else ("step", "samples")


def _shared(one: Run, other: Run) -> bool:
    """Whether two runs have scores at the same number of steps or samples."""
    ours, theirs = one.measurement.trained_curve, other.measurement.trained_curve
    return any(
        {getattr(p, position) for p in ours} & {getattr(p, position) for p in theirs}
        for position in ("step", "samples")
    )


def _are_same(one: Run, other: Run, position: str) -> bool:
    ours, theirs = (
        {getattr(point, position): f"{point.value:.{_DIGITS}g}" for point in run.measurement.trained_curve}
        for run in (one, other)
    )
    shared = ours.keys() & theirs.keys()
    # Runs that are scored at different positions differ, for example in the lengths of their episodes.
    common = min(max(ours), max(theirs))
    num_common = sum(at <= common for at in {*ours, *theirs})
    if len(shared) < _SHARED * num_common:
        return False
    # Count distinct values: a constant value is the same in any two runs.
    different = {ours[at] for at in shared}
    weight = sum(
        1.0 if len(value.strip("-0.").replace(".", "")) >= _MANY_DIGITS else 0.5 for value in different
    )
    return weight >= _FEWEST_VALUES and all(ours[at] == theirs[at] for at in shared)


def _differing(one: Run, other: Run) -> tuple[str, ...]:
    """Axes in which two runs differ, without the number of nodes."""
    axes = differing_axes(one.configuration, other.configuration) - {"nodes"}
    return tuple(axis for axis in {**one.configuration, **other.configuration} if axis in axes)


def _values(configuration: Configuration, axes: Sequence[str]) -> str:
    words = [f"{axis_title(a)} {format_axis(configuration[a])}" for a in axes if a in configuration]
    return ", ".join(words)


def _doubtful_target(state: SearchState, runs: Sequence[Run]) -> Iterable[str]:
    goal = state.job.goal
    count = goal.target_count()
    for run in runs:
        curve = run.measurement.trained_curve
        untrained = run.measurement.curve[: len(run.measurement.curve) - len(curve)]
        if curve and count.is_past(curve[0].value) and all(count.is_past(p.value) for p in untrained):
            yield (
                f"the first score of {format_configuration(run.configuration)}, "
                f"{format_value(curve[0].value)}, already met the target {goal.target:g}: the target "
                "may be too easy, or its unit may be wrong"
            )
            break
    for run in runs:
        past = [count.is_past(point.value) for point in run.measurement.trained_curve]
        if True in past and not all(past[past.index(True) :]):
            fewest = max(goal.consecutive_scores + 1, 3)
            lost = run.measurement.trained_curve[past.index(True) :][past[past.index(True) :].index(False)]
            yield (
                f"{format_configuration(run.configuration)} met the target and then missed it again "
                f"({format_value(lost.value)} after {lost.samples} samples): [goal] consecutive_scores = "
                f"{fewest} requires {fewest} scores in a row"
            )
            break
