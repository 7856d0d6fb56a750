"""Warnings about possible mistakes in the user's script, found by comparing the scores of all runs."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

from search_spaces import Configuration
from tuner.domain.format import axis_title, format_axis, format_configuration, format_count, format_value
from tuner.search.runs import Run
from tuner.search.state import SearchState

#: Two scores count as equal if they agree in this number of significant digits.
_DIGITS = 6
#: Two runs count as equal if at least this number of different scores occur in both at the same step (or
#: number of samples). A score with fewer than `_MANY_DIGITS` digits, such as an accuracy on a hundred
#: samples, counts half.
_FEWEST_VALUES, _MANY_DIGITS = 2, 4
#: Two runs are compared only if at least this share of the scores, up to the end of the shorter run, were
#: measured in both runs at the same step (or number of samples).
_SHARED = 0.9
#: A run whose best score has gained less than this share of the distance from the first score to the target
#: may not have learned anything yet.
_FEWEST_PROGRESS = 0.3
#: Units by which scores of two runs are compared.
_POSITIONS = ("step", "samples")
#: Only this number of runs, the newest ones, are compared with each other, because the number of pairs grows
#: with the square of the number of runs.
_MOST_COMPARED = 50


def script_warnings(state: SearchState) -> tuple[str, ...]:
    """Returns warnings about possible mistakes in the user's script.

    - An axis of the search space, such as the batch size, has no effect. Probably the script does not read
      it.
    - The target looks wrong, for example because the first evaluation already met it.
    - Remarks of the program that read the output of the script.

    Args:
        state: State of the search.

    Returns:
        The warnings, without duplicates.
    """
    runs = list(state.runs.values())
    compared = _no_effect(_learning_runs(state)) if state.job.runs_command else ()
    found = [*compared, *_doubtful_target(state, runs), *remarks_of(state)]
    return tuple(dict.fromkeys(found))


def remarks_of(state: SearchState) -> tuple[str, ...]:
    """Returns the remarks on the user's script that were stored with the measurements, without duplicates."""
    return tuple(dict.fromkeys(remark for measurement in state.slices for remark in measurement.remarks))


def axes_without_effect(state: SearchState) -> frozenset[str]:
    """Returns the parameters whose value seems to have no effect on the scores of runs.

    They are axes of the search space, such as the batch size.
    """
    if not state.job.runs_command:
        return frozenset()
    pairs = _same_runs(_learning_runs(state))
    return frozenset(axis for one, other in pairs for axis in _differing(one, other))


def _learning_runs(state: SearchState) -> list[Run]:
    """Returns the newest runs that have improved clearly; until then, all settings may give equal scores."""
    found = []
    for run in state.runs.values():
        values = [point.value for point in run.measurement.trained_curve]
        if not values:
            continue
        sign, target = state.job.goal.sign, state.job.goal.target
        gained, needed = sign * (max(values, key=lambda v: sign * v) - values[0]), sign * (target - values[0])
        if run.arrived or gained >= _FEWEST_PROGRESS * needed:
            found.append(run)
    return found[-_MOST_COMPARED:]


def differing_axes(one: Configuration, other: Configuration) -> frozenset[str]:
    """Returns the names of the parameters in which two configurations differ."""
    return frozenset(axis for axis in {**one, **other} if one.get(axis) != other.get(axis))


def _no_effect(runs: Sequence[Run]) -> Iterable[str]:
    said: set[tuple[str, ...]] = set()
    # Pairs of runs that differ in a single axis are the clearest evidence, so they come first.
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
    """Returns pairs of runs that have equal scores although their configurations differ.

    Only scores at the same number of steps (or of samples) are compared. A pair may have equal scores by
    chance. For example, it differs in learning rate and strategy, but another pair that differs only in the
    learning rate has different scores: so the learning rate has an effect, and the first pair is left out.
    """
    scores = [{position: _scores(run, position) for position in _POSITIONS} for run in runs]
    same: list[tuple[Run, Run]] = []
    effective: set[str] = set()
    for i, j in itertools.combinations(range(len(runs)), 2):
        pair = runs[i], runs[j]
        axes = _differing(*pair)
        if not axes or all(scores[i][p].keys().isdisjoint(scores[j][p]) for p in _POSITIONS):
            continue
        # Runs with different batch sizes may rightly have equal scores after the same number of samples. For
        # them, only equal scores after the same number of steps show that the batch size has no effect.
        positions = ("step",) if "batch_size" in axes else _POSITIONS
        if any(_are_same(scores[i][p], scores[j][p]) for p in positions):
            same.append(pair)
        elif len(axes) == 1:
            effective.add(axes[0])
    return [pair for pair in same if effective.isdisjoint(_differing(*pair))]


def _scores(run: Run, position: str) -> dict[int, str]:
    """Returns the scores of a run, rounded, by the number of steps or samples at which they were measured."""
    curve = run.measurement.trained_curve
    return {getattr(point, position): f"{point.value:.{_DIGITS}g}" for point in curve}


def _are_same(ours: Mapping[int, str], theirs: Mapping[int, str]) -> bool:
    """Whether two runs have equal scores.

    Args:
        ours: Scores of the first run (see `_scores`).
        theirs: Scores of the second run, at the same unit.
    """
    shared = ours.keys() & theirs.keys()
    # Almost all pairs differ, so the quickest test comes first.
    if any(ours[at] != theirs[at] for at in shared):
        return False
    # Two runs are not equal if most of their scores are at different numbers of steps or samples, for example
    # because their episodes have different lengths.
    common = min(max(ours), max(theirs))
    num_common = sum(at <= common for at in {*ours, *theirs})
    if len(shared) < _SHARED * num_common:
        return False
    # Count different scores, because runs whose score never changes are equal by chance.
    different = {ours[at] for at in shared}
    weight = sum(
        1.0 if len(value.strip("-0.").replace(".", "")) >= _MANY_DIGITS else 0.5 for value in different
    )
    return weight >= _FEWEST_VALUES


def _differing(one: Run, other: Run) -> tuple[str, ...]:
    """Returns the parameters in which the configurations of two runs differ, except the number of nodes."""
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
                f"({format_value(lost.value)} after {format_count(lost.samples)} samples). "
                f"Set consecutive_scores = {fewest} in [goal] to require {fewest} such scores in a row"
            )
            break
