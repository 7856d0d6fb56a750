"""Warnings from what the user's script reported, compared over all runs of a study."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from search_spaces import Configuration
from tuner.domain.format import axis_title, format_axis, format_configuration, format_value
from tuner.search.runs import Run
from tuner.search.state import SearchState

#: Two values are the same if they agree in so many significant digits.
_DIGITS = 6
#: So many different values at the same positions say that runs are the same; of values with few digits, such
#: as an accuracy on a hundred samples, it takes twice as many.
_FEWEST_VALUES, _MANY_DIGITS = 2, 4
#: Of the scores up to where the shorter run is, so many stand at positions that both runs have.
_SHARED = 0.9
#: Runs that have come no further than this towards the target may not have begun to learn.
_FEWEST_PROGRESS = 0.3


def script_warnings(state: SearchState) -> tuple[str, ...]:
    """Sentences on what contradicts the job: each remark once, options without effect, a doubtful target."""
    runs = list(state.runs.values())
    compared = _no_effect(_learning_runs(state)) if state.job.runs_command else ()
    found = [*compared, *_doubtful_target(state, runs), *remarks_of(state)]
    return tuple(dict.fromkeys(found))


def remarks_of(state: SearchState) -> tuple[str, ...]:
    """What was noticed in any slice of the study, each once."""
    return tuple(dict.fromkeys(remark for measurement in state.slices for remark in measurement.remarks))


def axes_without_effect(state: SearchState) -> frozenset[str]:
    """Axes that two runs differ in that gave the same values all the same."""
    if not state.job.runs_command:
        return frozenset()
    pairs = _same_runs(_learning_runs(state))
    return frozenset(axis for one, other in pairs for axis in _differing(one, other))


def _learning_runs(state: SearchState) -> list[Run]:
    """Runs that have gained something: before they learn, all settings may give the same values."""
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
    # A pair that differs in one axis says most, so that it comes first.
    for one, other in sorted(_same_runs(runs), key=lambda pair: len(_differing(*pair))):
        axes = _differing(one, other)
        if any(set(earlier) <= set(axes) for earlier in said):
            continue
        said.add(axes)
        named = " or ".join(axes)
        yield (
            f"{named} seems to have no effect: the runs with {_values(one.configuration, axes)} and with "
            f"{_values(other.configuration, axes)} gave the same values "
            f"({format_value(one.measurement.trained_curve[-1].value)} and before). "
            "Check that the script uses what it is given"
        )


def _same_runs(runs: Sequence[Run]) -> list[tuple[Run, Run]]:
    """Pairs of runs with the same values at the same positions, in every score that both have.

    Two settings may be equally good by chance: an axis of which another pair shows an effect is left out.
    """
    pairs = [pair for pair in itertools.combinations(runs, 2) if _differing(*pair) and _shared(*pair)]
    same = [pair for pair in pairs if any(_are_same(*pair, position) for position in _positions(*pair))]
    different = [pair for pair in pairs if pair not in same]
    effective = {axes[0] for pair in different if len(axes := _differing(*pair)) == 1}
    return [pair for pair in same if not effective & set(_differing(*pair))]


def _positions(one: Run, other: Run) -> tuple[str, ...]:
    """By what positions two runs are compared.

    With other batches, equal values after equal samples are what one hopes for; after equal steps they are
    not.
    """
    return ("step",) if "batch_size" in _differing(one, other) else ("step", "samples")


def _shared(one: Run, other: Run) -> bool:
    """Whether two runs were scored at a position that both have."""
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
    # Where two runs are scored at other places, they took other ways, such as episodes of other lengths.
    common = min(max(ours), max(theirs))
    num_common = sum(at <= common for at in {*ours, *theirs})
    if len(shared) < _SHARED * num_common:
        return False
    # A value that never changes is the same in any two runs.
    different = {ours[at] for at in shared}
    weight = sum(
        1.0 if len(value.strip("-0.").replace(".", "")) >= _MANY_DIGITS else 0.5 for value in different
    )
    return weight >= _FEWEST_VALUES and all(ours[at] == theirs[at] for at in shared)


def _differing(one: Run, other: Run) -> tuple[str, ...]:
    """Axes that training depends on and in which two runs differ."""
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
                f"the very first score, {format_value(curve[0].value)} of "
                f"{format_configuration(run.configuration)}, was past the target {goal.target:g}: the target "
                "may be too easy, or its unit may be wrong"
            )
            break
    for run in runs:
        past = [count.is_past(point.value) for point in run.measurement.trained_curve]
        if True in past and not all(past[past.index(True) :]):
            fewest = max(goal.consecutive_scores + 1, 3)
            lost = run.measurement.trained_curve[past.index(True) :][past[past.index(True) :].index(False)]
            yield (
                f"{format_configuration(run.configuration)} met the target once and lost it again "
                f"({format_value(lost.value)} after {lost.samples} samples): with [goal] "
                f"consecutive_scores = {fewest}, {fewest} scores in a row have to meet it"
            )
            break
